// A store's directory that appears whole or not at all.
#ifndef KVSTREAM_STORAGE_ROCKSDB_NEW_DIRECTORY_H_
#define KVSTREAM_STORAGE_ROCKSDB_NEW_DIRECTORY_H_

#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace kvstream {

// To be filled beside its place, then given its name. Not thread-safe.
class NewDirectory {
 public:
  // `target` must be missing (its parent not) or an empty directory: FAILED_PRECONDITION. The work
  // is done in `target`.`suffix`, which an interrupted earlier one may have left, and which is
  // emptied. `what` (as in "a restore") is for messages.
  static absl::StatusOr<std::unique_ptr<NewDirectory>> Create(const std::string& target,
                                                              absl::string_view suffix,
                                                              absl::string_view what);
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;
  // Removes what was not published.
  ~NewDirectory();

  // Where to put the files.
  const std::string& path() const { return path_; }

  // Syncs all files, which nobody may have open for writing any more, and gives the directory its
  // name. RESOURCE_EXHAUSTED, UNAVAILABLE: the disk; then nothing appears.
  absl::Status Publish();

 private:
  NewDirectory(std::string target, std::string path)
      : target_(std::move(target)), path_(std::move(path)) {}

  const std::string target_;
  const std::string path_;
  bool published_ = false;
};

// The status of a system call; OK for no error.
absl::Status FromSystem(const std::error_code& error, absl::string_view what);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_NEW_DIRECTORY_H_

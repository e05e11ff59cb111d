// Writes a file so that its name shows either the old content or the whole new content.
#ifndef KVSTREAM_CLIENT_ATOMIC_FILE_H_
#define KVSTREAM_CLIENT_ATOMIC_FILE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace kvstream {

// Bytes go to a new file beside the wanted one (its name with ".tmp." and random letters appended),
// which Commit() makes durable and renames. Without Commit() the destructor removes it. Not
// thread-safe. Errors are the operating system's (NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED
// for a full disk, ...) and name the path.
class AtomicFile {
 public:
  // FAILED_PRECONDITION if `path` exists and is no regular file: a device must not be replaced.
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Create(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  absl::Status Append(absl::string_view bytes);
  // Last call. Replaces what had the name before.
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

  const std::string path_;
  std::string temporary_;  // empty once renamed
  int fd_;
};

// Create, Append and Commit in one.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_ATOMIC_FILE_H_

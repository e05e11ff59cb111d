#include "storage/rocksdb/new_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

namespace fs = std::filesystem;

// Of a file or a directory.
absl::Status Sync(const fs::path& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = file >= 0 && fsync(file) == 0;
  const std::error_code error(synced ? 0 : errno, std::generic_category());
  if (file >= 0) close(file);
  return FromSystem(error, absl::StrCat("syncing ", path.string()));
}

}  // namespace

absl::Status FromSystem(const std::error_code& error, absl::string_view what) {
  if (!error) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", error.message());
  if (error == std::errc::no_space_on_device) {
    return absl::ResourceExhaustedError(absl::StrCat(message, " (the disk is full)"));
  }
  return absl::UnavailableError(message);
}

absl::StatusOr<std::unique_ptr<NewDirectory>> NewDirectory::Create(const std::string& target,
                                                                   absl::string_view suffix,
                                                                   absl::string_view what) {
  std::error_code error;
  fs::path place = fs::absolute(target, error).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();
  if (fs::exists(place, error) && !fs::is_empty(place, error)) {
    return absl::FailedPreconditionError(absl::StrCat(
        target, " is not empty: ", what, " overwrites nothing; name another data directory"));
  }
  if (!fs::is_directory(place.parent_path(), error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(place.parent_path().string(), " is not a directory; create it first"));
  }
  const std::string path = absl::StrCat(place.string(), ".", suffix);
  fs::remove_all(path, error);
  if (!error) fs::create_directory(path, error);
  if (error) return FromSystem(error, absl::StrCat("making ", path));
  return absl::WrapUnique(new NewDirectory(place.string(), path));
}

NewDirectory::~NewDirectory() {
  std::error_code ignored;  // leaves litter at worst
  if (!published_) fs::remove_all(path_, ignored);
}

absl::Status NewDirectory::Publish() {
  std::error_code error;
  for (auto it = fs::directory_iterator(path_, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (absl::Status status = Sync(it->path()); !status.ok()) return status;
  }
  if (error) return FromSystem(error, absl::StrCat("reading ", path_));
  if (absl::Status status = Sync(path_); !status.ok()) return status;
  fs::remove(target_, error);  // empty
  if (!error) fs::rename(path_, target_, error);
  if (error) return FromSystem(error, absl::StrCat("renaming to ", target_));
  published_ = true;
  return Sync(fs::path(target_).parent_path());
}

}  // namespace kvstream

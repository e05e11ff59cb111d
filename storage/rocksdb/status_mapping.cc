#include "storage/rocksdb/status_mapping.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

// RocksDB has no code for it. Its two messages: of its file system ("While lock file: DIR/LOCK:
// Resource temporarily unavailable") and of its table of this process's own locks ("lock hold by
// current process").
bool IsLockHeld(const rocksdb::Status& status, const std::string& text) {
  return status.IsIOError() && (absl::StrContains(text, "While lock file") ||
                                absl::StrContains(text, "lock hold by current process"));
}

}  // namespace

absl::Status FromRocksDb(const rocksdb::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  const std::string message = absl::StrCat(what, ": ", text);
  if (IsLockHeld(status, text)) {
    return absl::FailedPreconditionError(absl::StrCat(
        what,
        ": another process (or another store of this one) has the data directory open; "
        "stop it or choose another data directory (",
        text, ")"));
  }
  if (status.IsNoSpace()) {
    return absl::ResourceExhaustedError(absl::StrCat(message, " (the disk is full)"));
  }
  if (status.subcode() == rocksdb::Status::kSpaceLimit || status.IsMemoryLimit()) {
    return absl::ResourceExhaustedError(message);
  }
  if (status.IsCorruption() || status.IsPathNotFound()) return absl::DataLossError(message);
  if (status.IsNotFound()) return absl::NotFoundError(message);
  if (status.IsNotSupported()) return absl::FailedPreconditionError(message);
  if (status.IsIOError() || status.IsBusy() || status.IsTimedOut() || status.IsTryAgain() ||
      status.IsIncomplete() || status.IsShutdownInProgress() || status.IsAborted()) {
    return absl::UnavailableError(message);
  }
  return absl::InternalError(message);
}

}  // namespace kvstream

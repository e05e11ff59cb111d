#include "storage/rocksdb/rocksdb_open.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/log_check.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

// Holds RocksDB's own lock, so that the logs are not checked while another process writes them.
absl::Status CheckLogsLocked(const rocksdb::DBOptions& db_options,
                             const RocksDbChunkStoreOptions& options, absl::string_view what) {
  const std::string path = absl::StrCat(options.data_dir, "/LOCK");
  rocksdb::FileLock* lock = nullptr;
  const rocksdb::Status locked = db_options.env->LockFile(path, &lock);
  if (!locked.ok()) return FromRocksDb(locked, what);
  const absl::StatusOr<LogVerdict> verdict = CheckLogs(db_options.env, options.data_dir);
  const rocksdb::Status unlocked = db_options.env->UnlockFile(lock);
  if (!verdict.ok()) return verdict.status();
  if (!unlocked.ok()) return FromRocksDb(unlocked, what);
  if (verdict->state != LogState::kDamagedBeforeEnd) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      what, ": its log ", verdict->file, " is damaged at byte ", verdict->offset,
      " and records follow, so acknowledged writes would be lost: restore the store from a copy, "
      "or set drop_damaged_log once to go on without what was written after the damage"));
}

// Call after a successful open with the logs that were there before it. The open has flushed what
// it found in them (avoid_flush_during_recovery is off) and noted in the manifest that it reads
// them no more, but where they held nothing intact it leaves the files until some later flush. A
// torn one must not stay: to the next check what is written from now on would look like records
// behind damage.
absl::Status DeleteRecoveredLogs(rocksdb::Env* env, const std::string& data_dir,
                                 const std::vector<std::pair<uint64_t, std::string>>& logs,
                                 absl::string_view what) {
  for (const auto& [number, name] : logs) {
    const std::string path = absl::StrCat(data_dir, "/", name);
    const rocksdb::Status status = env->DeleteFile(path);
    if (status.ok() || status.IsNotFound() || status.IsPathNotFound()) continue;
    if (env->FileExists(path).IsNotFound()) continue;
    return FromRocksDb(status, absl::StrCat(what, ": deleting ", name));
  }
  return absl::OkStatus();
}

absl::Status CheckFamilies(const rocksdb::DBOptions& db_options,
                           const std::vector<rocksdb::ColumnFamilyDescriptor>& families,
                           const std::string& data_dir, absl::string_view what) {
  if (db_options.env->FileExists(absl::StrCat(data_dir, "/CURRENT")).IsNotFound()) {
    return absl::OkStatus();  // to be created
  }
  std::vector<std::string> names;
  const rocksdb::Status status = rocksdb::DB::ListColumnFamilies(db_options, data_dir, &names);
  if (!status.ok()) return FromRocksDb(status, what);
  for (const std::string& name : names) {
    if (std::none_of(families.begin(), families.end(),
                     [&name](const auto& family) { return family.name == name; })) {
      return NewerStoreError(data_dir, absl::StrCat("it has a column family '", name, "'"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status NewerStoreError(absl::string_view data_dir, absl::string_view how) {
  return absl::FailedPreconditionError(
      absl::StrCat("the store in ", data_dir,
                   " was written by a newer version of KVStream or is not one of its stores (", how,
                   "; this program knows version ", rocksdb_format::kStoreVersion,
                   "): run the newer version, or choose another data directory"));
}

absl::Status PrepareStoreDirectory(const RocksDbChunkStoreOptions& options) {
  namespace fs = std::filesystem;
  const fs::path dir = options.data_dir;
  const auto cannot = [&dir](const auto&... why) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot use ", dir.string(), " as data directory: ", why...));
  };
  std::error_code error;
  const fs::file_status status = fs::status(dir, error);
  if (fs::is_directory(status)) return absl::OkStatus();
  if (fs::exists(status)) return cannot("it exists and is not a directory");
  if (status.type() != fs::file_type::not_found) return cannot(error.message());

  // "a/b/" has the parent "a/b" to std::filesystem.
  const fs::path named = dir.has_filename() ? dir : dir.parent_path();
  const fs::path parent = named.has_parent_path() ? named.parent_path() : fs::path(".");
  if (!fs::is_directory(parent, error)) {
    return cannot("its parent ", parent.string(), " is not a directory; create it first");
  }
  if (!fs::create_directory(named, error) && error) {
    return cannot("creating it failed (", error.message(), "); check the permissions of ",
                  parent.string());
  }
  return absl::OkStatus();
}

absl::StatusOr<OpenedDb> OpenDb(const rocksdb::DBOptions& db_options,
                                const std::vector<rocksdb::ColumnFamilyDescriptor>& families,
                                const RocksDbChunkStoreOptions& options) {
  const std::string what = absl::StrCat("opening the store in ", options.data_dir);
  if (absl::Status status = CheckFamilies(db_options, families, options.data_dir, what);
      !status.ok()) {
    return status;
  }
  // Without synced writes a crash of the machine may tear the log anywhere; what lies before that
  // is all that there is.
  if (options.sync_writes && !options.drop_damaged_log) {
    if (absl::Status status = CheckLogsLocked(db_options, options, what); !status.ok()) {
      return status;
    }
  }
  absl::StatusOr<std::vector<std::pair<uint64_t, std::string>>> logs =
      std::vector<std::pair<uint64_t, std::string>>();
  if (db_options.env->FileExists(options.data_dir).ok()) {
    logs = ListLogs(db_options.env, options.data_dir);
    if (!logs.ok()) return logs.status();
  }
  OpenedDb opened;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(db_options, options.data_dir, families, &opened.families, &db);
  opened.db.reset(db);
  if (!status.ok()) return FromRocksDb(status, what);
  if (absl::Status deleted = DeleteRecoveredLogs(db_options.env, options.data_dir, *logs, what);
      !deleted.ok()) {
    for (rocksdb::ColumnFamilyHandle* handle : opened.families) {
      opened.db->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
    }
    return deleted;
  }
  return opened;
}

}  // namespace kvstream

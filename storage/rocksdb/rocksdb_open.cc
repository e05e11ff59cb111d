#include "storage/rocksdb/rocksdb_open.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/log_check.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

// The oldest log that RocksDB still needs, 0 if that cannot be told. Older ones, whose content is
// in tables, may lie around after a crash, and may never have been synced. Replays the logs.
uint64_t FirstLogNeeded(rocksdb::DBOptions db_options,
                        const std::vector<rocksdb::ColumnFamilyDescriptor>& families,
                        const std::string& data_dir) {
  std::vector<std::string> names;
  if (!rocksdb::DB::ListColumnFamilies(db_options, data_dir, &names).ok()) return 0;
  std::vector<rocksdb::ColumnFamilyDescriptor> present;
  for (const auto& family : families) {
    if (std::count(names.begin(), names.end(), family.name) > 0) present.push_back(family);
  }
  db_options.listeners.clear();
  db_options.sst_file_manager.reset();
  rocksdb::DB* opened = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  if (!rocksdb::DB::OpenForReadOnly(db_options, data_dir, present, &handles, &opened).ok()) {
    return 0;
  }
  const std::unique_ptr<rocksdb::DB> db(opened);
  uint64_t number = 0;
  if (!db->GetIntProperty(rocksdb::DB::Properties::kMinLogNumberToKeep, &number)) number = 0;
  for (auto* handle : handles) db->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  return number;
}

// Holds RocksDB's own lock, so that the logs are not checked while another process writes them.
absl::Status CheckLogsLocked(const rocksdb::DBOptions& db_options,
                             const std::vector<rocksdb::ColumnFamilyDescriptor>& families,
                             const RocksDbChunkStoreOptions& options, absl::string_view what) {
  const std::string path = absl::StrCat(options.data_dir, "/LOCK");
  rocksdb::FileLock* lock = nullptr;
  const rocksdb::Status locked = db_options.env->LockFile(path, &lock);
  if (!locked.ok()) return FromRocksDb(locked, what);
  absl::StatusOr<LogVerdict> verdict = CheckLogs(db_options.env, options.data_dir);
  if (verdict.ok() && verdict->state == LogState::kDamagedBeforeEnd) {
    verdict = CheckLogs(db_options.env, options.data_dir,
                        FirstLogNeeded(db_options, families, options.data_dir));
  }
  const rocksdb::Status unlocked = db_options.env->UnlockFile(lock);
  if (!verdict.ok()) return verdict.status();
  if (!unlocked.ok()) return FromRocksDb(unlocked, what);
  if (verdict->state != LogState::kDamagedBeforeEnd) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      what, ": its log ", verdict->file, " is damaged at byte ", verdict->offset,
      " and records follow, so acknowledged writes would be lost: restore the store from a copy, "
      "or set drop_damaged_log once to go on without what was written after the damage"));
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
    if (absl::Status status = CheckLogsLocked(db_options, families, options, what); !status.ok()) {
      return status;
    }
  }
  OpenedDb opened;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(db_options, options.data_dir, families, &opened.families, &db);
  opened.db.reset(db);
  if (!status.ok()) return FromRocksDb(status, what);
  return opened;
}

}  // namespace kvstream

// Everything between a path and an open RocksDB: the directory, the families, the damage that a
// crash may have left.
#ifndef KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_OPEN_H_
#define KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_OPEN_H_

#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/rocksdb/rocksdb_options.h"

namespace kvstream {

// Creates options.data_dir if its parent exists. FAILED_PRECONDITION, saying what to do, if it
// cannot be a store's directory.
absl::Status PrepareStoreDirectory(const RocksDbChunkStoreOptions& options);

struct OpenedDb {
  std::unique_ptr<rocksdb::DB> db;
  // In the order of the descriptors. The holder destroys them with DestroyColumnFamilyHandle before
  // it closes the DB.
  std::vector<rocksdb::ColumnFamilyHandle*> families;
};

// Opens or creates the DB with exactly these families. A torn end of the log is cut off (only
// writes that were never acknowledged are there); DATA_LOSS if the log is damaged before its end,
// unless options.drop_damaged_log. FAILED_PRECONDITION if it is locked or has families that this
// program does not know.
absl::StatusOr<OpenedDb> OpenDb(const rocksdb::DBOptions& db_options,
                                const std::vector<rocksdb::ColumnFamilyDescriptor>& families,
                                const RocksDbChunkStoreOptions& options);

// FAILED_PRECONDITION that tells the operator what to do with a store of the future; `how` says
// what shows it.
absl::Status NewerStoreError(absl::string_view data_dir, absl::string_view how);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_ROCKSDB_OPEN_H_

// Adds up counters inside RocksDB, so that a chunk's batch can change the store's totals atomically
// without reading them first.
#ifndef KVSTREAM_STORAGE_ROCKSDB_COUNTER_MERGE_H_
#define KVSTREAM_STORAGE_ROCKSDB_COUNTER_MERGE_H_

#include <rocksdb/merge_operator.h>

#include <memory>

namespace kvstream {

// For rocksdb_format::Counters; additions wrap, so a negative delta subtracts. Fails, which RocksDB
// reports as corruption, if a value or operand has another size.
std::shared_ptr<rocksdb::MergeOperator> NewCounterMergeOperator();

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_COUNTER_MERGE_H_

// Cuts tables between any two entries while they are compacted, however small they are.
#ifndef KVSTREAM_STORAGE_ROCKSDB_TABLE_CUTTER_H_
#define KVSTREAM_STORAGE_ROCKSDB_TABLE_CUTTER_H_

#include <rocksdb/sst_partitioner.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace kvstream {

// A limit of bytes does not cut a table of few entries: RocksDB counts the bytes of whole blocks
// that it has written, so the last two entries always share a table. A factory that cuts nothing
// but in manual compactions while a Scope lives. One Scope at a time.
class TableCutter final : public rocksdb::SstPartitionerFactory {
 public:
  class Scope {
   public:
    // At most so many entries a table; 0: not cut.
    Scope(TableCutter* cutter, uint64_t entries_per_table) : cutter_(cutter) {
      cutter_->entries_per_table_ = entries_per_table;
    }
    ~Scope() { cutter_->entries_per_table_ = 0; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    TableCutter* const cutter_;
  };

  const char* Name() const override { return "kvstream.TableCutter"; }
  // Null, which cuts nothing, unless `context` is the compaction of a Scope.
  std::unique_ptr<rocksdb::SstPartitioner> CreatePartitioner(
      const rocksdb::SstPartitioner::Context& context) const override;

 private:
  std::atomic<uint64_t> entries_per_table_{0};
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_TABLE_CUTTER_H_

#include "storage/rocksdb/table_cutter.h"

namespace kvstream {
namespace {

class Partitioner final : public rocksdb::SstPartitioner {
 public:
  explicit Partitioner(uint64_t entries_per_table) : entries_per_table_(entries_per_table) {}

  const char* Name() const override { return "kvstream.TableCutter"; }
  rocksdb::PartitionerResult ShouldPartition(const rocksdb::PartitionerRequest& request) override {
    // Called before every entry but the first; versions of one key stay together.
    ++entries_;
    if (entries_ < entries_per_table_ || *request.prev_user_key == *request.current_user_key) {
      return rocksdb::kNotRequired;
    }
    entries_ = 0;
    return rocksdb::kRequired;
  }
  bool CanDoTrivialMove(const rocksdb::Slice& smallest_user_key,
                        const rocksdb::Slice& largest_user_key) override {
    return false;  // a move cuts nothing
  }

 private:
  const uint64_t entries_per_table_;
  uint64_t entries_ = 0;  // in the table that is being written
};

}  // namespace

std::unique_ptr<rocksdb::SstPartitioner> TableCutter::CreatePartitioner(
    const rocksdb::SstPartitioner::Context& context) const {
  const uint64_t entries = entries_per_table_;
  if (entries == 0 || !context.is_manual_compaction) return nullptr;
  return std::make_unique<Partitioner>(entries);
}

}  // namespace kvstream

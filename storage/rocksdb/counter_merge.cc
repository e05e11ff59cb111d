#include "storage/rocksdb/counter_merge.h"

#include <rocksdb/slice.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream {
namespace {

class CounterMergeOperator final : public rocksdb::AssociativeMergeOperator {
 public:
  bool Merge(const rocksdb::Slice& key, const rocksdb::Slice* existing_value,
             const rocksdb::Slice& value, std::string* new_value,
             rocksdb::Logger* logger) const override {
    auto sum = rocksdb_format::DecodeCounters({value.data(), value.size()});
    if (!sum.ok()) return false;
    if (existing_value != nullptr) {
      const auto existing =
          rocksdb_format::DecodeCounters({existing_value->data(), existing_value->size()});
      if (!existing.ok()) return false;
      sum->chunks += existing->chunks;
      sum->payload_bytes += existing->payload_bytes;
    }
    *new_value = rocksdb_format::EncodeCounters(*sum);
    return true;
  }

  // Part of the stored format: RocksDB refuses a family opened with an operator of another name.
  const char* Name() const override { return "kvstream.CounterMerge.1"; }
};

}  // namespace

std::shared_ptr<rocksdb::MergeOperator> NewCounterMergeOperator() {
  return std::make_shared<CounterMergeOperator>();
}

}  // namespace kvstream

#include "storage/rocksdb/capacity_plan.h"

#include <algorithm>

#include "storage/rocksdb/rocksdb_tuning.h"

namespace kvstream {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr int kLevel0Compact = 4;
// Limit() holds Puts back before. A level 0 that is longer costs more to compact than it gains.
constexpr int kLevel0Stop = 14;

}  // namespace

CapacityPlan CapacityPlan::Of(const RocksDbChunkStoreOptions& options) {
  const uint64_t capacity = options.capacity_bytes;
  const uint64_t buffer = std::min(options.write_buffer_bytes, std::max(kMiB, capacity / 128));
  CapacityPlan plan;
  plan.write_buffer_bytes = std::min(buffer, std::max(kMiB / 2, capacity / 256));
  plan.flush_log_bytes = std::min(options.max_log_bytes, std::max(2 * buffer, capacity / 32));
  plan.target_file_bytes = std::min(std::max(buffer, 8 * kMiB), std::max(kMiB, capacity / 256));
  // As large as what level 0 gives to it at a time; smaller, and it is all rewritten for nothing.
  plan.level_base_bytes = kLevel0Compact * plan.write_buffer_bytes;
  plan.put_max = 2 * buffer;
  plan.logs_max = plan.flush_log_bytes + 2 * buffer;
  plan.other_max = std::min(std::max(4 * kMiB, capacity / 64), 64 * kMiB);
  plan.tables_max = capacity - plan.logs_max - plan.other_max;
  plan.buffers_max = plan.put_max + 2 * plan.write_buffer_bytes;
  plan.pick_max = 12 * plan.write_buffer_bytes;
  plan.tables_high = plan.tables_max - 26 * plan.write_buffer_bytes - plan.buffers_max;
  plan.payload_high = (plan.tables_max - 26 * buffer) / 20 * 17;
  plan.payload_low = plan.payload_high - plan.payload_high / 100;
  return plan;
}

uint64_t CapacityPlan::TablesAhead(const CapacityUse& use, uint64_t bytes) const {
  const uint64_t coming = use.buffered + use.pending + bytes;
  // Tables that end between two looks may make this wrap; then it is nearly zero.
  const uint64_t before = use.tables - std::min(use.tables, use.running_output);
  const uint64_t next = std::max(pick_max, use.upper + coming) + buffers_max;
  return before + coming + std::max(use.running_input, next);
}

CapacityLimit CapacityPlan::Limit(const CapacityUse& use, uint64_t bytes) const {
  const uint64_t more = use.pending + bytes;
  if (use.buffered + more > buffers_max) return CapacityLimit::kBuffers;
  if (TablesAhead(use, bytes) > tables_max) return CapacityLimit::kTables;
  if (use.logs + more > logs_max) return CapacityLimit::kLogs;
  return CapacityLimit::kNone;
}

void CapacityPlan::Apply(rocksdb::DBOptions* db,
                         std::vector<rocksdb::ColumnFamilyDescriptor>* families) const {
  // Preallocated blocks would count on the disk before there is anything in them.
  db->allow_fallocate = false;
  db->max_total_wal_size = flush_log_bytes;
  db->max_manifest_file_size = other_max / 8;
  db->keep_log_file_num = 2;
  db->max_log_file_size = other_max / 8;
  rocksdb::ColumnFamilyOptions& segments = (*families)[kSegments].options;
  segments.write_buffer_size = write_buffer_bytes;
  segments.target_file_size_base = target_file_bytes;
  segments.max_bytes_for_level_base = level_base_bytes;
  segments.max_compaction_bytes = level_base_bytes;
  segments.level0_file_num_compaction_trigger = kLevel0Compact;
  segments.level0_slowdown_writes_trigger = kLevel0Stop;
  segments.level0_stop_writes_trigger = kLevel0Stop;
}

}  // namespace kvstream

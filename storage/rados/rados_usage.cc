#include "storage/rados/rados_usage.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "storage/rados/rados_format.h"
#include "storage/rocksdb/chunk_record_format.h"

namespace kvstream {
namespace {

// Chunks of one shard that are written at a time: bounds what an operation compares.
constexpr size_t kIdsAtATime = 512;
constexpr uint32_t kUsesMax = 64;

std::string UsageKey(const ChunkId& id) {
  return rados_format::IdKey(rados_format::kUsagePrefix, id);
}

}  // namespace

void RadosUsage::Touch(absl::Span<const ChunkId> ids) {
  absl::MutexLock lock(&mutex_);
  for (const ChunkId& id : ids) {
    if (const auto known = uses_.find(id); known != uses_.end()) {
      known->second = std::min(known->second + 1, kUsesMax);
    } else if (uses_.size() < kChunksMax) {
      uses_.emplace(id, 1);
    }
  }
}

absl::Status RadosUsage::Flush(absl::string_view what) {
  absl::flat_hash_map<ChunkId, uint32_t> uses;
  {
    absl::MutexLock lock(&mutex_);
    uses.swap(uses_);
  }
  if (absl::Status status = ReadClock(what); !status.ok()) return status;
  const double now = clock();
  std::map<std::string, std::vector<std::pair<ChunkId, uint32_t>>> by_object;
  for (const auto& [id, count] : uses) by_object[index_->ObjectOf(id)].emplace_back(id, count);
  for (const auto& [object, in_shard] : by_object) {
    for (size_t begin = 0; begin < in_shard.size(); begin += kIdsAtATime) {
      const auto part = absl::MakeConstSpan(in_shard).subspan(begin, kIdsAtATime);
      std::vector<OmapRead> reads(1);
      reads[0].object = object;
      for (const auto& [id, count] : part) {
        reads[0].keys.push_back(rados_format::DataKey(id));
        reads[0].keys.push_back(UsageKey(id));
      }
      if (absl::Status status = pool_->Read(what, &reads); !status.ok()) return status;
      std::vector<OmapWrite> writes(1);
      writes[0].object = object;
      for (size_t i = 0; i < part.size(); ++i) {
        const std::string& record = reads[0].values[2 * i];
        if (record.empty()) continue;
        const auto before = rocksdb_format::DecodeUsage(reads[0].values[2 * i + 1]);
        EvictionIndex::Usage usage;
        usage.clock = now;
        usage.uses = std::min(part[i].second + (before.ok() ? before->uses : 0), kUsesMax);
        // Of a chunk that goes meanwhile nothing must be left.
        writes[0].expected.emplace_back(reads[0].keys[2 * i], record);
        writes[0].set.emplace_back(reads[0].keys[2 * i + 1], rocksdb_format::EncodeUsage(usage));
      }
      if (writes[0].set.empty()) continue;
      // One that was changed meanwhile costs the notes of this part.
      if (absl::Status status = pool_->Write(what, &writes); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<absl::optional<EvictionIndex::Usage>>> RadosUsage::Read(
    absl::string_view what, absl::Span<const ChunkId> ids) const {
  std::vector<absl::optional<EvictionIndex::Usage>> usages(ids.size());
  std::map<std::string, std::vector<size_t>> by_object;
  for (size_t i = 0; i < ids.size(); ++i) by_object[index_->ObjectOf(ids[i])].push_back(i);
  std::vector<OmapRead> reads;
  for (const auto& [object, positions] : by_object) {
    reads.push_back({object, {}, {}});
    for (size_t i : positions) reads.back().keys.push_back(UsageKey(ids[i]));
  }
  if (absl::Status status = pool_->Read(what, &reads); !status.ok()) return status;
  auto read = reads.begin();
  for (const auto& [object, positions] : by_object) {
    for (size_t k = 0; k < positions.size(); ++k) {
      const auto usage = rocksdb_format::DecodeUsage(read->values[k]);
      if (usage.ok()) usages[positions[k]] = *usage;
    }
    ++read;
  }
  return usages;
}

double RadosUsage::clock() const {
  absl::MutexLock lock(&mutex_);
  return clock_;
}

void RadosUsage::Raise(double clock) {
  absl::MutexLock lock(&mutex_);
  clock_ = std::max(clock_, clock);
}

absl::Status RadosUsage::ReadClock(absl::string_view what) {
  std::vector<OmapRead> reads = {{rados_format::kCapacityObject, {rados_format::kClockKey}, {}}};
  if (absl::Status status = pool_->Read(what, &reads); !status.ok()) return status;
  // One that cannot be read is one that nobody has set.
  if (const auto clock = rocksdb_format::DecodeClock(reads[0].values[0]); clock.ok()) {
    Raise(*clock);
  }
  return absl::OkStatus();
}

absl::Status RadosUsage::SetClock(absl::string_view what, double clock) {
  Raise(clock);
  std::vector<OmapWrite> writes(1);
  writes[0].object = rados_format::kCapacityObject;
  writes[0].set = {{rados_format::kClockKey, rocksdb_format::EncodeClock(clock)}};
  return pool_->Write(what, &writes);
}

}  // namespace kvstream

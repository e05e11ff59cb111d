#include "storage/rados/rados_evictor.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "storage/chunk_limits.h"
#include "storage/rados/rados_format.h"

namespace kvstream {
namespace {

using rados_format::DataRecord;
using rados_format::GarbageState;

// Shards that are asked at once.
constexpr size_t kShardsAtOnce = 16;
// Of a chunk that has more children, or more that follow it, the rest stays without it.
constexpr size_t kChildrenMax = 256;
constexpr size_t kFollowersMax = 8192;
// Holds wait for a removal, so it is done in small steps.
constexpr size_t kRemovedAtOnce = 128;

}  // namespace

absl::StatusOr<RadosEvictor::Sample> RadosEvictor::TakeSample(absl::string_view what) {
  const std::vector<std::string>& objects = index_->objects();
  after_.resize(objects.size(), rados_format::kDataPrefix);
  Sample sample;
  sample.whole_store = true;
  size_t seen = 0;
  while (seen < objects.size() && sample.chunks.size() < kSample) {
    std::vector<OmapList> lists;
    std::vector<size_t> shards;
    for (size_t i = 0; i < kShardsAtOnce && seen < objects.size(); ++i, ++seen) {
      const size_t shard = next_shard_;
      next_shard_ = (next_shard_ + 1) % objects.size();
      OmapList list;
      list.object = objects[shard];
      list.prefix = rados_format::kDataPrefix;
      list.after = after_[shard];
      list.limit = kPage;
      sample.whole_store = sample.whole_store && list.after == rados_format::kDataPrefix;
      lists.push_back(std::move(list));
      shards.push_back(shard);
    }
    if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
    for (size_t i = 0; i < lists.size(); ++i) {
      const OmapList& list = lists[i];
      for (const auto& [key, value] : list.entries) {
        const absl::StatusOr<ChunkId> id = rados_format::DecodeDataKey(key);
        absl::StatusOr<DataRecord> record = rados_format::DecodeData(value);
        // What is damaged is found by those who ask for it.
        if (id.ok() && record.ok()) sample.chunks.push_back({*id, *std::move(record)});
      }
      const bool more = list.more && !list.entries.empty();
      after_[shards[i]] = more ? list.entries.back().first : rados_format::kDataPrefix;
      sample.whole_store = sample.whole_store && !more;
    }
  }
  sample.whole_store = sample.whole_store && seen == objects.size();
  return sample;
}

absl::StatusOr<std::vector<ChunkId>> RadosEvictor::WithWhatFollows(
    absl::string_view what, const std::vector<ChunkId>& roots, uint64_t bytes) {
  struct Node {
    uint64_t first_token = 0;
    uint64_t bytes = 0;
    bool stays = false;
    std::vector<ChunkId> children;
  };
  std::vector<ChunkId> order;
  absl::flat_hash_map<ChunkId, Node> nodes;
  const absl::Time now = clock_();
  std::vector<ChunkId> layer = roots;
  while (!layer.empty()) {
    const auto records = index_->Find(what, layer, absl::Seconds(1));
    if (!records.ok()) return records.status();
    std::vector<ChunkId> found;
    for (size_t i = 0; i < layer.size(); ++i) {
      const absl::optional<DataRecord>& record = (*records)[i];
      if (!record.has_value() || !nodes.emplace(layer[i], Node()).second) continue;
      Node& node = nodes[layer[i]];
      node.first_token = record->info.first_token;
      node.bytes = PayloadBytes(record->info);
      node.stays = rados_format::Pinned(*record, now) || Held(layer[i]);
      found.push_back(layer[i]);
    }
    order.insert(order.end(), found.begin(), found.end());
    layer.clear();
    if (order.size() >= kFollowersMax) break;
    const auto children = index_->Children(what, found, kChildrenMax);
    if (!children.ok()) return children.status();
    for (size_t i = 0; i < found.size(); ++i) {
      nodes[found[i]].children = (*children)[i];
      layer.insert(layer.end(), (*children)[i].begin(), (*children)[i].end());
    }
  }
  // Children before parents, but for those that lie about where they are.
  std::stable_sort(order.begin(), order.end(), [&](const ChunkId& a, const ChunkId& b) {
    return nodes[a].first_token > nodes[b].first_token;
  });
  std::vector<ChunkId> gone;
  uint64_t freed_bytes = 0;
  for (auto id = order.begin(); id != order.end() && freed_bytes < bytes; ++id) {
    Node& node = nodes[*id];
    for (const ChunkId& child : node.children) {
      const auto below = nodes.find(child);
      node.stays = node.stays || (below != nodes.end() && below->second.stays);
    }
    if (node.stays) continue;
    gone.push_back(*id);
    freed_bytes += node.bytes;
  }
  return gone;
}

absl::StatusOr<RadosEvicted> RadosEvictor::Remove(absl::string_view what, const Keep& keep) {
  std::vector<ChunkId> ids;
  for (const auto& [id, levels] : keep) ids.push_back(id);
  const absl::Time now = clock_();
  RadosEvicted evicted;
  for (size_t begin = 0; begin < ids.size(); begin += kRemovedAtOnce) {
    const std::vector<ChunkId> removable =
        holds_->BeginRemoval(absl::MakeConstSpan(ids).subspan(begin, kRemovedAtOnce));
    // What each lost: the last word of a change that is tried several times.
    std::map<ChunkId, RadosEvicted> lost;
    const auto changed = index_->Change(
        what, removable,
        [&](const ChunkId& id, const DataRecord& record) -> absl::optional<RadosIndexChange> {
          lost.erase(id);
          const uint32_t levels = keep.at(id);
          if (rados_format::Pinned(record, now) || record.hashes.size() <= levels) {
            return absl::nullopt;
          }
          const uint64_t before = PayloadBytes(record.info);
          RadosIndexChange change;
          change.retired = rados_format::GarbageRecord{GarbageState::kRetired, 0, before};
          if (levels > 0) {
            change.record = record;
            TrimInfo(&change.record->info, levels);
            change.record->hashes.resize(levels);
            change.retired->keep_bytes = PayloadBytes(change.record->info);
          }
          lost[id] = {record.hashes.size() - levels, before - change.retired->keep_bytes,
                      levels == 0 ? uint64_t{1} : 0};
          return change;
        },
        keeper_);
    holds_->EndRemoval(removable);
    if (!changed.ok()) return changed.status();
    for (const auto& [id, what_it_lost] : lost) {
      evicted.segments += what_it_lost.segments;
      evicted.bytes += what_it_lost.bytes;
      evicted.chunks += what_it_lost.chunks;
    }
  }
  return evicted;
}

absl::StatusOr<RadosEvicted> RadosEvictor::Evict(absl::string_view what, uint64_t bytes) {
  if (absl::Status status = usage_->ReadClock(what); !status.ok()) return status;
  const absl::StatusOr<Sample> sample = TakeSample(what);
  if (!sample.ok()) return sample.status();
  std::vector<ChunkId> ids;
  for (const Candidate& chunk : sample->chunks) ids.push_back(chunk.id);
  const auto usages = usage_->Read(what, ids);
  if (!usages.ok()) return usages.status();

  EvictionIndex index;
  index.set_clock(usage_->clock());
  const absl::Time now = clock_();
  absl::flat_hash_map<ChunkId, uint32_t> levels;
  for (size_t i = 0; i < ids.size(); ++i) {
    const DataRecord& record = sample->chunks[i].record;
    // Of one that nobody has noted a use of, nothing is known: it is as old as can be.
    index.Put(ids[i], record.info, (*usages)[i].value_or(EvictionIndex::Usage()));
    if (rados_format::Pinned(record, now)) index.SetPinned(ids[i], true);
    levels[ids[i]] = static_cast<uint32_t>(record.hashes.size());
  }
  if (!sample->whole_store) bytes = std::min(bytes, index.payload_bytes() / 8);
  const auto held = [this](const ChunkId& id) { return Held(id); };
  Keep keep;
  std::vector<ChunkId> roots;
  uint64_t whole_bytes = 0;
  for (const EvictionIndex::Victim& victim : index.Take(bytes, ids.size(), held)) {
    keep[victim.id] = victim.keep_levels;
    if (victim.keep_levels > 0) continue;
    roots.push_back(victim.id);
    whole_bytes += victim.bytes;
    // Unless it turns out that it can go.
    if (levels[victim.id] > 1) {
      keep[victim.id] = 1;
    } else {
      keep.erase(victim.id);
    }
  }
  const absl::StatusOr<std::vector<ChunkId>> gone = WithWhatFollows(what, roots, whole_bytes);
  if (!gone.ok()) return gone.status();
  for (const ChunkId& id : *gone) keep[id] = 0;
  const absl::StatusOr<RadosEvicted> evicted = Remove(what, keep);
  if (!evicted.ok()) return evicted.status();
  if (evicted->bytes > 0) {
    if (absl::Status status = usage_->SetClock(what, index.clock()); !status.ok()) return status;
  }
  return evicted;
}

}  // namespace kvstream

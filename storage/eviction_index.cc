#include "storage/eviction_index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace kvstream {
namespace {

constexpr double kAttentionTokens = 8192;
constexpr uint16_t kUsesMax = 64;
constexpr double kNotQueued = std::numeric_limits<double>::infinity();

}  // namespace

size_t EvictionIndex::Hash::operator()(const ChunkId& id) const {
  // Ids are hashes already.
  size_t bits = 0;
  std::memcpy(&bits, id.data(), sizeof(bits));
  return bits;
}

EvictionIndex::Slot EvictionIndex::Find(const ChunkId& id) const {
  const auto found = slots_.find(id);
  return found == slots_.end() ? kNone : *found;
}

EvictionIndex::Slot EvictionIndex::FindOrAdd(const ChunkId& id) {
  Slot slot = Find(id);
  if (slot != kNone) return slot;
  if (free_slots_.empty()) {
    slot = static_cast<Slot>(entries_.size());
    entries_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
    const double queued_value =
        entries_[slot].queued_value;  // its last owner's element may be left
    entries_[slot] = Entry();
    entries_[slot].queued_value = queued_value;
  }
  entries_[slot].id = id;
  slots_.insert(slot);
  return slot;
}

double EvictionIndex::ValueOf(const Entry& entry) const {
  const int level = static_cast<int>(entry.segment_bytes.size()) - 1;
  // A segment without bytes frees nothing: as if it had one, which makes it most valuable.
  const double bytes = std::max<uint32_t>(entry.segment_bytes.back(), 1);
  return entry.used_at + std::ldexp(entry.uses * double{entry.saved} / bytes, -level);
}

void EvictionIndex::Enqueue(Slot slot) {
  if (!Removable(entries_[slot])) return;
  if (heap_.size() >= 2 * entries_.size() + 64) {
    heap_ = {};
    for (Slot i = 0; i < entries_.size(); ++i) {
      entries_[i].queued_value = kNotQueued;
      if (!Removable(entries_[i])) continue;
      entries_[i].queued_value = ValueOf(entries_[i]);
      heap_.emplace(entries_[i].queued_value, i);
    }
    return;
  }
  const double value = ValueOf(entries_[slot]);
  if (entries_[slot].queued_value <= value) return;
  entries_[slot].queued_value = value;
  heap_.emplace(value, slot);
}

void EvictionIndex::Link(Slot slot, const ChunkId& parent_id) {
  const bool is_new = Find(parent_id) == kNone;
  const Slot parent = FindOrAdd(parent_id);
  const uint64_t first_token = entries_[slot].first_token;
  Entry& above = entries_[parent];
  if (above.segment_bytes.empty()) {
    above.first_token = is_new ? first_token : std::min(above.first_token, first_token);
  } else if (above.first_token >= first_token) {
    return;
  }
  entries_[slot].parent = parent;
  ++above.children;
}

void EvictionIndex::Put(const ChunkId& id, const ChunkInfo& info,
                        const absl::optional<Usage>& usage) {
  const Slot slot = FindOrAdd(id);
  if (entries_[slot].segment_bytes.empty()) {
    ++chunks_;
    Entry& entry = entries_[slot];
    // Comes after a chunk that it is said to come before.
    const bool lies = entry.children > 0 && info.first_token >= entry.first_token;
    const double middle = static_cast<double>(info.first_token) + info.tokens / 2.0;
    entry.first_token = info.first_token;
    entry.saved = static_cast<float>(std::max(1.0, info.tokens * (1 + middle / kAttentionTokens)));
    entry.uses = 1;
    if (usage.has_value()) {
      entry.uses = static_cast<uint16_t>(std::min<uint32_t>(std::max(usage->uses, 1u), kUsesMax));
    }
    entry.used_at = usage.has_value() ? std::min(usage->clock, clock_) : clock_;
    entry.segment_bytes.assign(1, 0);  // stored, for Link
    if (info.parent.has_value() && *info.parent != id && !lies) Link(slot, *info.parent);
  }
  Entry& entry = entries_[slot];
  for (const uint32_t bytes : entry.segment_bytes) payload_bytes_ -= bytes;
  entry.segment_bytes.assign(info.segment_bytes.begin(), info.segment_bytes.end());
  for (const uint32_t bytes : entry.segment_bytes) payload_bytes_ += bytes;
  Enqueue(slot);
}

void EvictionIndex::Unlink(Slot slot) {
  --chunks_;
  ++entries_[slot].first_token;  // its children's are greater
  const Slot parent = std::exchange(entries_[slot].parent, kNone);
  if (parent != kNone) {
    --entries_[parent].children;
    Enqueue(parent);
    FreeIfUnused(parent);
  }
  FreeIfUnused(slot);
}

void EvictionIndex::FreeIfUnused(Slot slot) {
  Entry& entry = entries_[slot];
  if (!entry.segment_bytes.empty() || entry.children > 0) return;
  slots_.erase(slots_.find(entry.id));
  free_slots_.push_back(slot);
}

void EvictionIndex::Remove(const ChunkId& id) {
  const Slot slot = Find(id);
  if (slot == kNone || entries_[slot].segment_bytes.empty()) return;
  for (const uint32_t bytes : entries_[slot].segment_bytes) payload_bytes_ -= bytes;
  entries_[slot].segment_bytes.clear();
  entries_[slot].pinned = false;
  Unlink(slot);
}

void EvictionIndex::SetPinned(const ChunkId& id, bool pinned) {
  const Slot slot = Find(id);
  if (slot == kNone || entries_[slot].segment_bytes.empty()) return;
  entries_[slot].pinned = pinned;
  Enqueue(slot);
}

void EvictionIndex::Touch(const ChunkId& id) {
  const Slot slot = Find(id);
  if (slot == kNone || entries_[slot].segment_bytes.empty()) return;
  Entry& entry = entries_[slot];
  entry.used_at = clock_;
  if (entry.uses < kUsesMax) ++entry.uses;
}

void EvictionIndex::DropSegment(Slot slot) {
  Entry& entry = entries_[slot];
  payload_bytes_ -= entry.segment_bytes.back();
  entry.segment_bytes.pop_back();
  if (entry.segment_bytes.empty()) {
    Unlink(slot);
  } else {
    Enqueue(slot);
  }
}

std::vector<EvictionIndex::Victim> EvictionIndex::Take(
    uint64_t bytes, size_t victims_max, const std::function<bool(const ChunkId&)>& held) {
  std::vector<Victim> victims;
  absl::flat_hash_set<Slot> passed;          // held
  absl::flat_hash_map<Slot, size_t> places;  // of chunks among the victims
  uint64_t freed = 0;
  while (freed < bytes && !heap_.empty()) {
    const auto [queued_value, slot] = heap_.top();
    Entry& entry = entries_[slot];
    if (!Removable(entry)) {
      heap_.pop();
      entry.queued_value = kNotQueued;
      continue;
    }
    if (const double value = ValueOf(entry); value > queued_value) {
      // Used since, or another chunk's element.
      heap_.pop();
      heap_.emplace(value, slot);
      entry.queued_value = value;
      continue;
    }
    const auto place = places.find(slot);
    const bool known = place != places.end();
    if (!known && victims.size() >= victims_max) break;
    if (passed.count(slot) > 0 || (!known && held(entry.id))) {
      heap_.pop();
      entry.queued_value = kNotQueued;
      passed.insert(slot);
      continue;
    }
    heap_.pop();
    entry.queued_value = kNotQueued;
    clock_ = std::max(clock_, queued_value);
    const uint32_t unit_bytes = entry.segment_bytes.back();
    const uint32_t levels = static_cast<uint32_t>(entry.segment_bytes.size());
    if (known) {
      victims[place->second].keep_levels = levels - 1;
      victims[place->second].bytes += unit_bytes;
    } else {
      places.emplace(slot, victims.size());
      victims.push_back({entry.id, levels - 1, unit_bytes});
    }
    freed += unit_bytes;
    DropSegment(slot);
  }
  for (const Slot slot : passed) Enqueue(slot);
  return victims;
}

absl::optional<EvictionIndex::Usage> EvictionIndex::usage(const ChunkId& id) const {
  const Slot slot = Find(id);
  if (slot == kNone || entries_[slot].segment_bytes.empty()) return absl::nullopt;
  return Usage{entries_[slot].used_at, entries_[slot].uses};
}

absl::optional<double> EvictionIndex::value(const ChunkId& id) const {
  const Slot slot = Find(id);
  if (slot == kNone || entries_[slot].segment_bytes.empty()) return absl::nullopt;
  return ValueOf(entries_[slot]);
}

}  // namespace kvstream

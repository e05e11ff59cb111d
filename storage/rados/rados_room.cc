#include "storage/rados/rados_room.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/rados/rados_index.h"

namespace kvstream {
namespace {

using rados_format::ShardState;

uint64_t Missing(uint64_t have, uint64_t want) { return want - std::min(have, want); }

}  // namespace

RadosRoom::RadosRoom(const RadosPool* pool, std::vector<std::string> objects,
                     uint64_t capacity_bytes, uint64_t keeper, std::function<void()> before_write)
    : pool_(pool),
      objects_(std::move(objects)),
      capacity_bytes_(capacity_bytes),
      keeper_(keeper),
      before_write_(std::move(before_write)),
      shards_(objects_.size()) {}

absl::Status RadosRoom::Read(absl::string_view what, std::vector<size_t> which) {
  std::vector<OmapRead> reads;
  reads.reserve(which.size());
  for (size_t i : which) reads.push_back({objects_[i], {rados_format::kStateKey}, {}});
  if (absl::Status status = pool_->Read(what, &reads, /*after_writes=*/true); !status.ok()) {
    return status;
  }
  for (size_t r = 0; r < which.size(); ++r) {
    const absl::StatusOr<ShardState> state = rados_format::DecodeState(reads[r].values[0]);
    if (!state.ok()) return state.status();
    Shard& shard = shards_[which[r]];
    shard.bytes = std::move(reads[r].values[0]);
    shard.state = *state;
  }
  return absl::OkStatus();
}

absl::Status RadosRoom::Write(absl::string_view what, std::vector<size_t> which,
                              const std::function<bool(size_t, ShardState*)>& change,
                              bool takes_over) {
  if (before_write_ != nullptr) before_write_();
  for (int attempt = 0; !which.empty(); ++attempt) {
    if (attempt > 0) {
      if (!RadosIndex::BackOff(attempt)) {
        return absl::UnavailableError(absl::StrCat(what, ": uploads were always faster"));
      }
      if (absl::Status status = Read(what, which); !status.ok()) return status;
    }
    std::vector<OmapWrite> writes;
    std::vector<Shard> wanted;
    std::vector<size_t> of;
    for (size_t i : which) {
      Shard after = shards_[i];
      if (!takes_over && after.state.keeper != keeper_) {
        return absl::AbortedError(absl::StrCat(what, ": another daemon keeps the room now"));
      }
      if (!change(i, &after.state)) continue;
      after.bytes = rados_format::EncodeState(after.state);
      OmapWrite write;
      write.object = objects_[i];
      write.expected = {{rados_format::kStateKey, shards_[i].bytes}};
      write.set = {{rados_format::kStateKey, after.bytes}};
      writes.push_back(std::move(write));
      wanted.push_back(std::move(after));
      of.push_back(i);
    }
    if (absl::Status status = pool_->Write(what, &writes); !status.ok()) return status;
    which.clear();
    for (size_t w = 0; w < writes.size(); ++w) {
      if (writes[w].conflict) {
        which.push_back(of[w]);
      } else {
        shards_[of[w]] = std::move(wanted[w]);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status RadosRoom::TakeOver(absl::string_view what) {
  std::vector<size_t> others;
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (shards_[i].state.keeper != keeper_) others.push_back(i);
  }
  return Write(
      what, others,
      [this](size_t, ShardState* state) {
        // What was there before anybody kept count is granted.
        if (state->keeper == 0) state->allotted_bytes = state->data_bytes;
        state->keeper = keeper_;
        return true;
      },
      /*takes_over=*/true);
}

uint64_t RadosRoom::Allotted() const {
  return std::accumulate(
      shards_.begin(), shards_.end(), uint64_t{0},
      [](uint64_t sum, const Shard& shard) { return sum + shard.state.allotted_bytes; });
}

std::vector<uint64_t> RadosRoom::Targets(uint64_t* unmet_bytes) const {
  std::vector<uint64_t> targets;
  uint64_t free_bytes = capacity_bytes_;
  std::vector<std::pair<uint64_t, size_t>> wants;
  for (size_t i = 0; i < shards_.size(); ++i) {
    const ShardState& state = shards_[i].state;
    targets.push_back(state.data_bytes);
    free_bytes -= std::min(free_bytes, state.data_bytes);
    if (state.wanted_bytes > 0) wants.emplace_back(state.wanted_bytes, i);
  }
  // The smallest first: as many as possible.
  std::sort(wants.begin(), wants.end());
  *unmet_bytes = 0;
  for (const auto& [bytes, shard] : wants) {
    if (bytes <= free_bytes) {
      free_bytes -= bytes;
      targets[shard] += bytes;
    } else if (bytes <= capacity_bytes_) {
      *unmet_bytes += bytes;
    }
  }
  // What is too little for a want is kept together for it.
  if (*unmet_bytes > 0) return targets;
  for (uint64_t& target : targets) target += free_bytes / targets.size();
  return targets;
}

absl::StatusOr<RadosRoomReport> RadosRoom::Balance(absl::string_view what, absl::Time now) {
  std::vector<size_t> all(shards_.size());
  std::iota(all.begin(), all.end(), 0);
  absl::Status status = Read(what, all);
  if (status.ok()) status = TakeOver(what);
  if (!status.ok()) return status;

  RadosRoomReport report;
  uint64_t share_bytes = capacity_bytes_;
  for (const Shard& shard : shards_) {
    report.payload_bytes += shard.state.payload_bytes;
    report.data_bytes += shard.state.data_bytes;
    share_bytes -= std::min(share_bytes, shard.state.data_bytes);
  }
  share_bytes /= shards_.size();
  const std::vector<uint64_t> targets = Targets(&report.unmet_bytes);

  // Who is to get some, those that wait for it first.
  std::vector<size_t> low;
  uint64_t needed_bytes = 0;
  for (size_t i : all) {
    const ShardState& state = shards_[i].state;
    const uint64_t room = Missing(state.data_bytes, state.allotted_bytes);
    if (state.wanted_bytes == 0) shards_[i].met_since = absl::InfiniteFuture();
    if (targets[i] <= state.allotted_bytes && state.wanted_bytes == 0) continue;
    if (state.wanted_bytes == 0 && room >= share_bytes / 2) continue;
    low.push_back(i);
    needed_bytes += Missing(state.allotted_bytes, targets[i]);
  }
  std::stable_partition(low.begin(), low.end(),
                        [this](size_t i) { return shards_[i].state.wanted_bytes > 0; });

  // Who has too much: as many as it takes, those with most first.
  const uint64_t allotted_bytes = Allotted();
  uint64_t to_take_bytes = Missing(capacity_bytes_, allotted_bytes + needed_bytes);
  std::vector<size_t> high;
  if (to_take_bytes > 0) {
    const auto excess = [&](size_t i) {
      return Missing(targets[i], shards_[i].state.allotted_bytes);
    };
    std::sort(all.begin(), all.end(), [&](size_t a, size_t b) { return excess(a) > excess(b); });
    for (size_t i : all) {
      if (to_take_bytes == 0 || excess(i) == 0) break;
      high.push_back(i);
      to_take_bytes -= std::min(to_take_bytes, excess(i));
    }
  }
  status = Write(
      what, high,
      [&](size_t i, ShardState* state) {
        const uint64_t after = std::max(targets[i], state->data_bytes);
        if (after >= state->allotted_bytes) return false;
        state->allotted_bytes = after;
        return true;
      },
      /*takes_over=*/false);
  if (!status.ok()) return status;

  uint64_t free_bytes = Missing(Allotted(), capacity_bytes_);
  // Decided before anything is written: a write that is tried again must not be given twice.
  std::vector<uint64_t> grants(shards_.size(), 0);
  std::vector<size_t> given;
  for (size_t i : low) {
    Shard& shard = shards_[i];
    grants[i] = std::min(Missing(shard.state.allotted_bytes, targets[i]), free_bytes);
    free_bytes -= grants[i];
    const uint64_t room = Missing(shard.state.data_bytes, shard.state.allotted_bytes + grants[i]);
    const bool met = shard.state.wanted_bytes > 0 && room >= shard.state.wanted_bytes;
    shard.met_since = met ? std::min(shard.met_since, now) : absl::InfiniteFuture();
    if (grants[i] > 0 || now - shard.met_since > kWantTime) given.push_back(i);
  }
  status = Write(
      what, given,
      [&](size_t i, ShardState* state) {
        state->allotted_bytes += grants[i];
        // Whoever wanted it has gone away.
        if (now - shards_[i].met_since > kWantTime) state->wanted_bytes = 0;
        return true;
      },
      /*takes_over=*/false);
  if (!status.ok()) return status;
  return report;
}

}  // namespace kvstream

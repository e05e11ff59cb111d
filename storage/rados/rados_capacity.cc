// RadosChunkStore: keeping what all daemons store below the capacity.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/call_deadline.h"
#include "storage/rados/rados_chunk_store.h"
#include "storage/rados/rados_format.h"

namespace kvstream {
namespace {

constexpr absl::string_view kWhat = "keeping the pool below its capacity";
constexpr absl::Duration kKeeperLockTime = absl::Seconds(5);
// More than is needed goes at a time, so that it is not looked for each time.
constexpr uint64_t kEvictedAtOncePart = 64;
// Samples that are looked at in one pass.
constexpr int kSamplesMax = 8;
// How soon a Put that waits for room looks again whether there is some: later each time.
constexpr absl::Duration kFirstRoomPoll = absl::Milliseconds(5);
constexpr absl::Duration kLastRoomPoll = absl::Milliseconds(100);
// How much faster the keeper works while it is behind.
constexpr int kHurry = 10;

}  // namespace

void RadosChunkStore::Touch(absl::Span<const ChunkId> ids) {
  // What is not bounded evicts nothing.
  if (options_.capacity_bytes > 0) usage_->Touch(ids);
}

absl::Status RadosChunkStore::FlushUsage() { return usage_->Flush("noting which chunks are used"); }

absl::Status RadosChunkStore::AwaitRoom(absl::string_view what, uint64_t bytes, absl::Time since) {
  const absl::Duration waited = absl::Now() - since;
  if (waited >= options_.room_timeout || absl::Now() >= CallDeadline::Current()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        what, ": there is no room for ", bytes, " bytes within the capacity of the pool: what is ",
        "stored is pinned or in use, or was removed less than ",
        absl::FormatDuration(options_.pressed_retire_age),
        " ago, or no daemon with a capacity runs to make room"));
  }
  absl::MutexLock lock(&mutex_);
  room_wanted_ = true;
  mutex_.AwaitWithTimeout(absl::Condition(this, &RadosChunkStore::closing),
                          std::min(std::max(waited, kFirstRoomPoll), kLastRoomPoll));
  return absl::OkStatus();
}

absl::StatusOr<bool> RadosChunkStore::KeepRoom() {
  absl::MutexLock lock(&keeper_mutex_);
  if (room_ == nullptr) return false;
  const absl::StatusOr<bool> alone = Lock(kWhat, rados_format::kKeeperLock, kKeeperLockTime);
  if (!alone.ok()) return alone.status();
  if (!*alone) return false;
  absl::StatusOr<RadosRoomReport> report = room_->Balance(kWhat, absl::Now());
  if (!report.ok()) return report.status();

  // What chunks may have; the rest is for what is being written, and for what is on its way out.
  const uint64_t headroom_bytes = options_.capacity_bytes / kHeadroomPart;
  const uint64_t most_bytes = options_.capacity_bytes - headroom_bytes;
  const uint64_t wanted_bytes = std::min(report->unmet_bytes, headroom_bytes);
  // Data that is on its way out already makes room by itself, if one waits for it.
  const bool too_much = report->payload_bytes > most_bytes;
  if (too_much) {
    if (absl::Status status = leases_->Refresh(kWhat, LeaseInterval()); !status.ok()) return status;
    uint64_t over_bytes =
        report->payload_bytes - most_bytes + options_.capacity_bytes / kEvictedAtOncePart;
    for (int sample = 0; sample < kSamplesMax && over_bytes > 0; ++sample) {
      const absl::StatusOr<RadosEvicted> evicted = evictor_->Evict(kWhat, over_bytes);
      if (!evicted.ok()) return evicted.status();
      evicted_segments_ += evicted->segments;
      evicted_bytes_ += evicted->bytes;
      evicted_chunks_ += evicted->chunks;
      if (evicted->bytes == 0) break;
      over_bytes -= std::min(over_bytes, evicted->bytes);
    }
  }
  const bool pressed =
      wanted_bytes > 0 || report->data_bytes > options_.capacity_bytes - headroom_bytes / 4;
  if (!pressed) return too_much;
  const absl::StatusOr<size_t> collected = CollectGarbage(kWhat, options_.pressed_retire_age);
  if (!collected.ok()) return collected.status();
  // Hands out what has come free.
  report = room_->Balance(kWhat, absl::Now());
  if (!report.ok()) return report.status();
  return true;
}

void RadosChunkStore::KeepRoomUntilClosed() {
  absl::Time flush_at = absl::Now() + options_.usage_interval;
  bool hurry = false;
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      const absl::Duration rest =
          hurry ? options_.keeper_interval / kHurry : options_.keeper_interval;
      // Not at once when room is wanted: others may want some too, and a pass reads all shards.
      mutex_.AwaitWithTimeout(absl::Condition(this, &RadosChunkStore::keeper_has_work), rest);
      if (!closing_ && hurry) {
        mutex_.AwaitWithTimeout(absl::Condition(this, &RadosChunkStore::closing), rest);
      }
      if (closing_) return;
      room_wanted_ = false;
    }
    // A cluster that is down now may be up at the next turn; requests report it.
    const absl::StatusOr<bool> more = KeepRoom();
    hurry = more.ok() && *more;
    if (absl::Now() < flush_at) continue;
    FlushUsage().IgnoreError();
    flush_at = absl::Now() + options_.usage_interval;
  }
}

}  // namespace kvstream

// A load that goes from daemon to daemon: what is in place of it, and what the next one is asked
// for.
#ifndef KVSTREAM_CLIENT_MOVED_LOAD_H_
#define KVSTREAM_CLIENT_MOVED_LOAD_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/client.h"
#include "client/held_chunk.h"

namespace kvstream {

// Which chunks of a context one daemon's load is about, and what is in place of them when it fails.
struct LoadRange {
  uint32_t first_chunk = 0;
  uint32_t end_chunk = 0;  // beyond the last
  absl::Duration began;    // MonotonicNow() when the caller called
  // What is in place of the range's chunks when the load begins, or empty. It takes it, and it ends
  // with what is in place then, as `kept` is filled. Chunks that were recomputed are not in it.
  std::vector<HeldChunk> held;
  // Filled on UNAVAILABLE, and with held_refused: for each chunk of the range how it stands in the
  // caller's memory; none: not, or coarser than the load's floor or fixed level.
  std::vector<absl::optional<LoadedChunk>> kept;
  // The load failed because of what was held, or before the daemon began with it.
  bool held_refused = false;
};

// Times are those of MonotonicNow(). Thread-compatible.
class MovedLoad {
 public:
  // refine_until: how long after `began` chunks that are in place are worth refining; zero: not at
  // all.
  MovedLoad(uint32_t chunks, ClientRecomputeAbility ability, absl::Duration began,
            absl::Duration refine_until);

  // What to ask a daemon for; an empty range: nothing. hold: chunks that are in place may go with
  // it, to be refined; they are as many as leave an order in which a load of this ability can go on
  // (proto LoadStart.held_levels). Once per daemon that is asked, or more.
  LoadRange Next(bool hold, absl::Duration now);
  // The load of that range has failed and left `kept` and `held`.
  void OnLeft(LoadRange range, absl::Duration now);
  // The load of that range is done: the result of all parts together, but for what a deadline says.
  LoadResult OnLoaded(const LoadRange& range, LoadResult part);

  bool complete() const;
  // All parts as they are. Requires complete().
  LoadResult AsItIs(absl::Duration now) const;

 private:
  // The missing chunks, in one piece; begin == end: none is missing.
  std::pair<uint32_t, uint32_t> Missing() const;
  bool in_place(uint32_t chunk) const {
    return chunks_[chunk].has_value() && chunks_[chunk]->level.has_value() &&
           held_[chunk].levels > 0;
  }
  // The piece without recomputed chunks in which most can be refined.
  std::pair<uint32_t, uint32_t> MostRefinable() const;
  void Note(uint32_t chunk, LoadedChunk now);
  LoadResult Whole(LoadResult part) const;

  const ClientRecomputeAbility ability_;
  const absl::Duration began_;
  const absl::Duration refine_until_;
  std::vector<absl::optional<LoadedChunk>> chunks_;
  std::vector<HeldChunk> held_;
  std::vector<bool> given_;  // held by the newest range
  uint64_t bytes_ = 0;       // of all parts that failed
  uint64_t recomputed_tokens_ = 0;
  absl::optional<absl::Duration> complete_at_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_MOVED_LOAD_H_

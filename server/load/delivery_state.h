// What of a load was sent, chunk by chunk, and what is still to be decided.
#ifndef KVSTREAM_SERVER_LOAD_DELIVERY_STATE_H_
#define KVSTREAM_SERVER_LOAD_DELIVERY_STATE_H_

#include <cstdint>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "server/load/chunk_table.h"
#include "server/load/level_planner.h"
#include "server/load/load_session.h"

namespace kvstream {

// The undecided chunks are always one range (OpenRange): streaming takes them from one end, and so
// does recompute, from the same or from the other end. Thread-compatible; 16 bytes a chunk; all
// calls O(1), amortised, where nothing else is said.
class DeliveryState {
 public:
  // A refinement of a chunk that has its base: its next segments up to `target`, which it has.
  struct Refinement {
    uint32_t chunk = 0;
    int target = 0;
    uint64_t bytes = 0;
    uint32_t left = 0;  // chunks at most, this one included, that are not done with this stop
  };

  // `chunks` is borrowed and must outlive the state. stops: see RefinementStops. held: as
  // LoadSpec::held_levels; what is held counts as sent, and `chunks` has no bytes for it.
  DeliveryState(const ChunkTable* chunks, BaseOrder order, std::vector<int> stops,
                absl::Span<const uint8_t> held = {});

  BaseOrder order() const { return order_; }
  OpenRange open() const;
  bool all_decided() const { return open_begin_ >= open_end_; }
  // The open chunk that is streamed next. Requires !all_decided().
  uint32_t frontier() const { return order_ == BaseOrder::kForward ? open_begin_ : open_end_ - 1; }

  // The client was told of the chunk, with its sizes.
  bool planned(uint32_t chunk) const {
    return state_[chunk].plan_level >= 0 && (state_[chunk].flags & kHeld) == 0;
  }
  int plan_level(uint32_t chunk) const { return state_[chunk].plan_level; }
  bool recompute(uint32_t chunk) const { return (state_[chunk].flags & kRecompute) != 0; }
  bool told_recompute(uint32_t chunk) const { return (state_[chunk].flags & kTold) != 0; }
  // Segments sent whole: the chunk is decodable at level complete - 1.
  int complete(uint32_t chunk) const { return state_[chunk].complete; }
  bool touched(uint32_t chunk) const {
    return state_[chunk].complete > 0 || state_[chunk].offset > 0;
  }

  // Bytes of the chunk sent so far. O(levels).
  uint64_t sent_bytes(uint32_t chunk) const;
  void SetPlanLevel(uint32_t chunk, int level) {
    state_[chunk].plan_level = static_cast<int8_t>(level);
    state_[chunk].flags &= static_cast<uint8_t>(~kHeld);
  }
  void SetTold(uint32_t chunk) { state_[chunk].flags |= kTold; }

  // The next bytes of the chunk, at most `max_bytes`. Requires a segment that was not sent.
  SendData NextPiece(uint32_t chunk, uint64_t max_bytes) const;
  void OnSent(const SendData& piece);
  // The segment that is partly sent begins anew if it is sent again.
  void DropPartial(uint32_t chunk) { state_[chunk].offset = 0; }
  // Takes back the newest OnSent.
  void OnUnsent(const SendData& piece);
  // The frontier chunk has its base; it leaves the open range.
  void CloseFrontier();

  // Chunks [begin, end) will be recomputed, those of them that already are excepted. Takes them out
  // of the open range, of which they must be an end or which they must not meet. O(end - begin).
  void MarkRecompute(uint32_t begin, uint32_t end, RecomputeReason reason);
  // The chunk, which has its base, is taken from its bytes after all.
  void UnmarkRecompute(uint32_t chunk);

  // The next refinement: stop by stop, within a stop what was streamed last first, as that is most
  // likely not decoded yet and so is decoded only once. O(1), amortised over
  // the load; a chunk that comes to its base late costs a scan.
  absl::optional<Refinement> NextRefinement();
  // Bytes that would bring all chunks outside the open range to the finest level that they have.
  uint64_t refinement_bytes() const { return refinement_bytes_; }

  // Chunks that the client can have ready: a segment sent whole, or recompute.
  uint32_t deliverable() const { return deliverable_; }
  uint32_t recompute_chunks() const { return recompute_chunks_; }
  ChunkDecision decision(uint32_t chunk) const;

 private:
  static constexpr uint8_t kRecompute = 1, kTold = 2, kBase = 4;
  static constexpr uint8_t kHeld = 8;  // since before the load, and not planned since
  struct Chunk {
    uint64_t offset = 0;  // sent of segment `complete`
    int8_t plan_level = -1;
    uint8_t complete = 0;
    uint8_t flags = 0;
    RecomputeReason reason = RecomputeReason::kFaster;
  };
  uint64_t BytesAbove(uint32_t chunk, int complete) const;
  // Position in the order of streaming, and back.
  uint32_t Mirrored(uint32_t chunk) const {
    return order_ == BaseOrder::kForward ? chunk : chunks_->size() - 1 - chunk;
  }
  // Refinement may have begun without the chunk: begins again; what is done is skipped.
  void RefineAgain(uint32_t chunk);

  const ChunkTable* const chunks_;
  const BaseOrder order_;
  const std::vector<int> stops_;
  std::vector<Chunk> state_;
  uint32_t open_begin_ = 0;
  uint32_t open_end_;
  uint64_t refinement_bytes_ = 0;
  uint32_t deliverable_ = 0;
  uint32_t recompute_chunks_ = 0;
  size_t stop_ = 0;  // index into stops_
  uint32_t cursor_;  // chunks from this position of the stream on are done with this stop
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_DELIVERY_STATE_H_

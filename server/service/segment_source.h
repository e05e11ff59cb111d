// The stored segments of one load, read before they are needed.
#ifndef KVSTREAM_SERVER_SERVICE_SEGMENT_SOURCE_H_
#define KVSTREAM_SERVER_SERVICE_SEGMENT_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "server/load/load_session.h"
#include "server/service/worker_pool.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Never waits for the store: what the store has at hand is taken at once, the rest is read on the
// readers' pool, and the load is told. With each segment asked for it also begins to read those
// that should come next, so that the disk works while the socket sends: the rest of the chunk up to
// its planned level, then the neighbours in the direction in which the load has moved. A wrong
// guess costs a read.
//
// Memory: kAheadBytes of segments beyond the one asked for, or one segment if that is larger;
// pinned in the store and not copied.
//
// One thread at a time; tasks on the pool touch only state that they share, so that they may
// outlive the source, but not the store.
class SegmentSource {
 public:
  using Segment = std::shared_ptr<const PinnedBytes>;

  static constexpr uint64_t kAheadBytes = uint64_t{4} << 20;
  static constexpr size_t kAheadSegmentsMax = 16;

  // `store` and `readers` are borrowed. `ids` and `chunks`, of the same length, are borrowed for
  // the source's life. `ready` is called on a reader's thread, possibly after the source is gone,
  // once for each Get() that returned nothing.
  SegmentSource(ChunkStore* store, WorkerPool* readers, const std::vector<ChunkId>* ids,
                const std::vector<StoredChunkSizes>* chunks, std::function<void()> ready);
  SegmentSource(const SegmentSource&) = delete;

  // The segment or why it cannot be read; nothing if it is not there yet: `ready` will be called,
  // then ask again. `target`: the level up to which the chunk is planned, at least `level`. An
  // error is forgotten: asking again reads again. The last segment is kept until another is asked
  // for. O(kAheadSegmentsMax) for a new segment, O(1) for the same again.
  absl::optional<absl::StatusOr<Segment>> Get(uint32_t chunk, uint32_t level, uint32_t target);

 private:
  struct Name {
    uint32_t chunk = 0;
    uint32_t level = 0;
    bool operator==(const Name& other) const {
      return chunk == other.chunk && level == other.level;
    }
  };
  struct Read;
  struct Slot {
    Name name;
    std::shared_ptr<Read> read;
  };

  std::shared_ptr<Read> Begin(const Name& name);
  absl::optional<absl::StatusOr<Segment>> Take(const Name& name);
  // What should come after `name`, nearest first.
  std::vector<Name> Next(Name name, uint32_t target) const;
  // Begins what is expected and lets go of what is not.
  void ReadAhead(const Name& name, uint32_t target);

  ChunkStore* const store_;
  WorkerPool* const readers_;
  const std::vector<ChunkId>& ids_;
  const std::vector<StoredChunkSizes>& chunks_;
  const std::function<void()> ready_;

  Segment current_;
  Name current_name_;
  absl::optional<Name> last_;  // asked for
  uint32_t target_ = 0;        // expected of the next chunks
  uint32_t run_level_ = 0;     // at which the run of levels of last_->chunk began
  int direction_ = 1;
  std::vector<Slot> slots_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_SEGMENT_SOURCE_H_

// A store that can tell which bytes a segment has without reading them, so that copies of segments
// can be kept elsewhere and never be taken for others.
#ifndef KVSTREAM_STORAGE_VERSIONED_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_VERSIONED_CHUNK_STORE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "storage/chunk_store.h"

namespace kvstream {

struct SegmentVersion {
  uint64_t bytes = 0;
  uint64_t hash = 0;    // XXH3-64 of them
  uint32_t tokens = 0;  // of the chunk
  uint64_t first_token = 0;
};

class VersionedChunkStore : public ChunkStore {
 public:
  // Of the segment that ReadSegment would read now. NOT_FOUND as there.
  virtual absl::StatusOr<SegmentVersion> Version(const ChunkId& id, uint32_t level) = 0;
  // The same if it is known without waiting, else nothing.
  virtual absl::optional<SegmentVersion> TryVersion(const ChunkId& id, uint32_t level) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_VERSIONED_CHUNK_STORE_H_

// Payload bytes in a pool: one run of bytes for each generation, cut into objects of
// rados_format::kPartBytes, written once as a whole and later only cut off or removed.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_DATA_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_DATA_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"
#include "storage/rados/rados_format.h"
#include "storage/rados/rados_pool.h"

namespace kvstream {

struct RadosDataName {
  ChunkId id;
  rados_format::Generation generation;
};

// The segments one after the other; durable on return, as is what is written to the index at the
// same time, if anything. Copies them once, into librados' buffers. `what` opens the message of an
// error, here and below.
absl::Status WriteRadosData(const RadosPool& pool, absl::string_view what,
                            const RadosDataName& name, absl::Span<const absl::string_view> segments,
                            const absl::optional<OmapWrite>& beside = absl::nullopt);

// `bytes` bytes from `offset` on. NOT_FOUND if not all of them are there.
absl::StatusOr<PinnedBytes> ReadRadosData(const RadosPool& pool, absl::string_view what,
                                          const RadosDataName& name, uint64_t offset,
                                          uint64_t bytes);

// Leaves the first `keep_bytes` of `total_bytes`; 0: nothing.
struct RadosDataCut {
  RadosDataName name;
  uint64_t keep_bytes = 0;
  uint64_t total_bytes = 0;
};
// In any order. What is gone already is no error.
absl::Status ShrinkRadosData(const RadosPool& pool, absl::string_view what,
                             absl::Span<const RadosDataCut> cuts);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_DATA_H_

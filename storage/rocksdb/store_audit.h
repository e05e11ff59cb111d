// Looks at a closed store's families past the ChunkStore interface, for what that cannot show:
// segments without an info.
#ifndef KVSTREAM_STORAGE_ROCKSDB_STORE_AUDIT_H_
#define KVSTREAM_STORAGE_ROCKSDB_STORE_AUDIT_H_

#include <set>

#include "absl/status/statusor.h"
#include "storage/chunk_store.h"
#include "storage/rocksdb/rocksdb_options.h"

namespace kvstream {

// Ids of the chunks of a store that nobody has open. An error, naming the chunk, unless every chunk
// has exactly the segments that its info announces, no segment lacks an info, and the stored
// counters are the sum over all chunks. Nor unless every chunk that expires is in the index of
// expiry, every one with a parent and no other in that of children, and only stored chunks are
// pinned or noted for deletion.
absl::StatusOr<std::set<ChunkId>> AuditStore(const RocksDbChunkStoreOptions& options);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_STORE_AUDIT_H_

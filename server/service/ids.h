// Ids as they come over the wire: 32 raw bytes, checked before anything else is done with them.
#ifndef KVSTREAM_SERVER_SERVICE_IDS_H_
#define KVSTREAM_SERVER_SERVICE_IDS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Chunks that one call may name.
inline constexpr size_t kMaxChunksPerCall = 65536;

// INVALID_ARGUMENT, naming the field, unless the id has 32 bytes.
absl::StatusOr<ChunkId> ParseId(absl::string_view field, absl::string_view bytes);

// INVALID_ARGUMENT, naming the field and index, for an id of another size or more than
// kMaxChunksPerCall of them. O(ids).
absl::StatusOr<std::vector<ChunkId>> ParseChunkIds(
    const google::protobuf::RepeatedPtrField<std::string>& ids);

// 64 hexadecimal characters.
std::string IdHex(const ChunkId& id);
// The 32 bytes, for a message's field.
std::string IdBytes(const ChunkId& id);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_IDS_H_

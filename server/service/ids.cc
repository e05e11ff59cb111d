#include "server/service/ids.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace kvstream {

absl::StatusOr<ChunkId> ParseId(absl::string_view field, absl::string_view bytes) {
  ChunkId id;
  if (bytes.size() != id.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", bytes.size(), " bytes; an id has ", id.size()));
  }
  std::copy(bytes.begin(), bytes.end(), id.begin());
  return id;
}

absl::StatusOr<std::vector<ChunkId>> ParseChunkIds(
    const google::protobuf::RepeatedPtrField<std::string>& ids) {
  if (static_cast<size_t>(ids.size()) > kMaxChunksPerCall) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk_ids has ", ids.size(), " entries; at most ", kMaxChunksPerCall));
  }
  std::vector<ChunkId> parsed;
  parsed.reserve(ids.size());
  for (int i = 0; i < ids.size(); ++i) {
    absl::StatusOr<ChunkId> id = ParseId("chunk id", ids[i]);
    if (!id.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("chunk_ids[", i, "]: ", id.status().message()));
    }
    parsed.push_back(*id);
  }
  return parsed;
}

std::string IdHex(const ChunkId& id) { return absl::BytesToHexString(IdBytes(id)); }

std::string IdBytes(const ChunkId& id) { return std::string(id.begin(), id.end()); }

}  // namespace kvstream

#include "codec/chunk_file.h"

#include <xxhash.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/format.h"
#include "codec/quantize.h"

namespace kvstream {
namespace {

// Bytes before the tokens.
constexpr size_t kHeaderBytes = 64;
// Two billion tokens are no context; the bound keeps every product below 2^63.
constexpr uint64_t kMaxFileTokens = uint64_t{1} << 31;

template <typename... T>
absl::Status Invalid(const T&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("chunk file: ", parts...));
}

uint64_t ChunkCount(uint64_t tokens, uint64_t chunk_tokens) {
  return (tokens + chunk_tokens - 1) / chunk_tokens;
}

}  // namespace

absl::StatusOr<std::string> WriteChunkFile(const Profile& profile, absl::Span<const int32_t> tokens,
                                           absl::Span<const EncodedChunk> chunks) {
  const uint64_t expected = ChunkCount(tokens.size(), profile.chunk_tokens());
  if (tokens.empty() || tokens.size() >= kMaxFileTokens)
    return Invalid("has ", tokens.size(), " tokens, must be 1 to 2^31 - 1");
  if (chunks.size() != expected)
    return Invalid("has ", chunks.size(), " chunks, its tokens make ", expected);
  for (const EncodedChunk& chunk : chunks) {
    if (chunk.segments.size() != static_cast<size_t>(profile.levels())) {
      return Invalid("a chunk has ", chunk.segments.size(), " segments, the profile has ",
                     profile.levels(), " levels");
    }
  }
  std::string out;
  AppendLe(kChunkFileMagic, &out);
  AppendLe(kFormatVersion, &out);
  AppendLe<uint16_t>(static_cast<uint16_t>(profile.levels()), &out);
  AppendLe<uint64_t>(0, &out);  // size, known below
  out.append(reinterpret_cast<const char*>(profile.id().data()), kProfileIdBytes);
  AppendLe<uint64_t>(tokens.size(), &out);
  AppendLe<uint32_t>(profile.chunk_tokens(), &out);
  AppendLe<uint32_t>(0, &out);  // reserved
  for (int32_t token : tokens) AppendLe(token, &out);
  for (const EncodedChunk& chunk : chunks) {
    for (const std::string& segment : chunk.segments) AppendLe<uint64_t>(segment.size(), &out);
  }
  for (const EncodedChunk& chunk : chunks) {
    for (const std::string& segment : chunk.segments) out += segment;
  }
  StoreLe<uint64_t>(out.size() + kChecksumBytes, &out[8]);
  AppendLe<uint64_t>(XXH3_64bits(out.data(), out.size()), &out);
  return out;
}

absl::StatusOr<ChunkFileView> ParseChunkFile(absl::string_view bytes) {
  if (bytes.size() < kHeaderBytes + kChecksumBytes) {
    return absl::DataLossError(
        absl::StrCat("chunk file: truncated, only ", bytes.size(), " bytes"));
  }
  const size_t body = bytes.size() - kChecksumBytes;
  ByteReader in(bytes.substr(0, body));
  ChunkFileView view;
  const uint32_t magic = in.Read<uint32_t>();
  const uint16_t version = in.Read<uint16_t>();
  const uint16_t levels = in.Read<uint16_t>();
  const uint64_t size = in.Read<uint64_t>();
  const absl::string_view id = in.Take(kProfileIdBytes);
  const uint64_t tokens = in.Read<uint64_t>();
  const uint32_t chunk_tokens = in.Read<uint32_t>();
  const uint32_t reserved = in.Read<uint32_t>();
  if (magic != kChunkFileMagic) return Invalid("magic is wrong, this is no .kvs file");
  if (version != kFormatVersion)
    return Invalid("version is ", version, ", this build reads ", kFormatVersion);
  if (size != bytes.size())
    return absl::DataLossError(
        absl::StrCat("chunk file: has ", bytes.size(), " bytes, its header says ", size));
  if (XXH3_64bits(bytes.data(), body) != LoadLe<uint64_t>(bytes.data() + body))
    return absl::DataLossError("chunk file: checksum does not match");
  if (levels < 1 || levels > kMaxLevels)
    return Invalid("levels is ", levels, ", must be 1 to ", kMaxLevels);
  if (chunk_tokens < 1 || chunk_tokens > static_cast<uint32_t>(kMaxChunkTokens))
    return Invalid("chunk_tokens is ", chunk_tokens, ", must be 1 to ", kMaxChunkTokens);
  if (tokens < 1 || tokens >= kMaxFileTokens)
    return Invalid("tokens is ", tokens, ", must be 1 to 2^31 - 1");
  if (reserved != 0) return Invalid("reserved field is not zero");
  const absl::string_view token_bytes = in.Take(tokens * 4);
  const uint64_t chunks = ChunkCount(tokens, chunk_tokens);
  const absl::string_view sizes = in.Take(chunks * levels * 8);
  if (!in.ok()) return Invalid("has fewer bytes than its ", tokens, " tokens need");

  std::memcpy(view.profile_id.data(), id.data(), kProfileIdBytes);
  view.levels = levels;
  view.chunk_tokens = static_cast<int>(chunk_tokens);
  view.tokens.resize(tokens);
  std::memcpy(view.tokens.data(), token_bytes.data(), token_bytes.size());
  view.chunks.resize(chunks);
  for (uint64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int level = 0; level < levels; ++level) {
      view.chunks[chunk].push_back(
          in.Take(LoadLe<uint64_t>(sizes.data() + (chunk * levels + level) * 8)));
      if (!in.ok())
        return Invalid("segment of chunk ", chunk, " level ", level, " goes beyond the end");
    }
  }
  if (in.remaining() != 0) return Invalid(in.remaining(), " bytes too many");
  return view;
}

}  // namespace kvstream

#include "client/chunk_id.h"

#include <openssl/sha.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace kvstream {
namespace {

constexpr absl::string_view kDomainTag = "kvstream.chunk.v1";

void AppendU32(uint32_t value, std::string* out) {
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(value >> shift));
}

void AppendField(absl::string_view field, std::string* out) {
  AppendU32(static_cast<uint32_t>(field.size()), out);
  out->append(field.data(), field.size());
}

absl::string_view AsView(const std::array<uint8_t, 32>& id) {
  return absl::string_view(reinterpret_cast<const char*>(id.data()), id.size());
}

}  // namespace

std::vector<ChunkId> ContextChunkIds(const ContextIdentity& identity, const ProfileId& profile_id,
                                     int chunk_tokens, absl::Span<const int32_t> tokens,
                                     absl::Span<const std::string> extra_keys) {
  std::vector<ChunkId> ids;
  if (chunk_tokens < 1) return ids;
  if (extra_keys.empty()) extra_keys = identity.extra_keys;

  std::string common;
  AppendField(kDomainTag, &common);
  AppendField(identity.tenant_salt, &common);
  AppendField(identity.model, &common);
  AppendField(identity.adapter, &common);
  AppendField(AsView(profile_id), &common);

  const size_t step = static_cast<size_t>(chunk_tokens);
  ids.reserve((tokens.size() + step - 1) / step);
  std::string message;
  for (size_t first = 0; first < tokens.size(); first += step) {
    const absl::Span<const int32_t> chunk = tokens.subspan(first, step);
    message = common;
    AppendField(ids.empty() ? absl::string_view() : AsView(ids.back()), &message);
    AppendU32(static_cast<uint32_t>(chunk.size() * 4), &message);
    for (int32_t token : chunk) AppendU32(static_cast<uint32_t>(token), &message);
    AppendField(ids.size() < extra_keys.size() ? extra_keys[ids.size()] : std::string(), &message);
    ChunkId id;
    SHA256(reinterpret_cast<const unsigned char*>(message.data()), message.size(), id.data());
    ids.push_back(id);
  }
  return ids;
}

std::string ShortChunkId(const ChunkId& id) {
  return absl::StrCat(absl::BytesToHexString(AsView(id).substr(0, 8)), "…");
}

}  // namespace kvstream

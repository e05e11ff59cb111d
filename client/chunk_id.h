// Names of a context's chunks. Whoever computes the same ids shares the same stored chunks, so this
// is a contract, not an implementation detail.
#ifndef KVSTREAM_CLIENT_CHUNK_ID_H_
#define KVSTREAM_CLIENT_CHUNK_ID_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "codec/profile.h"
#include "storage/chunk_store.h"

namespace kvstream {

// What made the KV, beside the tokens. Everything here goes into the chunk ids, so that KV of
// different weights or tenants never meets.
struct ContextIdentity {
  std::string model;        // name@revision, for people too
  std::string adapter;      // LoRA; empty: none
  std::string tenant_salt;  // empty: none
  // What token ids cannot say, one per chunk in context order (such as the hash of an image behind
  // placeholder tokens). Chunks beyond its end have an empty key.
  std::vector<std::string> extra_keys;
};

// Ids of the chunks of a context, one per chunk_tokens tokens, the last chunk being the rest:
//
//   id[i] = SHA-256( F("kvstream.chunk.v1") F(tenant_salt) F(model) F(adapter) F(profile_id)
//                    F(i == 0 ? "" : id[i-1]) F(tokens of chunk i) F(extra key of chunk i) )
//
// where F(x) is the length of x in bytes as an unsigned 32-bit little-endian integer, followed by
// x; profile_id and ids are their 32 raw bytes; tokens are 4 bytes each, little-endian two's
// complement, without separators. Because every id covers the one before, equal prefixes share ids
// and the first difference changes all that follow. A short last chunk never shares an id with a
// full one.
//
// extra_keys, if not empty, is used in place of identity.extra_keys. Precondition: every string is
// shorter than 4 GiB. No chunks for no tokens or chunk_tokens < 1. Cost: one SHA-256 over about 5
// bytes a token.
std::vector<ChunkId> ContextChunkIds(const ContextIdentity& identity, const ProfileId& profile_id,
                                     int chunk_tokens, absl::Span<const int32_t> tokens,
                                     absl::Span<const std::string> extra_keys = {});

// The first 16 hexadecimal digits of an id and an ellipsis, for messages.
std::string ShortChunkId(const ChunkId& id);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_CHUNK_ID_H_

// A small context with KV that the real codec can encode, for tests.
#ifndef KVSTREAM_CLIENT_TESTING_SYNTHETIC_CONTEXT_H_
#define KVSTREAM_CLIENT_TESTING_SYNTHETIC_CONTEXT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "client/client.h"
#include "codec/encoder.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

// KV in one block of memory: [layer][plane][token][head][channel]. Movable; views point into
// it.
class KvBlock {
 public:
  KvBlock(const KvGeometry& geometry, int64_t tokens);

  KvView view() const;
  MutableKvView mutable_view();
  const std::vector<uint16_t>& values() const { return values_; }
  // The values of some tokens, gathered.
  std::vector<uint16_t> Tokens(int64_t first, int64_t count) const;
  // Copies tokens [first, first + count) from a block of the same shape.
  void CopyTokens(const KvBlock& from, int64_t first, int64_t count);

 private:
  KvGeometry geometry_;
  int64_t tokens_;
  std::vector<uint16_t> values_;
};

// F16, 2 layers of 2 heads of 8, RoPE; chunks of 16 tokens; 4 levels; calibrated on itself unless
// `calibrate` is false. With `latent`: 2 layers of a latent of 24 channels and 8 that are rotated,
// as in MLA.
struct SyntheticContext {
  explicit SyntheticContext(int64_t tokens, uint32_t seed = 1, bool calibrate = true,
                            bool latent = false);

  ContextIdentity identity;
  std::vector<int32_t> tokens;
  KvBlock kv;
  std::shared_ptr<const Profile> profile;
  std::vector<ChunkId> chunk_ids;

  // As the client encodes them.
  std::vector<EncodedChunk> Encode() const;
  // What a client holds after loading chunk i at levels[i]; -1: recomputed, the exact KV.
  KvBlock Expected(const std::vector<int>& levels) const;
  int64_t ChunkTokens(uint32_t chunk) const;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_TESTING_SYNTHETIC_CONTEXT_H_

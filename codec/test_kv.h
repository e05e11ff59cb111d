// KV caches made up for tests: low-rank structure, channel means and layer scales as real ones
// have, reproducible on every machine.
#ifndef KVSTREAM_CODEC_TEST_KV_H_
#define KVSTREAM_CODEC_TEST_KV_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/calibration.h"
#include "codec/geometry.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

// Owns KV, one array [token][head][channel] per layer of keys and of values, or of latents, which
// stand as keys.
class TestKv {
 public:
  // All zero.
  TestKv(const KvGeometry& geometry, int64_t tokens);

  KvView view() const;
  MutableKvView mutable_view();
  // Every value in the order [layer][plane][token][head][channel].
  std::vector<float> Floats() const;
  std::vector<uint16_t>& keys(int layer) { return tensors_[geometry_.planes * layer]; }
  // Precondition: the geometry has values.
  std::vector<uint16_t>& values(int layer) { return tensors_[2 * layer + 1]; }
  const std::vector<std::vector<uint16_t>>& tensors() const { return tensors_; }

 private:
  KvGeometry geometry_;
  int64_t tokens_;
  std::vector<std::vector<uint16_t>> tensors_;
};

// Small deterministic generator (SplitMix64), since distributions of the standard library differ
// between implementations.
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // [0, bound)
  uint64_t Below(uint64_t bound) { return Next() % bound; }
  // [0, 1)
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // Roughly standard normal.
  double Normal();

 private:
  uint64_t state_;
};

// A latent of `latent` unrotated and then `rotated` interleaved channels (MLA).
KvGeometry TestLatentGeometry(int layers, int latent, int rotated, KvDtype dtype = KvDtype::kBF16);

KvGeometry TestGeometry(int layers, int kv_heads, int head_size, KvDtype dtype = KvDtype::kF16,
                        RopeParameters::Layout layout = RopeParameters::Layout::kHalfSplit,
                        int rotary_size = -1);

// KV of a model of which all contexts with the same `model_seed` share means, scales and the
// directions of their variance; positions start at 0.
TestKv MakeTestKv(const KvGeometry& geometry, int64_t tokens, uint64_t model_seed,
                  uint64_t context_seed);

// A profile calibrated on such KV; crashes on an error.
std::shared_ptr<const Profile> MakeTestProfile(const KvGeometry& geometry, uint64_t model_seed,
                                               const CalibrationOptions& options = {},
                                               int64_t sample_tokens = 600);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_TEST_KV_H_

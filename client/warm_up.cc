#include "client/warm_up.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/monotonic_clock.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/kv_view.h"

namespace kvstream {
namespace {

template <typename T>
BasicKvView<T> ViewOf(const KvGeometry& geometry, int64_t tokens, T* data) {
  BasicKvView<T> view;
  view.tokens = tokens;
  const ptrdiff_t row = ptrdiff_t{1} * geometry.kv_heads * geometry.head_size;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int plane = 0; plane < geometry.planes; ++plane) {
      (plane == 0 ? view.keys : view.values).push_back({data, row, geometry.head_size});
      data += tokens * row;
    }
  }
  return view;
}

// Numbers of either sign and of a magnitude from 0.25 to 2, in either element type.
std::vector<uint16_t> Noise(const KvGeometry& geometry, int64_t tokens) {
  const int mantissa_bits = geometry.dtype == KvDtype::kF16 ? 10 : 7;
  const uint32_t lowest_exponent = geometry.dtype == KvDtype::kF16 ? 13 : 125;
  std::vector<uint16_t> values(static_cast<size_t>(tokens * geometry.values_per_token()));
  uint32_t state = 1;
  for (uint16_t& value : values) {
    state = state * 1664525 + 1013904223;  // a linear congruential generator is noise enough
    const uint32_t exponent = lowest_exponent + (state >> 8) % 3;
    const uint32_t mantissa = state >> 16 & ((1u << mantissa_bits) - 1);
    value = static_cast<uint16_t>((state >> 31) << 15 | exponent << mantissa_bits | mantissa);
  }
  return values;
}

}  // namespace

absl::Status WarmUpDecoder(DecoderPool* decoders, const std::shared_ptr<const Profile>& profile) {
  const int64_t tokens = profile->chunk_tokens();
  std::vector<uint16_t> values = Noise(profile->geometry(), tokens);
  absl::StatusOr<std::unique_ptr<ChunkEncoder>> encoder = ChunkEncoder::Create(profile);
  if (!encoder.ok()) return encoder.status();
  const uint16_t* const input = values.data();
  absl::StatusOr<EncodedChunk> encoded =
      (*encoder)->Encode(ViewOf(profile->geometry(), tokens, input), 0);
  if (!encoded.ok()) return encoded.status();

  absl::StatusOr<std::unique_ptr<ChunkDecoder>> decoder = decoders->Acquire(profile);
  if (!decoder.ok()) return decoder.status();
  const std::vector<absl::string_view> segments(encoded->segments.begin(), encoded->segments.end());
  const absl::Duration start = MonotonicNow();
  const absl::Status status =
      (*decoder)->Decode(segments, ViewOf(profile->geometry(), tokens, values.data()));
  if (status.ok()) decoders->RecordDecode(profile->id(), tokens, MonotonicNow() - start);
  decoders->Release(*profile, *std::move(decoder));
  return status;
}

}  // namespace kvstream

#include "client/testing/synthetic_context.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "codec/calibration.h"
#include "codec/decoder.h"

namespace kvstream {
namespace {

constexpr int kChunkTokens = 16;

KvGeometry SmallGeometry(bool latent) {
  KvGeometry geometry;
  geometry.layers = 2;
  geometry.dtype = KvDtype::kF16;
  if (latent) {
    geometry.planes = 1;
    geometry.kv_heads = 1;
    geometry.head_size = 24 + 8;
    geometry.rope.rotary_offset = 24;
    geometry.rope.layout = RopeParameters::Layout::kInterleaved;
    for (int i = 0; i < 4; ++i)
      geometry.rope.inverse_frequency.push_back(std::pow(10000.0, -i / 4.0));
    return geometry;
  }
  geometry.kv_heads = 2;
  geometry.head_size = 8;
  geometry.rope.layout = RopeParameters::Layout::kHalfSplit;
  for (int i = 0; i < 4; ++i)
    geometry.rope.inverse_frequency.push_back(std::pow(10000.0, -i / 4.0));
  return geometry;
}

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::abort();
  }
  return *std::move(value);
}

// Bits of a half-precision number; values here are normal, well inside of its range.
uint16_t ToF16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t sign = bits >> 16 & 0x8000;
  const int32_t exponent = static_cast<int32_t>(bits >> 23 & 0xff) - 127 + 15;
  if (exponent <= 0) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(exponent) << 10 | (bits >> 13 & 0x3ff));
}

template <typename T>
BasicKvView<T> MakeView(const KvGeometry& geometry, int64_t tokens, T* data) {
  BasicKvView<T> view;
  view.tokens = tokens;
  const ptrdiff_t token_stride = geometry.kv_heads * geometry.head_size;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int plane = 0; plane < geometry.planes; ++plane) {
      (plane == 0 ? view.keys : view.values).push_back({data, token_stride, geometry.head_size});
      data += tokens * token_stride;
    }
  }
  return view;
}

}  // namespace

KvBlock::KvBlock(const KvGeometry& geometry, int64_t tokens)
    : geometry_(geometry),
      tokens_(tokens),
      values_(static_cast<size_t>(tokens * geometry.values_per_token()), 0x7e00) {}  // NaN

KvView KvBlock::view() const { return MakeView(geometry_, tokens_, values_.data()); }

MutableKvView KvBlock::mutable_view() { return MakeView(geometry_, tokens_, values_.data()); }

std::vector<uint16_t> KvBlock::Tokens(int64_t first, int64_t count) const {
  std::vector<uint16_t> out;
  const KvView all = view();
  const size_t row = static_cast<size_t>(count) * geometry_.kv_heads * geometry_.head_size;
  for (const auto* tensors : {&all.keys, &all.values}) {
    for (const KvTensor& tensor : *tensors) {
      const uint16_t* from = tensor.at(first, 0);
      out.insert(out.end(), from, from + row);
    }
  }
  return out;
}

void KvBlock::CopyTokens(const KvBlock& from, int64_t first, int64_t count) {
  const KvView source = from.view();
  const MutableKvView target = mutable_view();
  const size_t bytes = static_cast<size_t>(count) * geometry_.kv_heads * geometry_.head_size * 2;
  for (int layer = 0; layer < geometry_.layers; ++layer) {
    std::memcpy(target.keys[layer].at(first, 0), source.keys[layer].at(first, 0), bytes);
    if (!geometry_.has_values()) continue;
    std::memcpy(target.values[layer].at(first, 0), source.values[layer].at(first, 0), bytes);
  }
}

SyntheticContext::SyntheticContext(int64_t token_count, uint32_t seed, bool calibrate, bool latent)
    : kv(SmallGeometry(latent), token_count) {
  identity.model = "synthetic@1";
  std::mt19937 random(seed);
  const MutableKvView view = kv.mutable_view();
  const KvGeometry geometry = SmallGeometry(latent);
  for (int64_t token = 0; token < token_count; ++token) {
    tokens.push_back(static_cast<int32_t>(random() % 1000));
    for (const auto* tensors : {&view.keys, &view.values}) {
      for (const MutableKvTensor& tensor : *tensors) {
        for (int i = 0; i < geometry.kv_heads * geometry.head_size; ++i) {
          // Sum of uniforms: near enough to a normal variable, and the same on every machine.
          float value = -3;
          for (int k = 0; k < 6; ++k) value += static_cast<float>(random() >> 8) / (1 << 24);
          tensor.at(token, 0)[i] = ToF16(value + 0.25f);
        }
      }
    }
  }
  CalibrationOptions options;
  options.chunk_tokens = kChunkTokens;
  const KvView sample = kv.view();
  profile = Must(BuildProfile(
      geometry, calibrate ? absl::MakeConstSpan(&sample, 1) : absl::Span<const KvView>(), {},
      options));
  chunk_ids = ContextChunkIds(identity, profile->id(), kChunkTokens, tokens);
}

int64_t SyntheticContext::ChunkTokens(uint32_t chunk) const {
  return std::min<int64_t>(kChunkTokens,
                           static_cast<int64_t>(tokens.size()) - chunk * kChunkTokens);
}

std::vector<EncodedChunk> SyntheticContext::Encode() const {
  std::vector<EncodedChunk> chunks;
  const auto encoder = Must(ChunkEncoder::Create(profile));
  const KvView all = kv.view();
  for (uint32_t chunk = 0; chunk < chunk_ids.size(); ++chunk) {
    const int64_t first = chunk * kChunkTokens;
    chunks.push_back(Must(encoder->Encode(all.Slice(first, ChunkTokens(chunk)), first)));
  }
  return chunks;
}

KvBlock SyntheticContext::Expected(const std::vector<int>& levels) const {
  KvBlock out(profile->geometry(), static_cast<int64_t>(tokens.size()));
  const std::vector<EncodedChunk> chunks = Encode();
  const auto decoder = Must(ChunkDecoder::Create(profile));
  for (uint32_t chunk = 0; chunk < chunks.size(); ++chunk) {
    const int64_t first = chunk * kChunkTokens;
    if (levels[chunk] < 0) {
      out.CopyTokens(kv, first, ChunkTokens(chunk));
      continue;
    }
    std::vector<absl::string_view> segments;
    for (int level = 0; level <= levels[chunk]; ++level) {
      segments.push_back(chunks[chunk].segments[level]);
    }
    const absl::Status status =
        decoder->Decode(segments, out.mutable_view().Slice(first, ChunkTokens(chunk)));
    if (!status.ok()) Must(absl::StatusOr<int>(status));
  }
  return out;
}

}  // namespace kvstream

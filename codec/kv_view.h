// Borrowed views of KV caches in host memory.
#ifndef KVSTREAM_CODEC_KV_VIEW_H_
#define KVSTREAM_CODEC_KV_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvstream {

// One layer's keys or values of some tokens: element [token][head][channel] is a 16-bit float
// (dtype as the geometry says) at data[token * token_stride + head * head_stride + channel].
// Strides are in elements; channels are contiguous.
template <typename T>
struct BasicKvTensor {
  T* data = nullptr;
  ptrdiff_t token_stride = 0;
  ptrdiff_t head_stride = 0;

  T* at(int64_t token, int head) const { return data + token * token_stride + head * head_stride; }
};

// KV of `tokens` consecutive tokens of a context, in host memory that the caller owns and keeps for
// as long as the view is used. Keys are after RoPE, as serving engines cache them. Where a layer
// has one latent tensor (KvGeometry::planes 1), it stands in `keys`, and `values` is empty.
template <typename T>
struct BasicKvView {
  int64_t tokens = 0;
  std::vector<BasicKvTensor<T>> keys;    // one per layer
  std::vector<BasicKvTensor<T>> values;  // one per layer, or none

  // The view of tokens [first, first + count). Precondition: first + count <= tokens.
  BasicKvView Slice(int64_t first, int64_t count) const {
    BasicKvView out = *this;
    out.tokens = count;
    for (auto* tensors : {&out.keys, &out.values}) {
      for (BasicKvTensor<T>& tensor : *tensors) tensor.data += first * tensor.token_stride;
    }
    return out;
  }
};

using KvTensor = BasicKvTensor<const uint16_t>;
using KvView = BasicKvView<const uint16_t>;
using MutableKvTensor = BasicKvTensor<uint16_t>;
using MutableKvView = BasicKvView<uint16_t>;

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_KV_VIEW_H_

// Borrowed views of KV caches in device memory. No CUDA type appears here, so that code without
// CUDA can name them.
#ifndef KVSTREAM_CODEC_CUDA_DEVICE_VIEW_H_
#define KVSTREAM_CODEC_CUDA_DEVICE_VIEW_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace kvstream {

// What of a model lies on one device. Defaults: all of it.
struct DeviceShard {
  int first_layer = 0;
  int layers = 0;  // 0: all from first_layer on (pipeline parallelism takes a range)
  int first_head = 0;
  int heads = 0;  // KV heads; 0: all from first_head on (tensor parallelism takes a range)
};

// One layer's keys or values of some tokens in device memory: element [token][head][channel] is a
// 16-bit float (dtype as the profile's geometry says) at data_dev[token * token_stride + head *
// head_stride + channel]. Strides are in elements; channels are contiguous. The address is a
// multiple of 2 bytes; where it and the strides are multiples of 4 bytes, stores are wider.
struct DeviceKvTensor {
  void* data_dev = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

// KV of `tokens` consecutive tokens of a context, in device memory that the caller owns. Layers and
// heads are those of the decoder's (encoder's) ranges: entry 0 is layer first_layer, head 0 is
// first_head. Keys are after RoPE.
struct DeviceKvView {
  int64_t tokens = 0;
  std::vector<DeviceKvTensor> keys;    // one per layer; of the latents for a model with one plane
  std::vector<DeviceKvTensor> values;  // one per layer; empty for a model with one plane (MLA)
};

// How a serving engine arranges one layer's paged cache. NHD: tokens of a block outside of heads;
// HND: heads outside.
enum class PagedLayout {
  // [2][num_blocks][block_size][kv_heads][head_size]: vLLM, FlashAttention backend.
  kPlaneMajorNhd,
  // [2][num_blocks][kv_heads][block_size][head_size]
  kPlaneMajorHnd,
  // [num_blocks][2][block_size][kv_heads][head_size]: vLLM, FlashInfer backend.
  kBlockMajorNhd,
  // [num_blocks][2][kv_heads][block_size][head_size]: the same with VLLM_KV_CACHE_LAYOUT=HND.
  kBlockMajorHnd,
  // [num_blocks][block_size][head_size]: one latent a token (MLA).
  kLatent,
};

struct PagedKvLayer {
  void* keys_dev = nullptr;    // element [block 0][token 0][head 0][channel 0] of the keys
  void* values_dev = nullptr;  // of the values; null for a model with one plane
};

// A paged cache: token t of the view lies in block block_table_dev[t / block_size] at place t %
// block_size. Element [block][place][head][channel] is at block * block_stride + place *
// token_stride
// + head * head_stride + channel from the layer's pointer, strides in elements.
struct PagedKvView {
  std::vector<PagedKvLayer> layers;
  int64_t num_blocks = 0;  // of the cache; an entry of the table outside is reported, not followed
  int64_t block_size = 0;  // tokens
  int64_t block_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  const int32_t* block_table_dev = nullptr;  // [block_table_entries], read when the work runs
  int64_t block_table_entries = 0;
};

// The view of a cache in one of the engine's layouts. caches_dev: per layer the start of its
// contiguous cache. kv_heads: of this device. Errors: INVALID_ARGUMENT for sizes below 1 or a null
// pointer.
absl::StatusOr<PagedKvView> MakePagedKvView(PagedLayout layout, absl::Span<void* const> caches_dev,
                                            int64_t num_blocks, int64_t block_size,
                                            int64_t kv_heads, int64_t head_size,
                                            const int32_t* block_table_dev,
                                            int64_t block_table_entries);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_DEVICE_VIEW_H_

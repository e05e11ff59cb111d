#include "codec/cuda/device_view.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace kvstream {

absl::StatusOr<PagedKvView> MakePagedKvView(PagedLayout layout, absl::Span<void* const> caches_dev,
                                            int64_t num_blocks, int64_t block_size,
                                            int64_t kv_heads, int64_t head_size,
                                            const int32_t* block_table_dev,
                                            int64_t block_table_entries) {
  if (num_blocks < 1 || block_size < 1 || kv_heads < 1 || head_size < 1 ||
      block_table_entries < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "paged cache: ", num_blocks, " blocks of ", block_size, " tokens, ", kv_heads, " heads of ",
        head_size, " and a table of ", block_table_entries, " are no sizes"));
  }
  if (layout == PagedLayout::kLatent && kv_heads != 1)
    return absl::InvalidArgumentError("paged cache: a latent cache has one head");
  if (block_table_dev == nullptr && block_table_entries > 0)
    return absl::InvalidArgumentError("paged cache: the block table is null");
  PagedKvView out;
  const bool heads_outside =
      layout == PagedLayout::kPlaneMajorHnd || layout == PagedLayout::kBlockMajorHnd;
  const bool blocks_outside =
      layout == PagedLayout::kBlockMajorNhd || layout == PagedLayout::kBlockMajorHnd;
  const int64_t block = block_size * kv_heads * head_size;  // of one plane
  out.num_blocks = num_blocks;
  out.block_size = block_size;
  out.block_stride = blocks_outside ? 2 * block : block;
  out.token_stride = heads_outside ? head_size : kv_heads * head_size;
  out.head_stride = heads_outside ? block_size * head_size : head_size;
  out.block_table_dev = block_table_dev;
  out.block_table_entries = block_table_entries;
  const int64_t plane = blocks_outside ? block : num_blocks * block;
  for (void* cache : caches_dev) {
    if (cache == nullptr) return absl::InvalidArgumentError("paged cache: a layer's cache is null");
    PagedKvLayer layer;
    layer.keys_dev = cache;
    if (layout != PagedLayout::kLatent) layer.values_dev = static_cast<uint16_t*>(cache) + plane;
    out.layers.push_back(layer);
  }
  return out;
}

}  // namespace kvstream

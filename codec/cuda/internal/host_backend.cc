#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "codec/cuda/internal/backend.h"
#include "codec/cuda/internal/encode_tile.h"
#include "codec/cuda/internal/encode_warp.h"
#include "codec/cuda/internal/entropy_warp.h"
#include "codec/cuda/internal/epilogue.h"
#include "codec/cuda/internal/matrix_tile.h"
#include "codec/cuda/internal/rows.h"

namespace kvstream {
namespace cuda {
namespace {

absl::StatusOr<void*> AllocateHost(size_t bytes) {
  void* const at = std::aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
  if (at == nullptr)
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes"));
  // Nothing may count on fresh memory being zero.
  std::memset(at, 0xa5, bytes);
  return at;
}

template <typename Cell>
void RunLevel(const BatchDev& batch, const LevelDev& level) {
  const HostWarp warp;
  BaseTableDev table;
  for (uint32_t i = 0; i < level.task_count; ++i) {
    if (level.level == 0) {
      RunTask<Cell, true>(warp, batch, level, i, &table);
    } else {
      RunTask<Cell, false>(warp, batch, level, i, &table);
    }
  }
  for (uint32_t i = 0; i < level.exception_count; ++i) ApplyException<Cell>(batch, level, i);
}

template <typename Cell>
void DequantiseAll(const BatchDev& batch, uint32_t chunk) {
  for (int group = 0; group < batch.profile.group_count; ++group) {
    if (batch.profile.groups[group].slots == 0) continue;
    const uint32_t count =
        batch.row_counts[static_cast<uint64_t>(chunk) * batch.profile.group_count + group];
    for (uint32_t row = 0; row < count; ++row) {
      for (int first = 0; first < batch.chunks[chunk].tokens; first += 8)
        Dequantise8<Cell>(batch, chunk, group, row, first);
    }
  }
}

// The transform kernel, barrier by barrier.
void TransformTile(const BatchDev& batch, const TilePlace& place) {
  const HostWarp warp;
  const int tokens = std::min(kTileTokens, batch.chunks[place.chunk].tokens - place.first_token);
  if (tokens <= 0) return;
  const uint32_t* const list = RowListOf(batch, place.chunk, place.group);
  const int count = static_cast<int>(
      batch.row_counts[static_cast<uint64_t>(place.chunk) * batch.profile.group_count +
                       place.group]);
  auto memory = absl::make_unique<TileMemory>();
  std::vector<WarpSums> sums(kTileWarps);
  for (WarpSums& sum : sums) ClearSums(warp, &sum);
  for (int k = 0; k < count; k += kTileRows) {
    TileStage& stage = memory->stages[k / kTileRows % kTileStages];
    for (int thread = 0; thread < kTileThreads; ++thread)
      LoadStage(batch, place, count, k, LoadStageRows(list, count, k, thread), thread, &stage);
    for (int index = 0; index < kTileWarps; ++index)
      MultiplyStage(warp, index, stage, &sums[index]);
  }
  for (int index = 0; index < kTileWarps; ++index)
    StoreSums(warp, index, sums[index], memory->tile);
  for (int thread = 0; thread < kTileThreads; ++thread)
    FinishTile(batch, place, tokens, 1 / kOperandScale, thread, memory->tile);
}

template <typename Cell>
void IdentityTile(const BatchDev& batch, const TilePlace& place) {
  const int tokens =
      std::min(kIdentityTokens, batch.chunks[place.chunk].tokens - place.first_token);
  if (tokens <= 0) return;
  std::vector<float> tile(kIdentityTokens * kTileStride);
  for (int thread = 0; thread < kTileThreads; ++thread)
    FillIdentityTile<Cell>(batch, place, thread, tile.data());
  for (int thread = 0; thread < kTileThreads; ++thread)
    FinishTile(batch, place, tokens, 1.0f, thread, tile.data());
}

void NormaliseTiles(const EncodeDev& encode, uint32_t chunk) {
  std::vector<float> tile(kLoadTokens * kTileStride);
  for (int slot = 0; slot < encode.batch.profile.slot_count; slot += kTileSlots) {
    for (int token = 0; token < encode.batch.chunks[chunk].tokens; token += kLoadTokens) {
      const TilePlace place = {chunk, 0, slot, token};
      for (int thread = 0; thread < kTileThreads; ++thread)
        LoadKvTile(encode, place, thread, tile.data());
      for (int thread = 0; thread < kTileThreads; ++thread)
        NormaliseTile(encode, place, thread, tile.data());
    }
  }
}

// The forward transform's kernel, barrier by barrier.
void ForwardTile(const EncodeDev& encode, const TilePlace& place) {
  const HostWarp warp;
  auto memory = absl::make_unique<ForwardMemory>();
  std::vector<WarpSums> sums(kTileWarps);
  for (WarpSums& sum : sums) ClearSums(warp, &sum);
  for (int k = 0; k < 2 * encode.batch.profile.groups[place.group].slots; k += kTileRows) {
    ForwardStage& stage = memory->stages[k / kTileRows % kTileStages];
    for (int thread = 0; thread < kTileThreads; ++thread)
      LoadForwardStage(encode, place, k, thread, &stage);
    for (int index = 0; index < kTileWarps; ++index)
      MultiplyForwardStage(warp, index, stage, &sums[index]);
  }
  for (int index = 0; index < kTileWarps; ++index)
    StoreSums(warp, index, sums[index], memory->tile);
  for (int thread = 0; thread < kTileThreads; ++thread)
    QuantiseTile(encode, place, thread, memory->tile);
}

class HostBackend : public Backend {
 public:
  int Enter() override { return 0; }
  void Leave(int) override {}
  absl::StatusOr<void*> Allocate(size_t bytes) override { return AllocateHost(bytes); }
  void Free(void* at_dev) override { std::free(at_dev); }
  absl::StatusOr<void*> AllocatePinned(size_t bytes) override { return AllocateHost(bytes); }
  void FreePinned(void* at) override { std::free(at); }

  absl::Status Upload(void* to_dev, const void* from, size_t bytes, void*) override {
    if (bytes > 0) std::memcpy(to_dev, from, bytes);
    return absl::OkStatus();
  }
  absl::Status Download(void* to, const void* from_dev, size_t bytes, void*) override {
    if (bytes > 0) std::memcpy(to, from_dev, bytes);
    return absl::OkStatus();
  }
  absl::Status Clear(void* at_dev, size_t bytes, void*) override {
    std::memset(at_dev, 0, bytes);
    return absl::OkStatus();
  }
  absl::Status Synchronize(void*) override { return absl::OkStatus(); }
  absl::StatusOr<void*> CreateEvent() override { return nullptr; }
  void DestroyEvent(void*) override {}
  absl::Status Record(void*, void*) override { return absl::OkStatus(); }
  absl::Status Wait(void*) override { return absl::OkStatus(); }
  absl::StatusOr<bool> Done(void*) override { return true; }

  absl::Status PrepareRotation(const BatchDev& batch, void*) override {
    for (int chunk = 0; chunk < batch.chunk_count; ++chunk) {
      for (int token = 0; token < batch.chunks[chunk].tokens; ++token) {
        for (int pair = 0; pair < batch.profile.pairs; ++pair) Rotation(batch, chunk, token, pair);
      }
    }
    return absl::OkStatus();
  }
  absl::Status DecodeLevel(const BatchDev& batch, const LevelDev& level, void*) override {
    if (batch.wide != 0) {
      RunLevel<int32_t>(batch, level);
    } else {
      RunLevel<int16_t>(batch, level);
    }
    return absl::OkStatus();
  }
  absl::Status StoreExactTokens(const BatchDev& batch, void*) override {
    for (int chunk = 0; chunk < batch.chunk_count; ++chunk) {
      for (int sink = 0; sink < batch.chunks[chunk].sinks; ++sink) {
        for (int slot = 0; slot < batch.profile.slot_count; ++slot)
          StoreExact(batch, chunk, sink, slot);
      }
    }
    return absl::OkStatus();
  }
  absl::Status Reconstruct(const BatchDev& batch, void*) override {
    for (int chunk = 0; chunk < batch.chunk_count; ++chunk) {
      if (batch.calibrated != 0) {
        for (int group = 0; group < batch.profile.group_count; ++group)
          ListRows(HostWarp(), batch, chunk, group);
        if (batch.wide != 0) {
          DequantiseAll<int32_t>(batch, chunk);
        } else {
          DequantiseAll<int16_t>(batch, chunk);
        }
      }
      const int step = batch.calibrated != 0 ? kTileTokens : kIdentityTokens;
      for (int slot = 0; slot < batch.profile.slot_count; slot += kTileSlots) {
        for (int token = 0; token < batch.chunks[chunk].tokens; token += step) {
          const TilePlace place = {static_cast<uint32_t>(chunk),
                                   batch.profile.tile_group[slot / kTileSlots], slot, token};
          if (batch.calibrated != 0) {
            TransformTile(batch, place);
          } else if (batch.wide != 0) {
            IdentityTile<int32_t>(batch, place);
          } else {
            IdentityTile<int16_t>(batch, place);
          }
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status Quantise(const EncodeDev& encode, void*) override {
    for (uint32_t chunk = 0; chunk < static_cast<uint32_t>(encode.batch.chunk_count); ++chunk) {
      const ChunkDev& info = encode.batch.chunks[chunk];
      for (int sink = 0; sink < info.sinks; ++sink) {
        for (int slot = 0; slot < encode.batch.profile.slot_count; ++slot)
          GatherExact(encode, chunk, sink, slot);
      }
      NormaliseTiles(encode, chunk);
      for (int tile = 0; tile < encode.tile_count; ++tile) {
        for (int token = 0; token < info.tokens; token += kTileTokens) {
          ForwardTile(encode, {chunk, encode.tiles[tile].group, encode.tiles[tile].first, token});
        }
      }
      for (int32_t i = 0; i < encode.batch.profile.coordinates; ++i)
        MeasureRow(HostWarp(), encode, chunk, static_cast<uint32_t>(i));
    }
    return absl::OkStatus();
  }
  absl::Status EncodeBlocks(const EncodeDev& encode, const EncodeBlocksDev& blocks,
                            void*) override {
    for (uint32_t chunk = 0; chunk < static_cast<uint32_t>(encode.batch.chunk_count); ++chunk) {
      for (int32_t i = 0; i < encode.batch.profile.coordinates; ++i)
        WriteExceptions(HostWarp(), encode, blocks, chunk, static_cast<uint32_t>(i));
    }
    for (uint32_t i = 0; i < blocks.task_count; ++i) EncodeTask(HostWarp(), encode, blocks, i);
    return absl::OkStatus();
  }
};

}  // namespace

std::shared_ptr<Backend> CreateHostBackend() { return std::make_shared<HostBackend>(); }

}  // namespace cuda
}  // namespace kvstream

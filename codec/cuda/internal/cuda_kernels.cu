// Thin kernels around the code that they share with the host backend.
#include <cuda_runtime.h>

#include "codec/cuda/internal/cuda_kernels.h"
#include "codec/cuda/internal/entropy_warp.h"
#include "codec/cuda/internal/epilogue.h"
#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/matrix_tile.h"
#include "codec/cuda/internal/rows.h"

namespace kvstream {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

__device__ __forceinline__ int64_t GlobalThread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

unsigned BlocksFor(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

__global__ void __launch_bounds__(kThreads) RotationKernel(const BatchDev batch) {
  const int64_t index = GlobalThread();
  const int pairs = batch.profile.pairs;
  const int pair = static_cast<int>(index % pairs);
  const int token = static_cast<int>(index / pairs % batch.tokens_max);
  const int64_t chunk = index / pairs / batch.tokens_max;
  if (chunk >= batch.chunk_count || token >= batch.chunks[chunk].tokens) return;
  Rotation(batch, static_cast<uint32_t>(chunk), token, pair);
}

// One warp a task. The tables of level 0 take 41 KB of shared memory; other levels need none.
template <typename Cell, bool kBase>
__global__ void __launch_bounds__(kThreads)
    LevelKernel(const BatchDev batch, const LevelDev level) {
  __shared__ BaseTableDev tables[kBase ? kWarps : 1];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const uint32_t task = blockIdx.x * kWarps + warp;
  if (task >= level.task_count) return;
  RunTask<Cell, kBase>(DeviceWarp(), batch, level, task, &tables[kBase ? warp : 0]);
}

template <typename Cell>
__global__ void __launch_bounds__(kThreads)
    ExceptionKernel(const BatchDev batch, const LevelDev level) {
  const int64_t index = GlobalThread();
  if (index < level.exception_count)
    ApplyException<Cell>(batch, level, static_cast<uint32_t>(index));
}

__global__ void __launch_bounds__(kThreads) ExactKernel(const BatchDev batch) {
  const int64_t index = GlobalThread();
  const int slot = static_cast<int>(index % batch.profile.slot_count);
  const int sink = static_cast<int>(index / batch.profile.slot_count % batch.sinks_max);
  const int64_t chunk = index / batch.profile.slot_count / batch.sinks_max;
  if (chunk >= batch.chunk_count || sink >= batch.chunks[chunk].sinks) return;
  StoreExact(batch, static_cast<uint32_t>(chunk), sink, slot);
}

__global__ void __launch_bounds__(kThreads) ListRowsKernel(const BatchDev batch) {
  const int64_t index = GlobalThread() / kWarp;
  const int64_t chunk = index / batch.profile.group_count;
  if (chunk >= batch.chunk_count) return;
  ListRows(DeviceWarp(), batch, static_cast<uint32_t>(chunk),
           static_cast<int>(index % batch.profile.group_count));
}

// Warps of a block take the rows of one group of one chunk in turn, 8 tokens a lane.
template <typename Cell>
__global__ void __launch_bounds__(kThreads) DequantiseKernel(const BatchDev batch) {
  const uint32_t chunk = blockIdx.z;
  const int tokens = batch.chunks[chunk].tokens;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int group = blockIdx.y; group < batch.profile.group_count; group += gridDim.y) {
    if (batch.profile.groups[group].slots == 0) continue;
    const uint32_t count =
        batch.row_counts[static_cast<uint64_t>(chunk) * batch.profile.group_count + group];
    for (uint32_t row = blockIdx.x * kWarps + warp; row < count; row += gridDim.x * kWarps) {
      for (int first = lane * 8; first < tokens; first += kWarp * 8)
        Dequantise8<Cell>(batch, chunk, group, row, first);
    }
  }
}

// Block x: a tile of slots, and within it all tiles of tokens of all chunks, so that blocks that
// run together read the same part of the transform.
__device__ __forceinline__ TilePlace PlaceOfBlock(const BatchDev& batch, int tokens) {
  const unsigned token_tiles = (batch.tokens_max + tokens - 1) / tokens;
  const unsigned across = token_tiles * batch.chunk_count;
  const unsigned tile = blockIdx.x / across;
  const unsigned rest = blockIdx.x % across;
  TilePlace place;
  place.chunk = rest / token_tiles;
  place.group = batch.profile.tile_group[tile];
  place.first_slot = static_cast<int>(tile) * kTileSlots;
  place.first_token = static_cast<int>(rest % token_tiles) * tokens;
  return place;
}

__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__global__ void __launch_bounds__(kTileThreads, 2) TransformKernel(const BatchDev batch) {
  extern __shared__ __align__(16) unsigned char shared[];
  TileMemory* const memory = reinterpret_cast<TileMemory*>(shared);
  const TilePlace place = PlaceOfBlock(batch, kTileTokens);
  const int tokens = min(kTileTokens, batch.chunks[place.chunk].tokens - place.first_token);
  if (tokens <= 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp;
  const uint32_t* const list = RowListOf(batch, place.chunk, place.group);
  const int count = static_cast<int>(
      batch.row_counts[static_cast<uint64_t>(place.chunk) * batch.profile.group_count +
                       place.group]);
  const int steps = (count + kTileRows - 1) / kTileRows;

  // The list is read one stage ahead of the copies that it directs.
  StageRows rows = LoadStageRows(list, count, 0, thread);
  for (int stage = 0; stage < kTileStages - 1; ++stage) {
    if (stage < steps)
      LoadStage(batch, place, count, stage * kTileRows, rows, thread, &memory->stages[stage]);
    CommitCopies();
    rows = LoadStageRows(list, count, (stage + 1) * kTileRows, thread);
  }
  WarpSums sums;
  ClearSums(DeviceWarp(), &sums);
  for (int step = 0; step < steps; ++step) {
    WaitCopies<kTileStages - 2>();
    // This stage has arrived for all threads, and all are done with the one that is loaded next.
    __syncthreads();
    const int next = step + kTileStages - 1;
    if (next < steps) {
      LoadStage(batch, place, count, next * kTileRows, rows, thread,
                &memory->stages[next % kTileStages]);
      rows = LoadStageRows(list, count, (next + 1) * kTileRows, thread);
    }
    CommitCopies();
    MultiplyStage(DeviceWarp(), warp, memory->stages[step % kTileStages], &sums);
  }
  WaitCopies<0>();
  __syncthreads();
  StoreSums(DeviceWarp(), warp, sums, memory->tile);
  __syncthreads();
  FinishTile(batch, place, tokens, 1 / kOperandScale, thread, memory->tile);
}

template <typename Cell>
__global__ void __launch_bounds__(kTileThreads) IdentityKernel(const BatchDev batch) {
  __shared__ float tile[kIdentityTokens * kTileStride];
  const TilePlace place = PlaceOfBlock(batch, kIdentityTokens);
  const int tokens = min(kIdentityTokens, batch.chunks[place.chunk].tokens - place.first_token);
  if (tokens <= 0) return;
  FillIdentityTile<Cell>(batch, place, static_cast<int>(threadIdx.x), tile);
  __syncthreads();
  FinishTile(batch, place, tokens, 1.0f, static_cast<int>(threadIdx.x), tile);
}

template <typename Cell>
void LaunchLevelOf(const BatchDev& batch, const LevelDev& level, cudaStream_t stream) {
  const unsigned blocks = (level.task_count + kWarps - 1) / kWarps;
  if (blocks > 0 && level.level == 0) {
    LevelKernel<Cell, true><<<blocks, kThreads, 0, stream>>>(batch, level);
  } else if (blocks > 0) {
    LevelKernel<Cell, false><<<blocks, kThreads, 0, stream>>>(batch, level);
  }
  if (level.exception_count > 0)
    ExceptionKernel<Cell><<<BlocksFor(level.exception_count), kThreads, 0, stream>>>(batch, level);
}

}  // namespace

int ConfigureKernels() {
  return cudaFuncSetAttribute(TransformKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              sizeof(TileMemory));
}

int LaunchRotation(const BatchDev& batch, void* stream) {
  const int64_t threads =
      static_cast<int64_t>(batch.chunk_count) * batch.tokens_max * batch.profile.pairs;
  RotationKernel<<<BlocksFor(threads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(batch);
  return cudaGetLastError();
}

int LaunchLevel(const BatchDev& batch, const LevelDev& level, void* stream) {
  if (batch.wide != 0) {
    LaunchLevelOf<int32_t>(batch, level, static_cast<cudaStream_t>(stream));
  } else {
    LaunchLevelOf<int16_t>(batch, level, static_cast<cudaStream_t>(stream));
  }
  return cudaGetLastError();
}

int LaunchExactTokens(const BatchDev& batch, void* stream) {
  const int64_t threads =
      static_cast<int64_t>(batch.chunk_count) * batch.sinks_max * batch.profile.slot_count;
  if (threads == 0) return cudaSuccess;
  ExactKernel<<<BlocksFor(threads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(batch);
  return cudaGetLastError();
}

int LaunchReconstruct(const BatchDev& batch, void* stream_pointer) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_pointer);
  const int64_t tiles = batch.profile.slot_count / kTileSlots;
  if (tiles == 0) return cudaSuccess;
  if (batch.calibrated == 0) {
    const int64_t across = static_cast<int64_t>(batch.tokens_max + kIdentityTokens - 1) /
                           kIdentityTokens * batch.chunk_count;
    const unsigned blocks = static_cast<unsigned>(tiles * across);
    if (batch.wide != 0) {
      IdentityKernel<int32_t><<<blocks, kTileThreads, 0, stream>>>(batch);
    } else {
      IdentityKernel<int16_t><<<blocks, kTileThreads, 0, stream>>>(batch);
    }
    return cudaGetLastError();
  }
  const int64_t lists = static_cast<int64_t>(batch.chunk_count) * batch.profile.group_count;
  ListRowsKernel<<<BlocksFor(lists * kWarp), kThreads, 0, stream>>>(batch);
  // Some thousand blocks, however the coordinates are cut into groups.
  const int groups = batch.profile.group_count < 65535 ? batch.profile.group_count : 65535;
  const int64_t rows_of_group = batch.profile.coordinates / batch.profile.group_count + 1;
  const unsigned across = static_cast<unsigned>((rows_of_group + 4 * kWarps - 1) / (4 * kWarps));
  const dim3 grid(across, static_cast<unsigned>(groups), static_cast<unsigned>(batch.chunk_count));
  if (batch.wide != 0) {
    DequantiseKernel<int32_t><<<grid, kThreads, 0, stream>>>(batch);
  } else {
    DequantiseKernel<int16_t><<<grid, kThreads, 0, stream>>>(batch);
  }
  const int64_t token_tiles = (batch.tokens_max + kTileTokens - 1) / kTileTokens;
  const unsigned blocks = static_cast<unsigned>(tiles * token_tiles * batch.chunk_count);
  TransformKernel<<<blocks, kTileThreads, sizeof(TileMemory), stream>>>(batch);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace kvstream

// Thin kernels around the encoder's code that they share with the host backend.
#include <cuda_runtime.h>

#include "codec/cuda/internal/cuda_kernels.h"
#include "codec/cuda/internal/encode_tile.h"
#include "codec/cuda/internal/encode_warp.h"

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

__global__ void __launch_bounds__(kThreads) GatherExactKernel(const EncodeDev encode) {
  const int64_t index = GlobalThread();
  const BatchDev& batch = encode.batch;
  const int slot = static_cast<int>(index % batch.profile.slot_count);
  const int sink = static_cast<int>(index / batch.profile.slot_count % batch.sinks_max);
  const int64_t chunk = index / batch.profile.slot_count / batch.sinks_max;
  if (chunk >= batch.chunk_count || sink >= batch.chunks[chunk].sinks) return;
  GatherExact(encode, static_cast<uint32_t>(chunk), sink, slot);
}

// Block (x: tile of slots, y: run of tokens, z: chunk).
__global__ void __launch_bounds__(kTileThreads) NormaliseKernel(const EncodeDev encode) {
  __shared__ float tile[kLoadTokens * kTileStride];
  const TilePlace place = {blockIdx.z, 0, static_cast<int>(blockIdx.x) * kTileSlots,
                           static_cast<int>(blockIdx.y) * kLoadTokens};
  LoadKvTile(encode, place, static_cast<int>(threadIdx.x), tile);
  __syncthreads();
  NormaliseTile(encode, place, static_cast<int>(threadIdx.x), tile);
}

// Block x: a tile of coordinates, and within it all tiles of tokens of all chunks.
__global__ void __launch_bounds__(kTileThreads, 2) ForwardKernel(const EncodeDev encode) {
  extern __shared__ __align__(16) unsigned char shared[];
  ForwardMemory* const memory = reinterpret_cast<ForwardMemory*>(shared);
  const BatchDev& batch = encode.batch;
  const unsigned token_tiles = (batch.tokens_max + kTileTokens - 1) / kTileTokens;
  const unsigned across = token_tiles * batch.chunk_count;
  const CoordinateTileDev tile = encode.tiles[blockIdx.x / across];
  const unsigned rest = blockIdx.x % across;
  TilePlace place;
  place.chunk = rest / token_tiles;
  place.group = tile.group;
  place.first_slot = tile.first;
  place.first_token = static_cast<int>(rest % token_tiles) * kTileTokens;
  if (place.first_token >= batch.chunks[place.chunk].tokens) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp;
  const int steps = 2 * batch.profile.groups[place.group].slots / kTileRows;
  for (int stage = 0; stage < kTileStages - 1; ++stage) {
    if (stage < steps)
      LoadForwardStage(encode, place, stage * kTileRows, thread, &memory->stages[stage]);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  WarpSums sums;
  ClearSums(DeviceWarp(), &sums);
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kTileStages - 2) : "memory");
    __syncthreads();
    const int next = step + kTileStages - 1;
    if (next < steps) {
      LoadForwardStage(encode, place, next * kTileRows, thread,
                       &memory->stages[next % kTileStages]);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
    MultiplyForwardStage(DeviceWarp(), warp, memory->stages[step % kTileStages], &sums);
  }
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();
  StoreSums(DeviceWarp(), warp, sums, memory->tile);
  __syncthreads();
  QuantiseTile(encode, place, thread, memory->tile);
}

__global__ void __launch_bounds__(kThreads) MeasureKernel(const EncodeDev encode) {
  const int64_t index = GlobalThread() / kWarp;
  const int64_t chunk = index / encode.batch.profile.coordinates;
  if (chunk >= encode.batch.chunk_count) return;
  MeasureRow(DeviceWarp(), encode, static_cast<uint32_t>(chunk),
             static_cast<uint32_t>(index % encode.batch.profile.coordinates));
}

__global__ void __launch_bounds__(kThreads)
    WriteExceptionsKernel(const EncodeDev encode, const EncodeBlocksDev blocks) {
  const int64_t index = GlobalThread() / kWarp;
  const int64_t chunk = index / encode.batch.profile.coordinates;
  if (chunk >= encode.batch.chunk_count) return;
  WriteExceptions(DeviceWarp(), encode, blocks, static_cast<uint32_t>(chunk),
                  static_cast<uint32_t>(index % encode.batch.profile.coordinates));
}

__global__ void __launch_bounds__(kThreads)
    EncodeTaskKernel(const EncodeDev encode, const EncodeBlocksDev blocks) {
  const uint32_t task = blockIdx.x * kWarps + threadIdx.x / kWarp;
  if (task < blocks.task_count) EncodeTask(DeviceWarp(), encode, blocks, task);
}

}  // namespace

int ConfigureEncodeKernels() {
  return cudaFuncSetAttribute(ForwardKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              sizeof(ForwardMemory));
}

int LaunchQuantise(const EncodeDev& encode, void* stream_pointer) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_pointer);
  const BatchDev& batch = encode.batch;
  const int64_t chunks = batch.chunk_count;
  if (batch.sinks_max > 0) {
    GatherExactKernel<<<BlocksFor(chunks * batch.sinks_max * batch.profile.slot_count), kThreads, 0,
                        stream>>>(encode);
  }
  if (batch.tokens_max > 0) {
    const dim3 grid(static_cast<unsigned>(batch.profile.slot_count / kTileSlots),
                    static_cast<unsigned>((batch.tokens_max + kLoadTokens - 1) / kLoadTokens),
                    static_cast<unsigned>(chunks));
    NormaliseKernel<<<grid, kTileThreads, 0, stream>>>(encode);
    const int64_t token_tiles = (batch.tokens_max + kTileTokens - 1) / kTileTokens;
    const unsigned blocks = static_cast<unsigned>(encode.tile_count * token_tiles * chunks);
    if (blocks > 0) ForwardKernel<<<blocks, kTileThreads, sizeof(ForwardMemory), stream>>>(encode);
  }
  if (batch.profile.coordinates > 0) {
    MeasureKernel<<<BlocksFor(chunks * batch.profile.coordinates * kWarp), kThreads, 0, stream>>>(
        encode);
  }
  return cudaGetLastError();
}

int LaunchEncodeBlocks(const EncodeDev& encode, const EncodeBlocksDev& blocks,
                       void* stream_pointer) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_pointer);
  const int64_t rows =
      static_cast<int64_t>(encode.batch.chunk_count) * encode.batch.profile.coordinates;
  if (rows > 0)
    WriteExceptionsKernel<<<BlocksFor(rows * kWarp), kThreads, 0, stream>>>(encode, blocks);
  if (blocks.task_count > 0) {
    EncodeTaskKernel<<<(blocks.task_count + kWarps - 1) / kWarps, kThreads, 0, stream>>>(encode,
                                                                                         blocks);
  }
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace kvstream

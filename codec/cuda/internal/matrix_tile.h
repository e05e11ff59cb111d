// The inverse transform of one tile, kTileTokens tokens x kTileSlots slots, by kTileThreads
// threads: out[token][slot] = sum over listed rows k of operand[k][token] * matrix[row of k][slot].
//
// Both operands lie with k outside, so that both come into the matrix unit's registers through
// transposing loads (ldmatrix.trans). The steps of the kernel are functions of the thread or warp;
// the kernel puts barriers between them, the host backend loops, with the matrix unit's
// instructions emulated lane by lane as the PTX manual (mma.m16n8k16, ldmatrix) defines them.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_MATRIX_TILE_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_MATRIX_TILE_H_

#include <cstdint>

#include "codec/cuda/internal/epilogue.h"
#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/lane_math.h"
#include "codec/cuda/internal/rows.h"
#include "codec/cuda/internal/warp.h"

namespace kvstream {
namespace cuda {

constexpr int kTileThreads = 256;
constexpr int kTileWarps = kTileThreads / kWarp;
constexpr int kTileRows = 32;  // rows of k in a stage
constexpr int kTileStages = 4;
// A warp has 32 tokens (2 fragments of 16) x 64 slots (8 of 8).
constexpr int kWarpTokens = 32;
constexpr int kWarpSlots = 64;
constexpr int kFragmentsM = kWarpTokens / 16;
constexpr int kFragmentsN = kWarpSlots / 8;

struct alignas(16) TileStage {
  uint16_t values[kTileRows][kTileStride];   // halves [k][token]
  uint16_t weights[kTileRows][kTileStride];  // halves [k][slot]
};

// Fast memory of the kernel: stages, then the finished tile.
union TileMemory {
  TileStage stages[kTileStages];
  float tile[kTileTokens * kTileStride];
};

struct TilePlace {
  uint32_t chunk;
  int group;
  int first_slot;  // of all slots
  int first_token;
};

// Row list entries that a thread loads in the stage that starts at row k.
struct StageRows {
  uint32_t row[2];
};

KVSTREAM_KERNEL_CODE StageRows LoadStageRows(const uint32_t* list, int count, int k, int thread) {
  StageRows out;
  for (int j = 0; j < 2; ++j) {
    const int row = k + thread / 16 + 16 * j;
    out.row[j] = row < count ? list[row] >> 1 : 0;
  }
  return out;
}

// 16 bytes to fast memory; zeros if there is nothing to copy.
KVSTREAM_KERNEL_CODE void CopyAsync16(uint16_t* to, const uint16_t* from, bool valid) {
#ifdef __CUDACC__
  const uint32_t target = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(bytes)
               : "memory");
#else
  for (int i = 0; i < 8; ++i) to[i] = valid ? from[i] : 0;
#endif
}

KVSTREAM_KERNEL_CODE void LoadStage(const BatchDev& batch, const TilePlace& place, int count, int k,
                                    const StageRows& rows, int thread, TileStage* stage) {
  const GroupDev& group = batch.profile.groups[place.group];
  const uint16_t* const operand = OperandOf(batch, place.chunk, place.group);
  const int column = thread % 16 * 8;
  const bool inside = place.first_token + column < batch.chunks[place.chunk].tokens;
  for (int j = 0; j < 2; ++j) {
    const int row = thread / 16 + 16 * j;
    const bool valid = k + row < count;
    const uint16_t* const values =
        valid && inside
            ? operand + static_cast<uint64_t>(k + row) * batch.stride + place.first_token + column
            : operand;
    CopyAsync16(&stage->values[row][column], values, valid && inside);
    const uint16_t* const weights = batch.profile.matrices + group.matrix_offset +
                                    static_cast<uint64_t>(rows.row[j]) * group.slots +
                                    (place.first_slot - group.first_slot) + column;
    CopyAsync16(&stage->weights[row][column], weights, valid);
  }
}

#ifdef __CUDACC__

struct MatrixUnit {
  using W = DeviceWarp;

  static __device__ __forceinline__ void LoadTransposed(const W::Lanes<const uint16_t*>& address,
                                                        W::Lanes<uint32_t>* out) {
    const uint32_t source = static_cast<uint32_t>(__cvta_generic_to_shared(address.value));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0].value), "=r"(out[1].value), "=r"(out[2].value), "=r"(out[3].value)
                 : "r"(source)
                 : "memory");
  }
  static __device__ __forceinline__ void Load(const W::Lanes<const uint16_t*>& address,
                                              W::Lanes<uint32_t>* out) {
    const uint32_t source = static_cast<uint32_t>(__cvta_generic_to_shared(address.value));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0].value), "=r"(out[1].value), "=r"(out[2].value), "=r"(out[3].value)
                 : "r"(source)
                 : "memory");
  }
  static __device__ __forceinline__ void Multiply(const W::Lanes<uint32_t>* a,
                                                  const W::Lanes<uint32_t>* b, W::Lanes<float>* c) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0].value), "+f"(c[1].value), "+f"(c[2].value), "+f"(c[3].value)
        : "r"(a[0].value), "r"(a[1].value), "r"(a[2].value), "r"(a[3].value), "r"(b[0].value),
          "r"(b[1].value));
  }
};

#else

// PTX's definition of the two instructions.
struct MatrixUnit {
  using W = HostWarp;

  // Four matrices of 8 x 8 halves; lane 8 q + r gives the address of row r of matrix q. Lane l gets
  // of each the elements (2 (l mod 4), l / 4) and (2 (l mod 4) + 1, l / 4).
  static void LoadTransposed(const W::Lanes<const uint16_t*>& address, W::Lanes<uint32_t>* out) {
    for (int q = 0; q < 4; ++q) {
      for (int lane = 0; lane < 32; ++lane) {
        const int row = 2 * (lane % 4);
        const uint32_t low = address[8 * q + row][lane / 4];
        const uint32_t high = address[8 * q + row + 1][lane / 4];
        out[q][lane] = low | high << 16;
      }
    }
  }
  // Likewise, but lane l gets the elements (l / 4, 2 (l mod 4)) and (l / 4, 2 (l mod 4) + 1).
  static void Load(const W::Lanes<const uint16_t*>& address, W::Lanes<uint32_t>* out) {
    for (int q = 0; q < 4; ++q) {
      for (int lane = 0; lane < 32; ++lane) {
        const uint16_t* const row = address[8 * q + lane / 4] + 2 * (lane % 4);
        out[q][lane] = row[0] | static_cast<uint32_t>(row[1]) << 16;
      }
    }
  }
  // c[16 x 8] += a[16 x 16] * b[16 x 8].
  static void Multiply(const W::Lanes<uint32_t>* a, const W::Lanes<uint32_t>* b,
                       W::Lanes<float>* c) {
    float left[16][16];
    float right[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4;
      const int t = lane % 4;
      for (int i = 0; i < 4; ++i) {
        float* const at = &left[g + (i & 1) * 8][2 * t + (i >> 1) * 8];
        at[0] = FromHalf(static_cast<uint16_t>(a[i][lane]));
        at[1] = FromHalf(static_cast<uint16_t>(a[i][lane] >> 16));
      }
      for (int i = 0; i < 2; ++i) {
        right[2 * t + i * 8][g] = FromHalf(static_cast<uint16_t>(b[i][lane]));
        right[2 * t + i * 8 + 1][g] = FromHalf(static_cast<uint16_t>(b[i][lane] >> 16));
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i >> 1) * 8;
        const int column = 2 * (lane % 4) + (i & 1);
        for (int k = 0; k < 16; ++k) c[i][lane] += left[row][k] * right[k][column];
      }
    }
  }
};

#endif

// Sums of one warp: [fragment of tokens][fragment of slots][4].
struct WarpSums {
  MatrixUnit::W::Lanes<float> sum[kFragmentsM][kFragmentsN][4];
};

KVSTREAM_KERNEL_CODE void ClearSums(const MatrixUnit::W& warp, WarpSums* sums) {
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int m = 0; m < kFragmentsM; ++m) {
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int n = 0; n < kFragmentsN; ++n) {
      for (int i = 0; i < 4; ++i) warp.Each([&](int lane) { sums->sum[m][n][i][lane] = 0; });
    }
  }
}

// Adds one stage's products. index: of the warp in the tile.
KVSTREAM_KERNEL_CODE void MultiplyStage(const MatrixUnit::W& warp, int index,
                                        const TileStage& stage, WarpSums* sums) {
  const int token = index % 4 * kWarpTokens;
  const int slot = index / 4 * kWarpSlots;
  MatrixUnit::W::Lanes<const uint16_t*> address;
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int k = 0; k < kTileRows; k += 16) {
    MatrixUnit::W::Lanes<uint32_t> a[kFragmentsM][4];
    MatrixUnit::W::Lanes<uint32_t> b[kFragmentsN / 2][4];
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int m = 0; m < kFragmentsM; ++m) {
      warp.Each([&](int lane) {
        address[lane] =
            &stage.values[k + lane / 16 * 8 + lane % 8][token + m * 16 + lane / 8 % 2 * 8];
      });
      MatrixUnit::LoadTransposed(address, a[m]);
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int n = 0; n < kFragmentsN / 2; ++n) {
      warp.Each([&](int lane) {
        address[lane] =
            &stage.weights[k + lane / 8 % 2 * 8 + lane % 8][slot + n * 16 + lane / 16 * 8];
      });
      MatrixUnit::LoadTransposed(address, b[n]);
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int m = 0; m < kFragmentsM; ++m) {
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int n = 0; n < kFragmentsN; ++n)
        MatrixUnit::Multiply(a[m], b[n / 2] + n % 2 * 2, sums->sum[m][n]);
    }
  }
}

KVSTREAM_KERNEL_CODE void StoreSums(const MatrixUnit::W& warp, int index, const WarpSums& sums,
                                    float* tile) {
  const int token = index % 4 * kWarpTokens;
  const int slot = index / 4 * kWarpSlots;
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int m = 0; m < kFragmentsM; ++m) {
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int n = 0; n < kFragmentsN; ++n) {
      warp.Each([&](int lane) {
        float* const at =
            tile + (token + m * 16 + lane / 4) * kTileStride + slot + n * 8 + lane % 4 * 2;
        at[0] = sums.sum[m][n][0][lane];
        at[1] = sums.sum[m][n][1][lane];
        at[8 * kTileStride] = sums.sum[m][n][2][lane];
        at[8 * kTileStride + 1] = sums.sum[m][n][3][lane];
      });
    }
  }
}

// One thread's share of a finished tile of `tokens` tokens.
KVSTREAM_KERNEL_CODE void FinishTile(const BatchDev& batch, const TilePlace& place, int tokens,
                                     float scale, int thread, const float* tile) {
  const int slot = thread % (kTileSlots / 2) * 2;
  const SlotDev* const slots = batch.profile.slots + place.first_slot;
  const SlotValue first = LoadSlot(batch, place.chunk, slots, slot, scale);
  const SlotValue second = LoadSlot(batch, place.chunk, slots, slot + 1, scale);
  for (int token = thread / (kTileSlots / 2); token < tokens;
       token += kTileThreads / (kTileSlots / 2)) {
    StoreSlots(batch, place.chunk, place.first_token + token, first, second, slot,
               tile + token * kTileStride);
  }
}

// Without calibration: values of cells, tokens place.first_token to + kWarp of one tile of slots,
// in the place of products. One thread's share.
constexpr int kIdentityTokens = kWarp;

template <typename Cell>
KVSTREAM_KERNEL_CODE void FillIdentityTile(const BatchDev& batch, const TilePlace& place,
                                           int thread, float* tile) {
  const ChunkDev& info = batch.chunks[place.chunk];
  const float inverse_power = 1.0f / static_cast<float>(PowerOfThree(info.level));
  const int token = thread % kIdentityTokens;
  for (int slot = thread / kIdentityTokens; slot < kTileSlots;
       slot += kTileThreads / kIdentityTokens) {
    const int channel = batch.profile.slots[place.first_slot + slot].channel;
    float value = 0;
    if (channel >= 0 && place.first_token + token < info.tokens) {
      const int32_t cell = RowOf<Cell>(batch, place.chunk, channel)[place.first_token + token];
      value = ValueOfCell(
          cell, inverse_power,
          batch.profile.shrink[info.level * batch.profile.classes + info.classes[channel]]);
    }
    tile[token * kTileStride + slot] = value;
  }
}

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_MATRIX_TILE_H_

// A warp of 32 lanes: on the device the hardware's, on the host loops. Code written against it is
// the same on both, so that tests without a GPU run what the kernels run.
//
// A value per lane is a `Lanes<T>`; code that differs by lane stands in `Each`, which the device
// runs once in each thread and the host 32 times. Between two calls of `Each` lanes exchange values
// with Ballot, Shuffle and Max, which all lanes call.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_WARP_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_WARP_H_

#include <cstdint>
#include <cstring>

// Code of kernels: device code under nvcc, an inline function elsewhere.
#ifdef __CUDACC__
#define KVSTREAM_KERNEL_CODE __device__ __forceinline__
#else
#define KVSTREAM_KERNEL_CODE inline
#endif

namespace kvstream {
namespace cuda {

KVSTREAM_KERNEL_CODE int CountBits(uint32_t mask) {
#ifdef __CUDACC__
  return __popc(mask);
#else
  return __builtin_popcount(mask);
#endif
}

// Lanes below `lane` in the mask.
KVSTREAM_KERNEL_CODE int CountBelow(uint32_t mask, int lane) {
  return CountBits(mask & ((1u << lane) - 1));
}
// Lanes above `lane` in the mask.
KVSTREAM_KERNEL_CODE int CountAbove(uint32_t mask, int lane) {
  return CountBits(mask & (0xfffffffeu << lane));
}

KVSTREAM_KERNEL_CODE void OrInto(uint32_t* word, uint32_t bits) {
#ifdef __CUDACC__
  atomicOr(word, bits);
#else
  *word |= bits;
#endif
}

KVSTREAM_KERNEL_CODE void MaxInto(uint32_t* word, uint32_t value) {
#ifdef __CUDACC__
  atomicMax(word, value);
#else
  *word = *word < value ? value : *word;
#endif
}

#ifdef __CUDACC__

struct DeviceWarp {
  template <typename T>
  struct Lanes {
    T value;
    __device__ __forceinline__ T& operator[](int) { return value; }
    __device__ __forceinline__ const T& operator[](int) const { return value; }
  };

  template <typename F>
  __device__ __forceinline__ void Each(F f) const {
    f(static_cast<int>(threadIdx.x & 31));
  }
  __device__ __forceinline__ uint32_t Ballot(const Lanes<bool>& lanes) const {
    return __ballot_sync(0xffffffffu, lanes.value);
  }
  // lanes[index[lane] mod 32] in every lane.
  template <typename T>
  __device__ __forceinline__ Lanes<T> Shuffle(const Lanes<T>& lanes,
                                              const Lanes<int>& index) const {
    return {__shfl_sync(0xffffffffu, lanes.value, index.value & 31)};
  }
  template <typename T>
  __device__ __forceinline__ T Broadcast(const Lanes<T>& lanes, int lane) const {
    return __shfl_sync(0xffffffffu, lanes.value, lane);
  }
  __device__ __forceinline__ uint32_t Max(const Lanes<uint32_t>& lanes) const {
    return __reduce_max_sync(0xffffffffu, lanes.value);
  }
  __device__ __forceinline__ float Sum(Lanes<float> lanes) const {
    for (int distance = 16; distance > 0; distance /= 2)
      lanes.value += __shfl_xor_sync(0xffffffffu, lanes.value, distance);
    return lanes.value;
  }
  __device__ __forceinline__ void Sync() const { __syncwarp(); }
};

#else

struct HostWarp {
  template <typename T>
  struct Lanes {
    T value[32];
    T& operator[](int lane) { return value[lane]; }
    const T& operator[](int lane) const { return value[lane]; }
  };

  template <typename F>
  void Each(F f) const {
    for (int lane = 0; lane < 32; ++lane) f(lane);
  }
  uint32_t Ballot(const Lanes<bool>& lanes) const {
    uint32_t mask = 0;
    for (int lane = 0; lane < 32; ++lane) mask |= static_cast<uint32_t>(lanes[lane]) << lane;
    return mask;
  }
  template <typename T>
  Lanes<T> Shuffle(const Lanes<T>& lanes, const Lanes<int>& index) const {
    Lanes<T> out;
    for (int lane = 0; lane < 32; ++lane) out[lane] = lanes[index[lane] & 31];
    return out;
  }
  template <typename T>
  T Broadcast(const Lanes<T>& lanes, int lane) const {
    return lanes[lane];
  }
  uint32_t Max(const Lanes<uint32_t>& lanes) const {
    uint32_t max = 0;
    for (int lane = 0; lane < 32; ++lane) max = lanes[lane] > max ? lanes[lane] : max;
    return max;
  }
  float Sum(const Lanes<float>& lanes) const {
    float sum = 0;
    for (int lane = 0; lane < 32; ++lane) sum += lanes[lane];
    return sum;
  }
  void Sync() const {}
};

#endif

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_WARP_H_

// Launches of the kernels, compiled by nvcc; no CUDA type in the signatures. Each returns a
// cudaError_t, and is asynchronous on the stream (a cudaStream_t). Precondition: the right device
// is current.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_CUDA_KERNELS_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_CUDA_KERNELS_H_

#include "codec/cuda/internal/encode_types.h"
#include "codec/cuda/internal/kernel_types.h"

namespace kvstream {
namespace cuda {

// Once per device and process: lets the kernels use more than 48 KiB of shared memory.
int ConfigureKernels();

int LaunchRotation(const BatchDev& batch, void* stream);
int LaunchLevel(const BatchDev& batch, const LevelDev& level, void* stream);
int LaunchExactTokens(const BatchDev& batch, void* stream);
int LaunchReconstruct(const BatchDev& batch, void* stream);

// encode_kernels.cu.
int ConfigureEncodeKernels();
int LaunchQuantise(const EncodeDev& encode, void* stream);
int LaunchEncodeBlocks(const EncodeDev& encode, const EncodeBlocksDev& blocks, void* stream);

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_CUDA_KERNELS_H_

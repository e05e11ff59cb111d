// What the device decoder and encoder ask of a device. The CUDA backend launches kernels; the host
// backend runs the same code warp by warp in host memory, at once, for tests and machines without a
// GPU ("device" pointers are host pointers there).
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_BACKEND_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_BACKEND_H_

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "codec/cuda/internal/encode_types.h"
#include "codec/cuda/internal/kernel_types.h"

namespace kvstream {
namespace cuda {

// Thread-safe as far as CUDA is: memory and events may be used from any thread. `stream` is the
// caller's; everything that takes one is asynchronous on it. Errors: RESOURCE_EXHAUSTED for memory,
// INTERNAL for every other error of CUDA, with its text.
class Backend {
 public:
  virtual ~Backend() = default;

  // Makes the device current in this thread; Leave gets what Enter gave.
  virtual int Enter() = 0;
  virtual void Leave(int previous) = 0;

  // Device memory, aligned to 256 bytes. Free waits for the device.
  virtual absl::StatusOr<void*> Allocate(size_t bytes) = 0;
  virtual void Free(void* at_dev) = 0;
  virtual absl::StatusOr<void*> AllocatePinned(size_t bytes) = 0;
  virtual void FreePinned(void* at) = 0;

  virtual absl::Status Upload(void* to_dev, const void* from, size_t bytes, void* stream) = 0;
  virtual absl::Status Download(void* to, const void* from_dev, size_t bytes, void* stream) = 0;
  virtual absl::Status Clear(void* at_dev, size_t bytes, void* stream) = 0;
  virtual absl::Status Synchronize(void* stream) = 0;

  virtual absl::StatusOr<void*> CreateEvent() = 0;
  virtual void DestroyEvent(void* event) = 0;
  virtual absl::Status Record(void* event, void* stream) = 0;
  virtual absl::Status Wait(void* event) = 0;
  // True if what was recorded is done.
  virtual absl::StatusOr<bool> Done(void* event) = 0;

  // Fills batch.rotation.
  virtual absl::Status PrepareRotation(const BatchDev& batch, void* stream) = 0;
  // Runs the level's tasks, then its exceptions.
  virtual absl::Status DecodeLevel(const BatchDev& batch, const LevelDev& level, void* stream) = 0;
  virtual absl::Status StoreExactTokens(const BatchDev& batch, void* stream) = 0;
  // From cells to the output: lists rows, dequantises, transforms, stores.
  virtual absl::Status Reconstruct(const BatchDev& batch, void* stream) = 0;

  // From KV (with batch.rotation filled) to cells of the finest level, exact tokens, and what the
  // rows cost and hold of exceptions.
  virtual absl::Status Quantise(const EncodeDev& encode, void* stream) = 0;
  // Blocks and exceptions of all levels.
  virtual absl::Status EncodeBlocks(const EncodeDev& encode, const EncodeBlocksDev& blocks,
                                    void* stream) = 0;
};

// Keeps the backend's device current for a scope.
class DeviceScope {
 public:
  explicit DeviceScope(Backend& backend) : backend_(backend), previous_(backend.Enter()) {}
  ~DeviceScope() { backend_.Leave(previous_); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  Backend& backend_;
  const int previous_;
};

// FAILED_PRECONDITION in a build without CUDA or on too old a device, UNAVAILABLE without a driver
// or device.
absl::StatusOr<std::shared_ptr<Backend>> CreateCudaBackend(int device_ordinal);

std::shared_ptr<Backend> CreateHostBackend();

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_BACKEND_H_

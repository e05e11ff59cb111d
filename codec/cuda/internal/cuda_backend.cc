#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "codec/cuda/internal/backend.h"
#include "codec/cuda/internal/cuda_kernels.h"

namespace kvstream {
namespace cuda {
namespace {

absl::Status StatusOf(int error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const cudaError_t code = static_cast<cudaError_t>(error);
  // An error of a launch is also kept for cudaGetLastError; it must not be blamed on the next one.
  (void)cudaGetLastError();
  const std::string message = absl::StrCat("cuda: ", what, ": ", cudaGetErrorString(code));
  return code == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                           : absl::InternalError(message);
}

cudaStream_t StreamOf(void* stream) { return static_cast<cudaStream_t>(stream); }

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(int ordinal) : ordinal_(ordinal) {}

  int Enter() override {
    int previous = ordinal_;
    (void)cudaGetDevice(&previous);
    if (previous != ordinal_) (void)cudaSetDevice(ordinal_);
    return previous;
  }
  void Leave(int previous) override {
    if (previous != ordinal_) (void)cudaSetDevice(previous);
  }

  absl::StatusOr<void*> Allocate(size_t bytes) override {
    void* out = nullptr;
    absl::Status status =
        StatusOf(cudaMalloc(&out, bytes), absl::StrCat("device memory, ", bytes, " bytes").c_str());
    if (!status.ok()) return status;
    return out;
  }
  void Free(void* at_dev) override { (void)cudaFree(at_dev); }
  absl::StatusOr<void*> AllocatePinned(size_t bytes) override {
    void* out = nullptr;
    absl::Status status = StatusOf(cudaHostAlloc(&out, bytes, cudaHostAllocPortable),
                                   absl::StrCat("pinned memory, ", bytes, " bytes").c_str());
    if (!status.ok()) return status;
    return out;
  }
  void FreePinned(void* at) override { (void)cudaFreeHost(at); }

  absl::Status Upload(void* to_dev, const void* from, size_t bytes, void* stream) override {
    return StatusOf(cudaMemcpyAsync(to_dev, from, bytes, cudaMemcpyHostToDevice, StreamOf(stream)),
                    "copy to the device");
  }
  absl::Status Download(void* to, const void* from_dev, size_t bytes, void* stream) override {
    return StatusOf(cudaMemcpyAsync(to, from_dev, bytes, cudaMemcpyDeviceToHost, StreamOf(stream)),
                    "copy from the device");
  }
  absl::Status Clear(void* at_dev, size_t bytes, void* stream) override {
    return StatusOf(cudaMemsetAsync(at_dev, 0, bytes, StreamOf(stream)), "clear memory");
  }
  absl::Status Synchronize(void* stream) override {
    return StatusOf(cudaStreamSynchronize(StreamOf(stream)), "wait for the stream");
  }

  absl::StatusOr<void*> CreateEvent() override {
    cudaEvent_t event = nullptr;
    absl::Status status =
        StatusOf(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
    if (!status.ok()) return status;
    return static_cast<void*>(event);
  }
  void DestroyEvent(void* event) override {
    (void)cudaEventDestroy(static_cast<cudaEvent_t>(event));
  }
  absl::Status Record(void* event, void* stream) override {
    return StatusOf(cudaEventRecord(static_cast<cudaEvent_t>(event), StreamOf(stream)),
                    "record an event");
  }
  absl::Status Wait(void* event) override {
    return StatusOf(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "wait for an event");
  }
  absl::StatusOr<bool> Done(void* event) override {
    const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (error == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return false;
    }
    absl::Status status = StatusOf(error, "ask for an event");
    if (!status.ok()) return status;
    return true;
  }

  absl::Status PrepareRotation(const BatchDev& batch, void* stream) override {
    return StatusOf(LaunchRotation(batch, stream), "rotation kernel");
  }
  absl::Status DecodeLevel(const BatchDev& batch, const LevelDev& level, void* stream) override {
    return StatusOf(LaunchLevel(batch, level, stream), "entropy kernel");
  }
  absl::Status StoreExactTokens(const BatchDev& batch, void* stream) override {
    return StatusOf(LaunchExactTokens(batch, stream), "exact tokens' kernel");
  }
  absl::Status Reconstruct(const BatchDev& batch, void* stream) override {
    return StatusOf(LaunchReconstruct(batch, stream), "transform kernel");
  }
  absl::Status Quantise(const EncodeDev& encode, void* stream) override {
    return StatusOf(LaunchQuantise(encode, stream), "quantising kernel");
  }
  absl::Status EncodeBlocks(const EncodeDev& encode, const EncodeBlocksDev& blocks,
                            void* stream) override {
    return StatusOf(LaunchEncodeBlocks(encode, blocks, stream), "encoding kernel");
  }

 private:
  const int ordinal_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<Backend>> CreateCudaBackend(int device_ordinal) {
  int devices = 0;
  const cudaError_t counted = cudaGetDeviceCount(&devices);
  if (counted != cudaSuccess) {
    (void)cudaGetLastError();
    return absl::UnavailableError(
        absl::StrCat("cuda: this machine has no usable GPU: ", cudaGetErrorString(counted)));
  }
  if (device_ordinal < 0 || device_ordinal >= devices) {
    return absl::UnavailableError(
        absl::StrCat("cuda: there is no device ", device_ordinal, ", the machine has ", devices));
  }
  int major = 0;
  int minor = 0;
  int error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_ordinal);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device_ordinal);
  absl::Status status = StatusOf(error, "ask for the device");
  if (!status.ok()) return status;
  if (major < 8) {
    return absl::FailedPreconditionError(absl::StrCat("cuda: device ", device_ordinal,
                                                      " has compute capability ", major, ".", minor,
                                                      ", the kernels need 8.0"));
  }
  auto backend = std::make_shared<CudaBackend>(device_ordinal);
  const DeviceScope scope(*backend);
  status = StatusOf(ConfigureKernels(), "configure the kernels");
  if (status.ok()) status = StatusOf(ConfigureEncodeKernels(), "configure the kernels");
  if (!status.ok()) return status;
  return std::shared_ptr<Backend>(std::move(backend));
}

}  // namespace cuda
}  // namespace kvstream

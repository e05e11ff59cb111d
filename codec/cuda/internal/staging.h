// A pinned buffer and its copy on the device: what the host prepares for one batch, in one
// transfer.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_STAGING_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_STAGING_H_

#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "codec/cuda/internal/backend.h"
#include "codec/cuda/internal/device_memory.h"

namespace kvstream {
namespace cuda {

class Staging {
 public:
  // An array in the buffer: written on the host, read on the device.
  template <typename T>
  struct Array {
    T* host;
    const T* device;
  };
  static constexpr size_t kAlignment = 16;
  // What an array of `count` may take, alignment included.
  template <typename T>
  static size_t Bytes(size_t count) {
    return count * sizeof(T) + kAlignment;
  }

  absl::Status Create(const std::shared_ptr<Backend>& backend, size_t bytes) {
    absl::Status status = done_.Create(backend);
    return status.ok() ? Grow(backend, bytes) : status;
  }

  // Waits until the batch before is done, and makes room for one of at most `bytes`.
  absl::Status Begin(const std::shared_ptr<Backend>& backend, size_t bytes) {
    absl::Status status = done_.Wait();
    if (status.ok() && bytes > host_.bytes()) status = Grow(backend, bytes);
    used_ = 0;
    return status;
  }

  // Precondition: the sizes of Begin suffice; null otherwise.
  template <typename T>
  Array<T> Take(size_t count) {
    const size_t at = used_;
    const size_t end = at + (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (end > host_.bytes()) return {nullptr, nullptr};
    used_ = end;
    return {reinterpret_cast<T*>(host_.as<char>() + at),
            reinterpret_cast<const T*>(device_.as<char>() + at)};
  }

  template <typename Vector>
  auto Put(const Vector& values) -> const typename std::decay<decltype(values[0])>::type* {
    using T = typename std::decay<decltype(values[0])>::type;
    const Array<T> array = Take<T>(values.size());
    if (array.host == nullptr) return nullptr;
    if (!values.empty()) std::memcpy(array.host, values.data(), values.size() * sizeof(T));
    return array.device;
  }

  absl::Status Upload(Backend& backend, void* stream) {
    return backend.Upload(device_.as<char>(), host_.as<char>(), used_, stream);
  }
  // Marks the end of the batch on the stream.
  absl::Status End(void* stream) { return done_.Record(stream); }
  absl::Status Wait() { return done_.Wait(); }
  size_t device_bytes() const { return device_.bytes(); }

 private:
  absl::Status Grow(const std::shared_ptr<Backend>& backend, size_t bytes) {
    absl::Status status = host_.Allocate(backend, Memory::Kind::kPinned, bytes);
    return status.ok() ? device_.Allocate(backend, Memory::Kind::kDevice, bytes) : status;
  }

  Memory host_;
  Memory device_;
  Event done_;
  size_t used_ = 0;
};

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_STAGING_H_

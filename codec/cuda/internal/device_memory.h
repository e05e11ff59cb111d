// Owners of a backend's memory and events.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_DEVICE_MEMORY_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_DEVICE_MEMORY_H_

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "codec/cuda/internal/backend.h"

namespace kvstream {
namespace cuda {

// Device or pinned memory, freed with its owner.
class Memory {
 public:
  enum class Kind { kDevice, kPinned };

  Memory() = default;
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(kind_, other.kind_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Memory() { Release(); }

  // Replaces what it held. RESOURCE_EXHAUSTED leaves it empty.
  absl::Status Allocate(std::shared_ptr<Backend> backend, Kind kind, size_t bytes) {
    Release();
    if (bytes == 0) bytes = 1;
    absl::StatusOr<void*> data =
        kind == Kind::kDevice ? backend->Allocate(bytes) : backend->AllocatePinned(bytes);
    if (!data.ok()) return data.status();
    backend_ = std::move(backend);
    kind_ = kind;
    data_ = *data;
    bytes_ = bytes;
    return absl::OkStatus();
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void Release() {
    if (data_ == nullptr) return;
    const DeviceScope scope(*backend_);
    kind_ == Kind::kDevice ? backend_->Free(data_) : backend_->FreePinned(data_);
    data_ = nullptr;
    bytes_ = 0;
  }

  std::shared_ptr<Backend> backend_;
  Kind kind_ = Kind::kDevice;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Device memory and, where the host reads or writes it, pinned memory of the same size; both grow.
class Buffer {
 public:
  absl::Status Fit(const std::shared_ptr<Backend>& backend, size_t bytes, bool pinned) {
    if (bytes <= device_.bytes() && (!pinned || bytes <= host_.bytes())) return absl::OkStatus();
    absl::Status status = device_.Allocate(backend, Memory::Kind::kDevice, bytes);
    if (status.ok() && pinned) status = host_.Allocate(backend, Memory::Kind::kPinned, bytes);
    return status;
  }
  template <typename T>
  T* device() const {
    return device_.as<T>();
  }
  template <typename T>
  T* host() const {
    return host_.as<T>();
  }

 private:
  Memory device_;
  Memory host_;
};

class Event {
 public:
  Event() = default;
  Event(Event&& other) noexcept { *this = std::move(other); }
  Event& operator=(Event&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(event_, other.event_);
    std::swap(recorded_, other.recorded_);
    return *this;
  }
  ~Event() {
    if (backend_ == nullptr) return;
    const DeviceScope scope(*backend_);
    backend_->DestroyEvent(event_);
  }

  absl::Status Create(std::shared_ptr<Backend> backend) {
    absl::StatusOr<void*> event = backend->CreateEvent();
    if (!event.ok()) return event.status();
    backend_ = std::move(backend);
    event_ = *event;
    return absl::OkStatus();
  }
  absl::Status Record(void* stream) {
    recorded_ = true;
    return backend_->Record(event_, stream);
  }
  // OK at once if nothing was recorded.
  absl::Status Wait() { return recorded_ ? backend_->Wait(event_) : absl::OkStatus(); }
  absl::StatusOr<bool> Done() {
    if (!recorded_) return true;
    return backend_->Done(event_);
  }

 private:
  std::shared_ptr<Backend> backend_;
  void* event_ = nullptr;
  bool recorded_ = false;
};

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_DEVICE_MEMORY_H_

// A store whose calls tests can watch, delay and make fail.
#ifndef KVSTREAM_SERVER_SERVICE_TESTING_FAULTY_STORE_H_
#define KVSTREAM_SERVER_SERVICE_TESTING_FAULTY_STORE_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "storage/chunk_store.h"
#include "storage/forwarding_chunk_store.h"

namespace kvstream {

// What tests set; shared with the store because the server owns that. Thread-safe. Each hook runs
// before the call, with no lock held, on the thread of the call, and may block; an error that it
// returns is the call's result.
class StoreFaults {
 public:
  using ReadHook = std::function<absl::Status(const ChunkId& id, uint32_t level)>;
  using PutHook = std::function<absl::Status(const ChunkId& id)>;

  void OnRead(ReadHook hook) {
    absl::MutexLock lock(&mutex_);
    on_read_ = std::move(hook);
  }
  void OnPut(PutHook hook) {
    absl::MutexLock lock(&mutex_);
    on_put_ = std::move(hook);
  }
  bool watches_reads() const {
    absl::MutexLock lock(&mutex_);
    return static_cast<bool>(on_read_);
  }
  absl::Status BeforeRead(const ChunkId& id, uint32_t level) const {
    ReadHook hook;
    {
      absl::MutexLock lock(&mutex_);
      hook = on_read_;
    }
    return hook ? hook(id, level) : absl::OkStatus();
  }
  absl::Status BeforePut(const ChunkId& id) const {
    PutHook hook;
    {
      absl::MutexLock lock(&mutex_);
      hook = on_put_;
    }
    return hook ? hook(id) : absl::OkStatus();
  }

 private:
  mutable absl::Mutex mutex_;
  ReadHook on_read_ ABSL_GUARDED_BY(mutex_);
  PutHook on_put_ ABSL_GUARDED_BY(mutex_);
};

class FaultyStore final : public ForwardingChunkStore {
 public:
  FaultyStore(std::unique_ptr<ChunkStore> store, std::shared_ptr<const StoreFaults> faults)
      : ForwardingChunkStore(std::move(store)), faults_(std::move(faults)) {}

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override {
    const absl::Status status = faults_->BeforePut(id);
    if (!status.ok()) return status;
    return inner().Put(id, info, segments);
  }
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override {
    const absl::Status status = faults_->BeforeRead(id, level);
    if (!status.ok()) return status;
    return inner().ReadSegment(id, level);
  }
  // A hook may block.
  absl::optional<absl::StatusOr<PinnedBytes>> TryReadSegment(const ChunkId& id,
                                                             uint32_t level) override {
    if (faults_->watches_reads()) return absl::nullopt;
    return inner().TryReadSegment(id, level);
  }

 private:
  const std::shared_ptr<const StoreFaults> faults_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TESTING_FAULTY_STORE_H_

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

class FaultyStore final : public ChunkStore {
 public:
  FaultyStore(std::unique_ptr<ChunkStore> store, std::shared_ptr<const StoreFaults> faults)
      : store_(std::move(store)), faults_(std::move(faults)) {}

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override {
    const absl::Status status = faults_->BeforePut(id);
    if (!status.ok()) return status;
    return store_->Put(id, info, segments);
  }
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override {
    return store_->GetInfos(ids);
  }
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override {
    return store_->LongestPrefix(ids);
  }
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override {
    const absl::Status status = faults_->BeforeRead(id, level);
    if (!status.ok()) return status;
    return store_->ReadSegment(id, level);
  }
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override {
    return store_->Delete(ids);
  }
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override {
    return store_->List(after, limit);
  }
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override {
    return store_->PutProfile(id, bytes);
  }
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override {
    return store_->GetProfile(id);
  }
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override {
    return store_->ListProfiles();
  }
  absl::StatusOr<StoreStats> Stats() override { return store_->Stats(); }
  absl::string_view driver() const override { return store_->driver(); }

 private:
  const std::unique_ptr<ChunkStore> store_;
  const std::shared_ptr<const StoreFaults> faults_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TESTING_FAULTY_STORE_H_

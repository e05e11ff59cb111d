#include "server/service/measured_store.h"

#include "server/service/timer_queue.h"

namespace kvstream {

// Observes the time of its own life.
class MeasuredStore::Timer {
 public:
  Timer(const MeasuredStore& store, StoreOperation operation)
      : metrics_(store.metrics_), operation_(operation), start_(MonotonicNow()) {}
  ~Timer() { metrics_->ObserveStore(operation_, MonotonicNow() - start_); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  Metrics* const metrics_;
  const StoreOperation operation_;
  const absl::Duration start_;
};

MeasuredStore::MeasuredStore(std::unique_ptr<ChunkStore> store, Metrics* metrics)
    : store_(std::move(store)), metrics_(metrics) {}

bool MeasuredStore::AwaitUnpinned(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &MeasuredStore::Unpinned), timeout);
}

void MeasuredStore::Unpin() {
  absl::MutexLock lock(&mutex_);
  --pins_;
}

absl::StatusOr<bool> MeasuredStore::Put(const ChunkId& id, const ChunkInfo& info,
                                        absl::Span<const absl::string_view> segments) {
  const Timer timer(*this, StoreOperation::kPut);
  return store_->Put(id, info, segments);
}

absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> MeasuredStore::GetInfos(
    absl::Span<const ChunkId> ids) {
  const Timer timer(*this, StoreOperation::kGetInfos);
  return store_->GetInfos(ids);
}

absl::StatusOr<size_t> MeasuredStore::LongestPrefix(absl::Span<const ChunkId> ids) {
  const Timer timer(*this, StoreOperation::kLongestPrefix);
  return store_->LongestPrefix(ids);
}

absl::StatusOr<PinnedBytes> MeasuredStore::ReadSegment(const ChunkId& id, uint32_t level) {
  const Timer timer(*this, StoreOperation::kReadSegment);
  absl::StatusOr<PinnedBytes> pinned = store_->ReadSegment(id, level);
  if (!pinned.ok()) return pinned.status();
  return Counted(*std::move(pinned));
}

absl::optional<absl::StatusOr<PinnedBytes>> MeasuredStore::TryReadSegment(const ChunkId& id,
                                                                          uint32_t level) {
  const absl::Duration start = MonotonicNow();
  absl::optional<absl::StatusOr<PinnedBytes>> pinned = store_->TryReadSegment(id, level);
  if (!pinned.has_value()) return absl::nullopt;
  metrics_->ObserveStore(StoreOperation::kReadSegment, MonotonicNow() - start);
  if (!pinned->ok()) return absl::StatusOr<PinnedBytes>(pinned->status());
  return absl::StatusOr<PinnedBytes>(Counted(*std::move(*pinned)));
}

absl::StatusOr<PinnedBytes> MeasuredStore::ScrubSegment(const ChunkId& id, uint32_t level) {
  absl::StatusOr<PinnedBytes> pinned = store_->ScrubSegment(id, level);
  if (!pinned.ok()) return pinned.status();
  return Counted(*std::move(pinned));
}

PinnedBytes MeasuredStore::Counted(PinnedBytes pinned) {
  {
    absl::MutexLock lock(&mutex_);
    ++pins_;
  }
  // std::function must be copyable, hence the shared_ptr. The inner pin goes first, then the count.
  auto inner = std::make_shared<PinnedBytes>(std::move(pinned));
  const absl::string_view bytes = inner->bytes();
  return PinnedBytes(bytes, [this, inner]() mutable {
    *inner = PinnedBytes();
    Unpin();
  });
}

absl::StatusOr<size_t> MeasuredStore::Delete(absl::Span<const ChunkId> ids) {
  const Timer timer(*this, StoreOperation::kDelete);
  return store_->Delete(ids);
}

absl::StatusOr<size_t> MeasuredStore::Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) {
  const Timer timer(*this, StoreOperation::kDelete);
  return store_->Trim(ids, keep_levels);
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> MeasuredStore::List(
    const absl::optional<ChunkId>& after, size_t limit) {
  const Timer timer(*this, StoreOperation::kList);
  return store_->List(after, limit);
}

absl::StatusOr<size_t> MeasuredStore::Expire(absl::Time now, size_t limit) {
  const Timer timer(*this, StoreOperation::kExpire);
  return store_->Expire(now, limit);
}

absl::StatusOr<size_t> MeasuredStore::Renew(absl::Span<const ChunkId> ids, absl::Time expires) {
  const Timer timer(*this, StoreOperation::kRenew);
  return store_->Renew(ids, expires);
}

absl::StatusOr<size_t> MeasuredStore::Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                                          absl::Time until) {
  const Timer timer(*this, StoreOperation::kPin);
  return store_->Pin(ids, owner, until);
}

absl::StatusOr<size_t> MeasuredStore::Unpin(absl::Span<const ChunkId> ids,
                                            const absl::optional<std::string>& owner) {
  const Timer timer(*this, StoreOperation::kPin);
  return store_->Unpin(ids, owner);
}

absl::StatusOr<std::vector<ChunkPin>> MeasuredStore::ListPins(const absl::optional<ChunkPin>& after,
                                                              size_t limit) {
  const Timer timer(*this, StoreOperation::kList);
  return store_->ListPins(after, limit);
}

absl::StatusOr<std::vector<ChunkPin>> MeasuredStore::PinsOf(absl::Span<const ChunkId> ids) {
  const Timer timer(*this, StoreOperation::kList);
  return store_->PinsOf(ids);
}

absl::StatusOr<size_t> MeasuredStore::DeleteSoon(absl::Span<const ChunkId> ids) {
  const Timer timer(*this, StoreOperation::kDelete);
  return store_->DeleteSoon(ids);
}

absl::StatusOr<std::vector<ChunkId>> MeasuredStore::Children(const ChunkId& id, size_t limit) {
  const Timer timer(*this, StoreOperation::kList);
  return store_->Children(id, limit);
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> MeasuredStore::ListTenant(
    absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) {
  const Timer timer(*this, StoreOperation::kList);
  return store_->ListTenant(tenant, after, limit);
}

absl::StatusOr<bool> MeasuredStore::PutProfile(const StoredProfileId& id, absl::string_view bytes) {
  const Timer timer(*this, StoreOperation::kPutProfile);
  return store_->PutProfile(id, bytes);
}

absl::StatusOr<std::string> MeasuredStore::GetProfile(const StoredProfileId& id) {
  const Timer timer(*this, StoreOperation::kGetProfile);
  return store_->GetProfile(id);
}

absl::StatusOr<std::vector<StoredProfileId>> MeasuredStore::ListProfiles() {
  const Timer timer(*this, StoreOperation::kListProfiles);
  return store_->ListProfiles();
}

absl::StatusOr<StoreStats> MeasuredStore::Stats() {
  const Timer timer(*this, StoreOperation::kStats);
  return store_->Stats();
}

}  // namespace kvstream

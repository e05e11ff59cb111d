// A store that passes every call on to another one: the base of those that add something to a few
// of them.
#ifndef KVSTREAM_STORAGE_FORWARDING_CHUNK_STORE_H_
#define KVSTREAM_STORAGE_FORWARDING_CHUNK_STORE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "storage/chunk_store.h"

namespace kvstream {

// Thread-safe where the inner store is. Owns it.
class ForwardingChunkStore : public ChunkStore {
 public:
  explicit ForwardingChunkStore(std::unique_ptr<ChunkStore> inner) : inner_(std::move(inner)) {}

  absl::StatusOr<bool> Put(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments) override {
    return inner_->Put(id, info, segments);
  }
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> GetInfos(
      absl::Span<const ChunkId> ids) override {
    return inner_->GetInfos(ids);
  }
  absl::StatusOr<size_t> LongestPrefix(absl::Span<const ChunkId> ids) override {
    return inner_->LongestPrefix(ids);
  }
  absl::StatusOr<PinnedBytes> ReadSegment(const ChunkId& id, uint32_t level) override {
    return inner_->ReadSegment(id, level);
  }
  // TryReadSegment is not forwarded, and has nothing: it would go past an override of ReadSegment.
  absl::StatusOr<size_t> Delete(absl::Span<const ChunkId> ids) override {
    return inner_->Delete(ids);
  }
  absl::StatusOr<size_t> Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) override {
    return inner_->Trim(ids, keep_levels);
  }
  ChunkHold Hold(absl::Span<const ChunkId> ids) override { return inner_->Hold(ids); }
  void Touch(absl::Span<const ChunkId> ids) override { inner_->Touch(ids); }
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> List(
      const absl::optional<ChunkId>& after, size_t limit) override {
    return inner_->List(after, limit);
  }
  absl::StatusOr<size_t> Expire(absl::Time now, size_t limit) override {
    return inner_->Expire(now, limit);
  }
  absl::StatusOr<size_t> Renew(absl::Span<const ChunkId> ids, absl::Time expires) override {
    return inner_->Renew(ids, expires);
  }
  absl::StatusOr<size_t> Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                             absl::Time until) override {
    return inner_->Pin(ids, owner, until);
  }
  absl::StatusOr<size_t> Unpin(absl::Span<const ChunkId> ids,
                               const absl::optional<std::string>& owner) override {
    return inner_->Unpin(ids, owner);
  }
  absl::StatusOr<std::vector<ChunkPin>> ListPins(const absl::optional<ChunkPin>& after,
                                                 size_t limit) override {
    return inner_->ListPins(after, limit);
  }
  absl::StatusOr<std::vector<ChunkPin>> PinsOf(absl::Span<const ChunkId> ids) override {
    return inner_->PinsOf(ids);
  }
  absl::StatusOr<size_t> DeleteSoon(absl::Span<const ChunkId> ids) override {
    return inner_->DeleteSoon(ids);
  }
  absl::StatusOr<std::vector<ChunkId>> Children(const ChunkId& id, size_t limit) override {
    return inner_->Children(id, limit);
  }
  absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> ListTenant(
      absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) override {
    return inner_->ListTenant(tenant, after, limit);
  }
  absl::StatusOr<std::vector<ChunkPin>> ListTenantPins(absl::string_view tenant,
                                                       const absl::optional<ChunkPin>& after,
                                                       size_t limit) override {
    return inner_->ListTenantPins(tenant, after, limit);
  }
  absl::StatusOr<TenantUse> GetTenantUse(absl::string_view tenant) override {
    return inner_->GetTenantUse(tenant);
  }
  absl::StatusOr<bool> PutProfile(const StoredProfileId& id, absl::string_view bytes) override {
    return inner_->PutProfile(id, bytes);
  }
  absl::StatusOr<std::string> GetProfile(const StoredProfileId& id) override {
    return inner_->GetProfile(id);
  }
  absl::StatusOr<std::vector<StoredProfileId>> ListProfiles() override {
    return inner_->ListProfiles();
  }
  absl::StatusOr<ScrubbedInfos> ScrubInfos(const absl::optional<ChunkId>& after,
                                           size_t limit) override {
    return inner_->ScrubInfos(after, limit);
  }
  // ScrubSegment is not forwarded, as it would go past an override of ReadSegment.
  absl::StatusOr<ScrubbedFiles> ScrubFiles(const std::string& after, uint64_t bytes) override {
    return inner_->ScrubFiles(after, bytes);
  }
  absl::StatusOr<size_t> Discard(absl::Span<const ChunkId> ids) override {
    return inner_->Discard(ids);
  }
  absl::Status Backup(const std::string& dir) override { return inner_->Backup(dir); }
  absl::StatusOr<StoreStats> Stats() override { return inner_->Stats(); }
  absl::string_view driver() const override { return inner_->driver(); }

 protected:
  ChunkStore& inner() const { return *inner_; }

 private:
  const std::unique_ptr<ChunkStore> inner_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_FORWARDING_CHUNK_STORE_H_

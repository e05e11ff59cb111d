#include "storage/rados/rados_leases.h"

#include <utility>

#include "storage/rados/rados_format.h"

namespace kvstream {

using rados_format::LeaseRecord;

absl::Status RadosLeases::Tell(absl::string_view what, absl::Span<const ChunkId> ids,
                               absl::Time until) {
  absl::MutexLock lock(&tell_mutex_);
  if (ids.empty() && !told_) return absl::OkStatus();
  std::vector<OmapWrite> writes(1);
  writes[0].object = rados_format::kLeasesObject;
  if (ids.empty()) {
    writes[0].remove = {daemon_};
  } else {
    LeaseRecord record;
    record.until = until;
    for (const ChunkId& id : ids) record.chunks.push_back(rados_format::LeaseName(id));
    writes[0].set = {{daemon_, rados_format::EncodeLease(record)}};
    told_ = true;  // also if nobody knows whether it was written
  }
  absl::Status status = pool_->Write(what, &writes);
  if (status.ok() && ids.empty()) told_ = false;
  return status;
}

absl::Status RadosLeases::Refresh(absl::string_view what, absl::Duration max_age) {
  // Each of them may have half a megabyte.
  constexpr size_t kPage = 16;
  const absl::Time now = clock_();
  {
    absl::MutexLock lock(&mutex_);
    const absl::Duration age = now - read_;
    if (age >= absl::ZeroDuration() && age < max_age) return absl::OkStatus();
  }
  absl::flat_hash_set<uint64_t> leased;
  std::vector<OmapWrite> lapsed;
  std::vector<OmapList> lists(1);
  lists[0].object = rados_format::kLeasesObject;
  lists[0].limit = kPage;
  do {
    if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
    for (const auto& [daemon, value] : lists[0].entries) {
      lists[0].after = daemon;
      const absl::StatusOr<LeaseRecord> record = rados_format::DecodeLease(value);
      if (record.ok() && record->until > now) {
        leased.insert(record->chunks.begin(), record->chunks.end());
        continue;
      }
      OmapWrite write;
      write.object = rados_format::kLeasesObject;
      write.expected = {{daemon, value}};  // unless it is renewed after all
      write.remove = {daemon};
      lapsed.push_back(std::move(write));
    }
  } while (lists[0].more && !lists[0].entries.empty());
  if (absl::Status status = pool_->Write(what, &lapsed); !status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  read_ = now;
  leased_ = std::move(leased);
  return absl::OkStatus();
}

bool RadosLeases::Leased(const ChunkId& id) const {
  absl::MutexLock lock(&mutex_);
  return leased_.contains(rados_format::LeaseName(id));
}

}  // namespace kvstream

#include "storage/rocksdb/id_claims.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvstream {

IdClaims::Claim::Claim(IdClaims* claims, absl::Span<const ChunkId> ids, absl::Time deadline)
    : claims_(claims), ids_(ids.begin(), ids.end()) {
  std::sort(ids_.begin(), ids_.end());
  ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (claims_->Acquire(ids_[i], deadline)) continue;
    ids_.resize(i);
    for (const ChunkId& id : ids_) claims_->Release(id);
    ids_.clear();
    held_ = false;
  }
}

IdClaims::Claim::~Claim() {
  for (const ChunkId& id : ids_) claims_->Release(id);
}

absl::Status IdClaims::Claim::Late(absl::string_view what) {
  return absl::UnavailableError(
      absl::StrCat(what, ": another writer of it was not done by the call's deadline"));
}

bool IdClaims::Acquire(const ChunkId& id, absl::Time deadline) {
  Stripe& stripe = StripeOf(id);
  absl::MutexLock lock(&stripe.mutex);
  const auto is_free = [&stripe, &id]() ABSL_SHARED_LOCKS_REQUIRED(stripe.mutex) {
    return stripe.held.count(id) == 0;
  };
  if (!stripe.mutex.AwaitWithDeadline(absl::Condition(&is_free), deadline)) return false;
  stripe.held.insert(id);
  return true;
}

void IdClaims::Release(const ChunkId& id) {
  Stripe& stripe = StripeOf(id);
  absl::MutexLock lock(&stripe.mutex);
  stripe.held.erase(id);
}

}  // namespace kvstream

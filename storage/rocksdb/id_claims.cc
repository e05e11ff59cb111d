#include "storage/rocksdb/id_claims.h"

#include <algorithm>

namespace kvstream {

IdClaims::Claim::Claim(IdClaims* claims, absl::Span<const ChunkId> ids)
    : claims_(claims), ids_(ids.begin(), ids.end()) {
  std::sort(ids_.begin(), ids_.end());
  ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
  for (const ChunkId& id : ids_) claims_->Acquire(id);
}

IdClaims::Claim::~Claim() {
  for (const ChunkId& id : ids_) claims_->Release(id);
}

void IdClaims::Acquire(const ChunkId& id) {
  Stripe& stripe = StripeOf(id);
  absl::MutexLock lock(&stripe.mutex);
  const auto is_free = [&stripe, &id]() ABSL_SHARED_LOCKS_REQUIRED(stripe.mutex) {
    return stripe.held.count(id) == 0;
  };
  stripe.mutex.Await(absl::Condition(&is_free));
  stripe.held.insert(id);
}

void IdClaims::Release(const ChunkId& id) {
  Stripe& stripe = StripeOf(id);
  absl::MutexLock lock(&stripe.mutex);
  stripe.held.erase(id);
}

}  // namespace kvstream

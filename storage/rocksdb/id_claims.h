// Makes writers of the same id wait for each other while writers of other ids go on, without a lock
// held during the write.
#ifndef KVSTREAM_STORAGE_ROCKSDB_ID_CLAIMS_H_
#define KVSTREAM_STORAGE_ROCKSDB_ID_CLAIMS_H_

#include <array>
#include <cstddef>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Thread-safe. Holds as many ids as there are writes in flight, so callers bound its size.
class IdClaims {
 public:
  // Owns ids until it is destroyed. The IdClaims must outlive it.
  class Claim {
   public:
    // Blocks until no other claim holds any of `ids`. Takes them in ascending order whatever their
    // order here, so that claims of several ids cannot deadlock, as long as a thread holds at most
    // one claim. Duplicates count once. By the deadline at the latest: then held() is false, and
    // the claim owns nothing.
    Claim(IdClaims* claims, absl::Span<const ChunkId> ids,
          absl::Time deadline = absl::InfiniteFuture());
    ~Claim();
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

    bool held() const { return held_; }
    // UNAVAILABLE, for the caller of the operation `what`, where it is not held.
    static absl::Status Late(absl::string_view what);
    // Ascending, each once. Requires held().
    absl::Span<const ChunkId> ids() const { return ids_; }

   private:
    IdClaims* const claims_;
    std::vector<ChunkId> ids_;
    bool held_ = true;
  };

  IdClaims() = default;
  IdClaims(const IdClaims&) = delete;
  IdClaims& operator=(const IdClaims&) = delete;

 private:
  // Ids are hashes, so their first byte spreads them. A client that makes up ids only slows itself
  // down.
  static constexpr size_t kStripes = 64;

  struct Stripe {
    absl::Mutex mutex;
    std::set<ChunkId> held ABSL_GUARDED_BY(mutex);
  };

  Stripe& StripeOf(const ChunkId& id) { return stripes_[id[0] % kStripes]; }
  bool Acquire(const ChunkId& id, absl::Time deadline);
  void Release(const ChunkId& id);

  std::array<Stripe, kStripes> stripes_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_ID_CLAIMS_H_

#include "server/service/expiry_sweeper.h"

#include <utility>

namespace kvstream {
namespace {

// Leaves the disk to others between two batches: at most some 25,000 chunks expire in a second.
constexpr absl::Duration kPause = absl::Milliseconds(10);

}  // namespace

ExpirySweeper::ExpirySweeper(ChunkStore* store, Options options)
    : store_(store), options_(std::move(options)), thread_([this] { Work(); }) {}

ExpirySweeper::~ExpirySweeper() { Stop(); }

void ExpirySweeper::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void ExpirySweeper::Work() {
  while (true) {
    const absl::StatusOr<size_t> expired = store_->Expire(options_.now(), kBatch);
    options_.report(expired);
    const bool more = expired.ok() && *expired == kBatch;
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), more ? kPause : options_.interval)) {
      return;
    }
  }
}

}  // namespace kvstream

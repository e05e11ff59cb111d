#include "client/farewell.h"

#include <utility>

#include "absl/time/time.h"
#include "client/monotonic_clock.h"

namespace kvstream {
namespace {

constexpr size_t kFarewellsMax = 16;
constexpr absl::Duration kPatience = absl::Seconds(2);

}  // namespace

Farewells::~Farewells() {
  std::list<Farewell> left;
  {
    absl::MutexLock lock(&mutex_);
    // Cancel() may be called from any thread.
    for (Farewell& farewell : farewells_) farewell.transport->Cancel();
    left.splice(left.begin(), farewells_);
  }
  for (Farewell& farewell : left) farewell.thread.join();
}

void Farewells::Say(std::unique_ptr<LoadTransport> transport) {
  JoinThoseOver();
  absl::MutexLock lock(&mutex_);
  if (farewells_.size() >= kFarewellsMax) return;  // its destructor cancels
  farewells_.emplace_back();
  Farewell* const farewell = &farewells_.back();
  farewell->transport = std::move(transport);
  farewell->thread = std::thread([this, farewell] { Run(farewell); });
}

void Farewells::Run(Farewell* farewell) {
  const absl::Duration until = MonotonicNow() + kPatience;
  grpc::ByteBuffer ignored;
  LoadTransport* const transport = farewell->transport.get();
  while (!transport->over()) {
    const absl::Duration left = until - MonotonicNow();
    if (left <= absl::ZeroDuration()) {
      transport->Cancel();
      transport->Next(absl::InfiniteDuration(), &ignored);
      continue;
    }
    transport->Next(left, &ignored);
  }
  absl::MutexLock lock(&mutex_);
  farewell->over = true;
}

void Farewells::JoinThoseOver() {
  std::list<Farewell> over;
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = farewells_.begin(); it != farewells_.end();) {
      const auto next = std::next(it);
      if (it->over) over.splice(over.begin(), farewells_, it);
      it = next;
    }
  }
  for (Farewell& farewell : over) farewell.thread.join();
}

}  // namespace kvstream

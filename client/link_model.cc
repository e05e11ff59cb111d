#include "client/link_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvstream {
namespace {

constexpr absl::Duration kQueueTime = absl::Milliseconds(50);
constexpr int64_t kQueueBytesMin = 64 << 10;
constexpr absl::Duration kQuantumTime = absl::Milliseconds(1);
constexpr int64_t kQuantumBytesMin = 1448;  // one Ethernet frame's payload
constexpr int64_t kQuantumBytesMax = 64 << 10;
constexpr absl::Duration kCatchUpTime = absl::Milliseconds(10);

int64_t BytesIn(absl::Duration time, double bytes_per_second) {
  return static_cast<int64_t>(absl::ToDoubleSeconds(time) * bytes_per_second);
}

}  // namespace

LinkModel::LinkModel(RateTrace trace, absl::Duration delay)
    : trace_(std::move(trace)), delay_(delay) {}

int64_t LinkModel::QuantumBytes(absl::Duration time) const {
  return std::clamp(BytesIn(kQuantumTime, trace_.BytesPerSecondAt(time)), kQuantumBytesMin,
                    kQuantumBytesMax);
}

int64_t LinkModel::Room(absl::Duration now) const {
  const int64_t limit = std::max(kQueueBytesMin, BytesIn(kQueueTime, trace_.BytesPerSecondAt(now)));
  return std::max(int64_t{0}, limit - queued_bytes_);
}

int64_t LinkModel::capacity_bytes() const {
  return std::max(kQueueBytesMin, BytesIn(kQueueTime, trace_.max_bytes_per_second())) +
         BytesIn(delay_ + kCatchUpTime, trace_.max_bytes_per_second()) + kQuantumBytesMax;
}

void LinkModel::Push(absl::Duration now, LinkItem item) {
  if (queue_.empty()) {
    last_ = now;
    earned_bytes_ = 0;
  }
  queued_bytes_ += static_cast<int64_t>(item.bytes.size());
  queue_.push_back(std::move(item));
}

void LinkModel::Advance(absl::Duration now) {
  if (queue_.empty()) return;
  earned_bytes_ += trace_.BytesBetween(last_, now);
  last_ = std::max(last_, now);
  const int64_t quantum = QuantumBytes(now);
  // A quantum may take long on a slow link; being late must not cost any of it.
  const int64_t most = quantum + BytesIn(kCatchUpTime, trace_.BytesPerSecondAt(now));
  earned_bytes_ = std::min(earned_bytes_, static_cast<double>(most));
  // A millionth of a byte makes up for the rounding of times to nanoseconds.
  const int64_t earned = static_cast<int64_t>(std::floor(earned_bytes_ + 1e-6));
  if (earned < std::min(quantum, queued_bytes_)) return;
  const int64_t bytes = std::min(earned, queued_bytes_);
  Release(bytes, now);
  earned_bytes_ = queue_.empty() ? 0 : std::max(0.0, earned_bytes_ - static_cast<double>(bytes));
}

void LinkModel::Release(int64_t bytes, absl::Duration now) {
  queued_bytes_ -= bytes;
  while (!queue_.empty()) {
    LinkItem& front = queue_.front();
    const int64_t size = static_cast<int64_t>(front.bytes.size());
    if (size > bytes) {
      if (bytes == 0) return;
      LinkItem piece;
      piece.connection = front.connection;
      piece.bytes = front.bytes.substr(0, static_cast<size_t>(bytes));
      front.bytes.erase(0, static_cast<size_t>(bytes));
      under_way_.push_back({now + delay_, std::move(piece)});
      return;
    }
    bytes -= size;
    under_way_.push_back({now + delay_, std::move(front)});
    queue_.pop_front();
  }
}

absl::optional<LinkItem> LinkModel::Pop(absl::Duration now) {
  Advance(now);
  if (under_way_.empty() || under_way_.front().arrival > now) return absl::nullopt;
  LinkItem item = std::move(under_way_.front().item);
  under_way_.pop_front();
  return item;
}

absl::Duration LinkModel::NextEvent() const {
  absl::Duration next = absl::InfiniteDuration();
  if (!under_way_.empty()) next = under_way_.front().arrival;
  if (queue_.empty()) return next;
  // The quantum may change with the rate meanwhile; then the caller is told to come again.
  const double missing =
      static_cast<double>(std::min(QuantumBytes(last_), queued_bytes_)) - earned_bytes_;
  const absl::Duration release = trace_.TimeToCarry(last_, missing) + absl::Nanoseconds(1);
  return std::min(next, release);
}

}  // namespace kvstream

#include "server/load/standing_orders.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

// A moment that was told may be off by so much before it is told again.
constexpr absl::Duration kAnywaySlack = absl::Milliseconds(10);
constexpr int kAnywayShare = 20;
// A cut that is far ahead of the stream may be off by this share of its distance.
constexpr uint32_t kCutShare = 16;

uint32_t Distance(uint32_t a, uint32_t b) { return a > b ? a - b : b - a; }

bool SameMoment(absl::Duration told, absl::Duration wanted, absl::Duration now) {
  if (told == wanted) return true;
  if (told == absl::InfiniteDuration() || wanted == absl::InfiniteDuration()) return false;
  return absl::AbsDuration(told - wanted) <= std::max(kAnywaySlack, (wanted - now) / kAnywayShare);
}

}  // namespace

void StandingOrders::Want(const SendOrder& order, uint32_t next, absl::Duration client_clock) {
  wanted_ = order;
  if (!told_) {
    // Before the first order nothing is ordered.
    pending_ = order.first < order.end || order.anyway_at != absl::InfiniteDuration() ||
               !order.last_moments.empty();
    return;
  }
  const uint32_t near = std::min(order.first, told_order_.first);
  const uint32_t ahead = near > next ? near - next : 0;
  pending_ = order.end != told_order_.end ||
             Distance(order.first, told_order_.first) * uint64_t{kCutShare} > ahead ||
             !SameMoment(told_order_.anyway_at, order.anyway_at, client_clock);
  if (order.first == told_order_.first && order.end == told_order_.end &&
      SameMoment(told_order_.anyway_at, order.anyway_at, client_clock)) {
    pending_ = false;
  }
}

absl::optional<SendOrder> StandingOrders::Take() {
  if (!pending_) return absl::nullopt;
  pending_ = false;
  told_ = true;
  told_order_ = wanted_;
  if (wanted_.first < wanted_.end) {
    first_min_ = std::min(first_min_, wanted_.first);
    end_max_ = std::max(end_max_, wanted_.end);
  }
  if (wanted_.anyway_at != absl::InfiniteDuration() || !wanted_.last_moments.empty()) {
    first_min_ = 0;
    end_max_ = chunks_;
  }
  return told_order_;
}

absl::Status StandingOrders::CheckReport(const OrderProgress& progress) const {
  using State = OrderProgress::State;
  if (progress.first > progress.up_to || progress.up_to > chunks_) {
    return absl::InvalidArgumentError(absl::StrCat("progress reports recompute of chunks ",
                                                   progress.first, " to ", progress.up_to, " of ",
                                                   chunks_));
  }
  if (progress.up_to == progress.first) {
    if (!begun()) return absl::OkStatus();
    return absl::InvalidArgumentError("progress takes back what was begun under an order");
  }
  if (progress.first < first_min_ || progress.up_to > end_max_) {
    return absl::InvalidArgumentError(absl::StrCat("progress reports chunks ", progress.first,
                                                   " to ", progress.up_to,
                                                   " begun, which no order allowed"));
  }
  if (progress.newest == State::kGivenUp && (!can_stop_ || ability_ == RecomputeAbility::kSuffix)) {
    return absl::InvalidArgumentError("progress gives up a chunk, which this client cannot");
  }
  if (!begun()) return absl::OkStatus();
  const bool same = progress.up_to == progress_.up_to;
  if (progress.first != progress_.first || progress.up_to < progress_.up_to ||
      (same && progress_.newest != State::kBegun && progress.newest != progress_.newest) ||
      (!same && progress_.newest == State::kGivenUp)) {
    return absl::InvalidArgumentError("progress under an order goes back");
  }
  return absl::OkStatus();
}

}  // namespace kvstream

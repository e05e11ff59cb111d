// The standing orders of one load: what the client may recompute without further word, and how far
// it says that it has gone.
#ifndef KVSTREAM_SERVER_LOAD_STANDING_ORDERS_H_
#define KVSTREAM_SERVER_LOAD_STANDING_ORDERS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "server/load/load_session.h"

namespace kvstream {

// Keeps the order that the client was told apart from the one that is wanted, and says when the
// difference is worth a message. Thread-compatible; O(1).
class StandingOrders {
 public:
  StandingOrders(uint32_t chunks, RecomputeAbility ability, bool can_stop)
      : chunks_(chunks), ability_(ability), can_stop_(can_stop) {}

  // The client should work under this order from now on. `next`: the first chunk that the stream
  // has not covered; a moved `first` waits with its message while it is far from there.
  void Want(const SendOrder& order, uint32_t next, absl::Duration client_clock);
  // The order to tell now, if there is one; it counts as told.
  absl::optional<SendOrder> Take();

  // INVALID_ARGUMENT for progress that no client can have made: beyond what was ordered, back, of
  // another first chunk, or an end that its ability does not have. Changes nothing.
  absl::Status CheckReport(const OrderProgress& progress) const;
  // Requires that CheckReport found nothing.
  void OnReport(const OrderProgress& progress) { progress_ = progress; }

  const OrderProgress& progress() const { return progress_; }
  bool begun() const { return progress_.up_to > progress_.first; }
  // The chunk that the client is at, if it can still be given up or finished.
  absl::optional<uint32_t> newest_begun() const {
    if (!begun() || progress_.newest != OrderProgress::State::kBegun) return absl::nullopt;
    return progress_.up_to - 1;
  }
  // A client that has nothing begun was told to begin somewhere.
  bool standing() const { return told_ && told_order_.first < told_order_.end; }
  const SendOrder& told_order() const { return told_order_; }

 private:
  const uint32_t chunks_;
  const RecomputeAbility ability_;
  const bool can_stop_;
  bool told_ = false;
  bool pending_ = false;
  SendOrder wanted_;
  SendOrder told_order_;
  // Over all orders told: an old one may be what the client has acted on.
  uint32_t first_min_ = ~uint32_t{0};
  uint32_t end_max_ = 0;
  OrderProgress progress_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_STANDING_ORDERS_H_

// What stands between a load and a link that it shares: asked before anything is sent.
#ifndef KVSTREAM_SERVER_LOAD_SEND_GATE_H_
#define KVSTREAM_SERVER_LOAD_SEND_GATE_H_

#include <cstdint>

#include "absl/time/time.h"
#include "server/load/bandwidth_estimator.h"

namespace kvstream {

// What a load still needs from the link.
struct SendDemand {
  // What has to be sent and was not: the floor level of what is to be streamed, and the rest of a
  // refinement that was begun. Not what may follow if there is time.
  uint64_t bytes = 0;
  // All of it refines what is usable already.
  bool refinement = false;
  // When the last of them must have been acknowledged (the session's clock) for the load to be in
  // time; InfiniteDuration(): no deadline.
  absl::Duration due = absl::InfiniteDuration();
};

// One per load; called by its session only, which serialises the calls. Times are the session's.
class SendGate {
 public:
  virtual ~SendGate() = default;

  // Whether `bytes` more, which are part of demand.bytes, may be handed to the transport now. True
  // counts them as sent. After false the load is woken by whoever made the gate when the answer may
  // have changed, and should ask again at AskAgainAt() even so.
  virtual bool Admit(uint64_t bytes, const SendDemand& demand, absl::Duration now) = 0;
  virtual absl::Duration AskAgainAt() const = 0;

  // Somebody else is on the link: what a load measures while it is refused is not the link.
  virtual bool shared() const = 0;

  // The newest Admit, of as many bytes, did not come to be sent.
  virtual void OnUnsent(uint64_t bytes, absl::Duration now) = 0;
  // The client has acknowledged so many bytes more.
  virtual void OnAcknowledged(uint64_t bytes, const SendDemand& demand, absl::Duration now) = 0;

  // What this load may count on, given what its own reports say.
  virtual BandwidthEstimate Expect(const BandwidthEstimate& own, absl::Duration now) = 0;
  // How long bytes that are let through now wait behind those of all loads.
  virtual absl::Duration QueueDelay(absl::Duration now) = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_SEND_GATE_H_

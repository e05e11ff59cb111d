// The links that the loads of a server share, and each load's gate to them.
#ifndef KVSTREAM_SERVER_LOAD_LINK_GROUPS_H_
#define KVSTREAM_SERVER_LOAD_LINK_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/load/link_share.h"
#include "server/load/send_gate.h"

namespace kvstream {

// A load's way to its client: the link that it shares with the loads of the same network or host,
// and the server's own way out that all share, each where known. Bytes go out when both let them,
// and when the process as a whole has room for them. Made by LinkGroups; leaves the links when
// destroyed. Calls as SendGate says, from any thread.
class LinkGate : public SendGate {
 public:
  // On the client's link; without one, on the server's way out.
  virtual LinkShareView View(absl::Duration now) = 0;
  // Of the client's link as all its loads together see it; unknown without one.
  virtual BandwidthEstimate LinkEstimate(absl::Duration now) = 0;
};

// Thread-safe; must outlive its gates. One mutex: what is done under it is a handful of lookups,
// and once in LinkShare::kPlanPeriod a pass over the loads of a link. Memory: what LinkShare says a
// load, and a link only while it has loads.
class LinkGroups {
 public:
  struct Options {
    uint64_t window_bytes_min = 64 << 10;
    uint64_t window_bytes_max = 128 << 20;
    double egress_bytes_per_second = 0;  // of the server; 0: not known, not shared out
    // In flight of all loads together; a load with nothing in flight may send one frame even so.
    uint64_t in_flight_bytes_max = uint64_t{4} << 30;
  };

  LinkGroups(const Options& options, absl::Duration now);
  LinkGroups(const LinkGroups&) = delete;
  LinkGroups& operator=(const LinkGroups&) = delete;

  // `link` names the client's link; empty: it is not known who shares it. `hint` is what is known
  // of a link that has no loads yet, in bytes a second, 0: nothing. `wake` is called, from any
  // thread that uses a gate and with no lock held, when the load should ask its session again; it
  // may still be called just after the gate is gone and so must hold what it needs.
  std::unique_ptr<LinkGate> Join(const std::string& link, double hint, std::function<void()> wake,
                                 absl::Duration now);

  // Sent and not acknowledged, of all loads.
  uint64_t in_flight_bytes() const;
  // Loads on this link.
  size_t loads(const std::string& link) const;
  size_t links() const;

 private:
  class Gate;
  struct Link {
    std::string name;
    LinkShare share;
    std::unordered_map<LinkShare::MemberId, std::shared_ptr<const std::function<void()>>> wakes;
    Link(std::string link, const LinkShareOptions& options, absl::Duration now)
        : name(std::move(link)), share(options, now) {}
  };
  using Wakes = std::vector<std::shared_ptr<const std::function<void()>>>;

  // Calls come from several threads, which take their time before they wait for the mutex.
  absl::Duration Later(absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Those that may send now.
  static void CollectWakes(Link* link, absl::Duration now, Wakes* wakes);

  const Options options_;
  mutable absl::Mutex mutex_;
  absl::Duration latest_ ABSL_GUARDED_BY(mutex_);
  uint64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  LinkShare::MemberId next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::unordered_map<std::string, std::unique_ptr<Link>> links_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Link> egress_ ABSL_GUARDED_BY(mutex_);  // null: not known
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_LINK_GROUPS_H_

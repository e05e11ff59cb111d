// What earlier loads have seen of the links to their clients: the prior of the next load.
#ifndef KVSTREAM_SERVER_LOAD_LINK_RECORD_H_
#define KVSTREAM_SERVER_LOAD_LINK_RECORD_H_

#include <cstddef>
#include <list>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kvstream {

// Per network of clients the mean rate of the loads of the last minutes, weighted by how long each
// measured; a load's weight fades with kFade and counts for at most kMaxSeconds. With r_i the
// rates, s_i the seconds and a_i the ages,
//     expected = sum(r_i s_i exp(-a_i / kFade)) / sum(s_i exp(-a_i / kFade)).
// And the round trip, half of it the newest load's. A network that nobody has come from for kForget
// is unknown again.
//
// Thread-safe. Memory: at most `networks_max` networks, some 150 bytes each; the one unused for
// longest goes first. Calls are O(1).
class LinkRecord {
 public:
  static constexpr absl::Duration kFade = absl::Seconds(30);
  static constexpr absl::Duration kForget = absl::Minutes(10);
  static constexpr double kMaxSeconds = 10;

  explicit LinkRecord(size_t networks_max) : networks_max_(networks_max) {}

  // A load over this network measured so many bytes a second for `seconds`. To be called only with
  // a rate that was the link's own (LoadSessionState::bandwidth_is_lower_bound is false), else
  // small loads would teach that links are slow. Ignored for the empty network and unless both
  // numbers are positive and finite.
  void Observe(absl::string_view network, double bytes_per_second, double seconds,
               absl::Duration now);

  // The shortest round trip that a load over this network has seen. Ignored for the empty network
  // and unless it is positive and at most an hour.
  void ObserveRoundTrip(absl::string_view network, absl::Duration round_trip, absl::Duration now);

  // Bytes a second; 0: unknown.
  double Expected(absl::string_view network, absl::Duration now) const;
  // ZeroDuration(): unknown.
  absl::Duration RoundTrip(absl::string_view network, absl::Duration now) const;

  size_t size() const;

 private:
  struct Entry {
    std::string network;
    double bytes = 0;
    double seconds = 0;
    absl::Duration round_trip;
    absl::Duration at;  // newest observation; the sums are as of then
  };
  // The network's entry as of now, made if there is none; null where none is kept.
  Entry* Touch(absl::string_view network, absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Null if it is unknown.
  const Entry* Find(absl::string_view network, absl::Duration now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t networks_max_;
  mutable absl::Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // newest observation first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_network_ ABSL_GUARDED_BY(mutex_);
};

// The network of a gRPC peer: "ipv4:192.0.2.7:1234" is of "ipv4:192.0.2" (/24),
// "ipv6:[2001:db8:1:2::3]:1234" (or with the brackets as %5B and %5D) of "ipv6:2001:db8:1" (its
// first three groups as written, /48 unless it abbreviates earlier). Empty for loopback, behind
// which proxies and tunnels hide any link, and for what is no such address.
std::string NetworkOfPeer(absl::string_view peer);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_LINK_RECORD_H_

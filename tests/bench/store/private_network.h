// A loopback of the benchmark's own, whose congestion control it may choose.
#ifndef KVSTREAM_TESTS_BENCH_STORE_PRIVATE_NETWORK_H_
#define KVSTREAM_TESTS_BENCH_STORE_PRIVATE_NETWORK_H_

#include <string>

#include "absl/status/statusor.h"

namespace kvstream::bench {

// Moves the process, which must have one thread only, into a network namespace with nothing but a
// loopback device and sets its TCP congestion control; both servers inherit it, so neither has to
// be asked. Needs root. Returns a sentence for the report. Without root the machine's loopback and
// its congestion control stay, and where the wanted one is not to be had another is used; the
// sentence says so. INVALID_ARGUMENT: not a name. UNAVAILABLE: the loopback device cannot be
// raised.
absl::StatusOr<std::string> EnterPrivateNetwork(const std::string& congestion_control);

// A TCP port of 127.0.0.1 that was free a moment ago.
absl::StatusOr<int> FreePort();

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_PRIVATE_NETWORK_H_

// Rates, durations and sizes as people write and read them.
#ifndef KVSTREAM_CLIENT_UNITS_H_
#define KVSTREAM_CLIENT_UNITS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace kvstream {

// "50Mbit", "1.5Gbit", "800kbit", "300bit", or in bytes "6.25MB"; powers of 1000; "/s" or "ps" may
// follow ("50Mbps" is bits, "50MBps" bytes); "0" needs no unit. Returns bytes a second.
// INVALID_ARGUMENT for anything else, negative rates and more than 1 Tbit.
absl::StatusOr<double> ParseRate(absl::string_view text);

// "500ms", "1.5s", "2m", "0"; also of several parts ("1m30s"). INVALID_ARGUMENT for anything else
// and for negative or infinite durations.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

// "host:port" or "[v6]:port" taken apart; a port of 0 to 65535. INVALID_ARGUMENT otherwise.
struct HostPort {
  std::string host;  // without brackets
  int port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(absl::string_view text);
std::string FormatHostPort(const HostPort& address);

// "1.50 MB" (powers of 1000), "812 B".
std::string FormatBytes(uint64_t bytes);
// Bytes a second as "12.0 Mbit/s".
std::string FormatRate(double bytes_per_second);
// "318 ms", "1.52 s", "840 us".
std::string FormatMillis(absl::Duration duration);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_UNITS_H_

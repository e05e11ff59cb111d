// Sizes and durations as people write them in flags, environment and configuration files.
#ifndef KVSTREAM_SERVER_SERVICE_UNITS_H_
#define KVSTREAM_SERVER_SERVICE_UNITS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace kvstream {

// "4096", "64MiB", "1.5GiB", "2GB": a decimal number, then nothing or B (bytes), KiB, MiB, GiB, TiB
// (powers of 1024), KB, MB, GB, TB (powers of 1000), case ignored. INVALID_ARGUMENT for anything
// else, and for sizes that are no whole number of bytes below 2^63.
absl::StatusOr<uint64_t> ParseByteSize(absl::string_view text);

// The shortest exact form that ParseByteSize reads back: "64MiB", "1000".
std::string FormatByteSize(uint64_t bytes);

// "500ms", "30s", "1m30s", "0": not negative, finite. INVALID_ARGUMENT otherwise.
absl::StatusOr<absl::Duration> ParseDelay(absl::string_view text);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_UNITS_H_

// The daemon's version, as --version, Stats, /health and the build-info metric show it.
#ifndef KVSTREAM_SERVER_SERVICE_VERSION_H_
#define KVSTREAM_SERVER_SERVICE_VERSION_H_

#include "absl/strings/string_view.h"

namespace kvstream {

inline constexpr absl::string_view kServerVersion = "0.1.0";

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_VERSION_H_

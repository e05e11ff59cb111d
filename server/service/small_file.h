// Files that options name.
#ifndef KVSTREAM_SERVER_SERVICE_SMALL_FILE_H_
#define KVSTREAM_SERVER_SERVICE_SMALL_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace kvstream {

// The whole file. NOT_FOUND if it cannot be read, INVALID_ARGUMENT if it is larger than bytes_max;
// both name the option and the path.
absl::StatusOr<std::string> ReadSmallFile(absl::string_view option, const std::string& path,
                                          size_t bytes_max);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_SMALL_FILE_H_

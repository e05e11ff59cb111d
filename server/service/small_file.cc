#include "server/service/small_file.h"

#include <fstream>

#include "absl/strings/str_cat.h"

namespace kvstream {

absl::StatusOr<std::string> ReadSmallFile(absl::string_view option, const std::string& path,
                                          size_t bytes_max) {
  std::ifstream file(path, std::ios::binary);
  // One byte more tells a file that is too large, of whatever kind it is.
  std::string bytes(bytes_max + 1, '\0');
  if (file) file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.is_open() || file.bad() || (file.fail() && !file.eof())) {
    return absl::NotFoundError(absl::StrCat("cannot read --", option, " ", path,
                                            "; check the path and the file's permissions"));
  }
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (bytes.size() > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", option, " ", path, " has more than ", bytes_max, " bytes"));
  }
  return bytes;
}

}  // namespace kvstream

#include "storage/rocksdb/damaged_tables.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"

namespace kvstream {

absl::optional<uint64_t> DamagedTables::NumberIn(absl::string_view message) {
  const size_t end = message.rfind(".sst");
  if (end == absl::string_view::npos) return absl::nullopt;
  size_t begin = end;
  while (begin > 0 && absl::ascii_isdigit(static_cast<unsigned char>(message[begin - 1]))) --begin;
  uint64_t number = 0;
  if (!absl::SimpleAtoi(message.substr(begin, end - begin), &number)) return absl::nullopt;
  return number;
}

}  // namespace kvstream

#include "server/service/units.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

struct Unit {
  absl::string_view name;
  uint64_t bytes;
};

// Binary units first: FormatByteSize takes the largest of them that divides.
constexpr Unit kUnits[] = {
    {"TiB", uint64_t{1} << 40},
    {"GiB", uint64_t{1} << 30},
    {"MiB", uint64_t{1} << 20},
    {"KiB", uint64_t{1} << 10},
    {"TB", 1000000000000},
    {"GB", 1000000000},
    {"MB", 1000000},
    {"KB", 1000},
    {"B", 1},
    {"", 1},
};
constexpr size_t kBinaryUnits = 4;
constexpr int kMaxFractionDigits = 9;

absl::Status NotASize(absl::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not a size; write for example 65536, 64MiB or 2GiB"));
}

}  // namespace

absl::StatusOr<uint64_t> ParseByteSize(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  size_t position = 0;
  unsigned __int128 digits = 0;
  unsigned __int128 scale = 1;
  bool any_digit = false;
  bool in_fraction = false;
  int fraction_digits = 0;
  for (; position < trimmed.size(); ++position) {
    const char c = trimmed[position];
    if (c == '.' && !in_fraction && any_digit) {
      in_fraction = true;
      continue;
    }
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) break;
    any_digit = true;
    digits = digits * 10 + static_cast<unsigned>(c - '0');
    if (digits >> 96) return NotASize(text);
    if (in_fraction) {
      scale *= 10;
      if (++fraction_digits > kMaxFractionDigits) return NotASize(text);
    }
  }
  if (!any_digit) return NotASize(text);
  const absl::string_view suffix = absl::StripAsciiWhitespace(trimmed.substr(position));
  for (const Unit& unit : kUnits) {
    if (!absl::EqualsIgnoreCase(suffix, unit.name)) continue;
    // digits < 2^96 * 10 and a unit is at most 2^40; beyond 2^64 before the product is refused
    // first.
    if (digits / scale >> 63) return NotASize(text);
    const unsigned __int128 product = digits * unit.bytes;
    if (product % scale != 0 || (product / scale) >> 63) return NotASize(text);
    return static_cast<uint64_t>(product / scale);
  }
  return NotASize(text);
}

std::string FormatByteSize(uint64_t bytes) {
  for (size_t i = 0; i < kBinaryUnits; ++i) {
    if (bytes != 0 && bytes % kUnits[i].bytes == 0) {
      return absl::StrCat(bytes / kUnits[i].bytes, kUnits[i].name);
    }
  }
  return absl::StrCat(bytes);
}

absl::StatusOr<absl::Duration> ParseDelay(absl::string_view text) {
  absl::Duration delay;
  if (!absl::ParseDuration(absl::StripAsciiWhitespace(text), &delay) ||
      delay < absl::ZeroDuration() || delay == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not a duration; write for example 500ms, 30s or 2m"));
  }
  return delay;
}

}  // namespace kvstream

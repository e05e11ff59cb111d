#include "client/units.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace kvstream {
namespace {

constexpr double kBytesPerSecondMax = 1e12 / 8;

absl::Status NotARate(absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text.substr(0, 40), "\" is no rate; write one like 50Mbit, 1.5Gbit or 6MB"));
}

}  // namespace

absl::StatusOr<double> ParseRate(absl::string_view text) {
  const absl::string_view whole = text;
  size_t digits = 0;
  while (digits < text.size() && (absl::ascii_isdigit(text[digits]) || text[digits] == '.'))
    ++digits;
  double number;
  if (digits == 0 || digits > 20 || !absl::SimpleAtod(text.substr(0, digits), &number)) {
    return NotARate(whole);
  }
  text = absl::StripAsciiWhitespace(text.substr(digits));
  if (text.empty()) {
    if (number == 0) return 0.0;
    return NotARate(whole);
  }
  double scale = 1;
  switch (text[0]) {
    case 'k':
    case 'K':
      scale = 1e3;
      break;
    case 'm':
    case 'M':
      scale = 1e6;
      break;
    case 'g':
    case 'G':
      scale = 1e9;
      break;
    default:
      break;
  }
  if (scale != 1) text.remove_prefix(1);
  if (!absl::ConsumeSuffix(&text, "/s")) absl::ConsumeSuffix(&text, "ps");
  // Only the letter's case tells a bit from a byte.
  if (text == "b" || absl::EqualsIgnoreCase(text, "bit") || absl::EqualsIgnoreCase(text, "bits")) {
    scale /= 8;
  } else if (text != "B") {
    return NotARate(whole);
  }
  const double rate = number * scale;
  if (!(rate <= kBytesPerSecondMax)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the rate ", whole.substr(0, 40), " exceeds 1000Gbit"));
  }
  return rate;
}

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < absl::ZeroDuration() ||
      duration == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text.substr(0, 40), "\" is no duration; write one like 500ms or 1.5s"));
  }
  return duration;
}

absl::StatusOr<HostPort> ParseHostPort(absl::string_view text) {
  const absl::Status wrong = absl::InvalidArgumentError(
      absl::StrCat("\"", text.substr(0, 80), "\" is no host:port; write one like 127.0.0.1:7411"));
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return wrong;
  absl::string_view host = text.substr(0, colon);
  const absl::string_view digits = text.substr(colon + 1);
  HostPort out;
  if (digits.empty() || digits.size() > 5 || !absl::ascii_isdigit(digits[0]) ||
      !absl::SimpleAtoi(digits, &out.port) || out.port > 65535) {
    return wrong;
  }
  if (absl::ConsumePrefix(&host, "[")) {
    if (!absl::ConsumeSuffix(&host, "]")) return wrong;
  } else if (absl::StrContains(host, ':')) {
    return wrong;
  }
  if (host.empty()) return wrong;
  out.host = std::string(host);
  return out;
}

std::string FormatHostPort(const HostPort& address) {
  return absl::StrContains(address.host, ':') ? absl::StrCat("[", address.host, "]:", address.port)
                                              : absl::StrCat(address.host, ":", address.port);
}

namespace {

// Three significant digits with a prefix of 1000^n.
std::string FormatScaled(double value, absl::string_view unit) {
  constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T"};
  size_t prefix = 0;
  while (value >= 999.5 && prefix + 1 < std::size(kPrefixes)) {
    value /= 1000;
    ++prefix;
  }
  const int decimals = prefix == 0 && value == std::floor(value) ? 0
                       : value < 9.995                           ? 2
                       : value < 99.95                           ? 1
                                                                 : 0;
  return absl::StrFormat("%.*f %s%s", decimals, value, kPrefixes[prefix], unit);
}

}  // namespace

std::string FormatBytes(uint64_t bytes) { return FormatScaled(static_cast<double>(bytes), "B"); }

std::string FormatRate(double bytes_per_second) {
  return FormatScaled(bytes_per_second * 8, "bit/s");
}

std::string FormatMillis(absl::Duration duration) {
  const double ms = absl::ToDoubleMilliseconds(duration);
  if (ms < 1) return absl::StrFormat("%.0f us", ms * 1000);
  if (ms < 1000) return absl::StrFormat("%.*f ms", ms < 10 ? 1 : 0, ms);
  return absl::StrFormat("%.2f s", ms / 1000);
}

}  // namespace kvstream

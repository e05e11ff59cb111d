#include "codec/calibration_advice.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvstream {

int64_t CalibrationTokens(absl::Span<const KvView> samples, const CalibrationOptions& options) {
  int64_t tokens = 0;
  for (const KvView& sample : samples)
    tokens += std::max<int64_t>(0, sample.tokens - options.sink_tokens);
  return tokens;
}

int64_t WidestGroup(const KvGeometry& geometry, const CalibrationOptions& options) {
  switch (options.group) {
    case CalibrationOptions::Group::kHead:
      return geometry.head_size;
    case CalibrationOptions::Group::kLayers:
      return std::min<int64_t>(
          geometry.values_per_token(),
          int64_t{geometry.planes} * geometry.tensor_channels() * options.group_layers);
    case CalibrationOptions::Group::kModel:
      break;
  }
  return geometry.values_per_token();
}

std::vector<std::string> CalibrationWarnings(const KvGeometry& geometry,
                                             absl::Span<const KvView> samples,
                                             const CalibrationOptions& options) {
  const int64_t tokens = CalibrationTokens(samples, options);
  const int64_t channels = WidestGroup(geometry, options);
  if (tokens == 0 || tokens >= 2 * channels) return {};
  const std::string facts =
      absl::StrCat("a group has ", channels, " channels but the samples have ", tokens,
                   " tokens beyond the sinks: ");
  const std::string remedy =
      absl::StrCat(" Give at least ", 4 * channels, " tokens, or choose smaller groups.");
  if (tokens < channels) {
    return {absl::StrCat(facts,
                         "what later contexts hold beyond these tokens' directions is lost at "
                         "every level, the finest included.",
                         remedy)};
  }
  return {absl::StrCat(facts, "rates and errors of later contexts will be above the samples'.",
                       remedy)};
}

}  // namespace kvstream

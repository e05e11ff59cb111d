// Validation of what a client asks for and of the options.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/load/load_session.h"

namespace kvstream {
namespace {

constexpr size_t kMaxChunks = 65536;
constexpr size_t kMaxLevels = 64;
constexpr uint32_t kMaxChunkTokens = 1 << 24;
constexpr uint64_t kMaxFirstToken = uint64_t{1} << 40;
constexpr uint64_t kMaxSegmentBytes = uint64_t{1} << 36;

absl::Status CheckNumber(const char* name, double value, double max) {
  if (!std::isfinite(value) || value < 0 || value > max) {
    return absl::InvalidArgumentError(absl::StrCat(name, " must be between 0 and ", max));
  }
  return absl::OkStatus();
}

absl::Status CheckChunks(const std::vector<StoredChunkSizes>& chunks) {
  if (chunks.empty() || chunks.size() > kMaxChunks) {
    return absl::InvalidArgumentError(absl::StrCat("a load needs 1 to ", kMaxChunks, " chunks"));
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    const StoredChunkSizes& chunk = chunks[i];
    if (chunk.segment_bytes.empty() || chunk.segment_bytes.size() > kMaxLevels) {
      return absl::InvalidArgumentError(
          absl::StrCat("chunk ", i, " must have 1 to ", kMaxLevels, " levels"));
    }
    if (chunk.tokens == 0 || chunk.tokens > kMaxChunkTokens || chunk.first_token > kMaxFirstToken) {
      return absl::InvalidArgumentError(absl::StrCat("chunk ", i, " has impossible tokens"));
    }
    for (uint64_t bytes : chunk.segment_bytes) {
      if (bytes == 0 || bytes > kMaxSegmentBytes) {
        return absl::InvalidArgumentError(
            absl::StrCat("chunk ", i, " has a segment of ", bytes, " bytes"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckHeld(const LoadSpec& spec) {
  if (spec.held_levels.empty()) return absl::OkStatus();
  const size_t size = spec.chunks.size();
  if (spec.held_levels.size() != size) {
    return absl::InvalidArgumentError(
        absl::StrCat("held_levels has ", spec.held_levels.size(), " values for ", size, " chunks"));
  }
  if (spec.policy == LoadPolicy::kRecompute) {
    return absl::InvalidArgumentError("held_levels does not go with policy recompute");
  }
  const size_t base = spec.policy == LoadPolicy::kFixed ? spec.level : spec.floor_level;
  size_t missing = 0, begin = size, end = 0;
  for (size_t i = 0; i < size; ++i) {
    const size_t held = spec.held_levels[i], levels = spec.chunks[i].segment_bytes.size();
    if (held > levels || (held > 0 && held <= std::min(base, levels - 1))) {
      return absl::InvalidArgumentError(absl::StrCat("held_levels of chunk ", i, " is ", held,
                                                     ", not 0 or from the base to ", levels));
    }
    if (held > 0) continue;
    ++missing;
    begin = std::min(begin, i);
    end = i + 1;
  }
  if (missing == 0) return absl::OkStatus();
  // The stream and recompute take what is undecided from the ends of one range.
  const bool last = spec.ability == RecomputeAbility::kSuffix;
  const bool first =
      spec.ability == RecomputeAbility::kFront || spec.ability == RecomputeAbility::kAny;
  if (end - begin != missing || (last && end != size) || (first && begin != 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "held_levels: chunks ", begin, " to ", end - 1, " of ", size, " have ", missing,
        " that are not held, which is no order in which this ability's loads are left"));
  }
  return absl::OkStatus();
}

}  // namespace

double FloorBelowShare(double most, double floor, double below) {
  if (!(below > floor) || !(most > floor)) return 0;
  const double share = (most - floor) / (below - floor);
  return share < 1 ? share : 1;
}

absl::Status LoadSpec::Validate() const {
  absl::Status status = CheckChunks(chunks);
  if (!status.ok()) return status;
  const int levels = LevelsOf(chunks);
  if (level < 0 || level >= levels) {
    return absl::InvalidArgumentError(absl::StrCat("level must be below ", levels));
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    const int of_chunk = static_cast<int>(chunks[i].segment_bytes.size());
    if (floor_level < 0 || floor_level >= of_chunk) {
      return absl::InvalidArgumentError(
          absl::StrCat("floor_level must be below ", of_chunk, ", the levels of chunk ", i));
    }
  }
  // Not a number fails both.
  if (!(floor_below_share >= 0 && floor_below_share <= 1)) {
    return absl::InvalidArgumentError("floor_below_share must be 0 to 1");
  }
  if (floor_below_share > 0 && (policy != LoadPolicy::kFastest || floor_level == 0)) {
    return absl::InvalidArgumentError(
        "floor_below_share needs policy fastest and a floor_level above 0");
  }
  if (policy == LoadPolicy::kFixed && level < floor_level) {
    return absl::InvalidArgumentError("level must not be below floor_level");
  }
  if (deadline.has_value() &&
      (*deadline <= absl::ZeroDuration() || *deadline > absl::Hours(24 * 30))) {
    return absl::InvalidArgumentError("deadline must be positive and at most 30 days");
  }
  if ((policy == LoadPolicy::kDeadline || policy == LoadPolicy::kCacheGen) && !deadline) {
    return absl::InvalidArgumentError("this policy needs a deadline");
  }
  if (policy == LoadPolicy::kRecompute && ability == RecomputeAbility::kNone) {
    return absl::InvalidArgumentError("policy recompute needs a recompute ability");
  }
  for (const auto& check :
       {CheckNumber("prefill_seconds_per_token", prefill_seconds_per_token, 3600),
        CheckNumber("prefill_seconds_per_token_pair", prefill_seconds_per_token_pair, 3600),
        CheckNumber("decode_seconds_per_token", decode_seconds_per_token, 3600),
        CheckNumber("bandwidth_hint_bytes_per_second", bandwidth_hint_bytes_per_second, 1e15),
        CheckNumber("round_trip_hint_seconds", round_trip_hint_seconds, 3600)}) {
    if (!check.ok()) return check;
  }
  return CheckHeld(*this);
}

absl::Status LoadSessionOptions::Validate() const {
  if (frame_bytes == 0) return absl::InvalidArgumentError("frame_bytes must be positive");
  if (window_bytes_min == 0 || window_bytes_max < window_bytes_min) {
    return absl::InvalidArgumentError(
        "window_bytes_min must be positive and at most window_bytes_max");
  }
  if (client_idle_limit <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("client_idle_limit must be positive");
  }
  if (deadline_margin < absl::ZeroDuration() || deadline_margin == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError("deadline_margin must be finite and not negative");
  }
  absl::Status status = CheckNumber("recompute_patience", recompute_patience, 1e6);
  if (!status.ok()) return status;
  if (!(startup_bytes_per_second > 0) || !std::isfinite(startup_bytes_per_second)) {
    return absl::InvalidArgumentError("startup_bytes_per_second must be positive");
  }
  for (double weight : level_weights) {
    status = CheckNumber("level_weights", weight, 1e12);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace kvstream

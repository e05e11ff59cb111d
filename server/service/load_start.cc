#include "server/service/load_start.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/ids.h"

namespace kvstream {
namespace {

absl::StatusOr<absl::optional<absl::Duration>> ParseDeadline(const v1::LoadStart& start) {
  if (!start.has_deadline()) return absl::optional<absl::Duration>();
  const google::protobuf::Duration& proto = start.deadline();
  constexpr int64_t kMaxSeconds = 24 * 60 * 60;
  if (proto.seconds() < 0 || proto.seconds() > kMaxSeconds || proto.nanos() < 0 ||
      proto.nanos() > 999999999) {
    return absl::InvalidArgumentError("deadline is not from 0 to 24 hours");
  }
  const absl::Duration deadline = absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
  if (deadline == absl::ZeroDuration()) return absl::optional<absl::Duration>();
  return absl::optional<absl::Duration>(deadline);
}

absl::StatusOr<LoadPolicy> ParsePolicy(v1::Policy policy, bool has_deadline) {
  switch (policy) {
    case v1::POLICY_UNSPECIFIED:
      return has_deadline ? LoadPolicy::kDeadline : LoadPolicy::kFastest;
    case v1::POLICY_DEADLINE:
    case v1::POLICY_CACHEGEN:
      if (!has_deadline) {
        return absl::InvalidArgumentError(
            absl::StrCat(v1::Policy_Name(policy), " needs a deadline"));
      }
      return policy == v1::POLICY_DEADLINE ? LoadPolicy::kDeadline : LoadPolicy::kCacheGen;
    case v1::POLICY_FASTEST:
      return LoadPolicy::kFastest;
    case v1::POLICY_FIXED:
      return LoadPolicy::kFixed;
    case v1::POLICY_RECOMPUTE:
      return LoadPolicy::kRecompute;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("policy ", static_cast<int>(policy), " is not known to this server"));
  }
}

absl::StatusOr<RecomputeAbility> ParseAbility(v1::RecomputeAbility ability) {
  switch (ability) {
    case v1::RECOMPUTE_ABILITY_NONE:
      return RecomputeAbility::kNone;
    case v1::RECOMPUTE_ABILITY_SUFFIX:
      return RecomputeAbility::kSuffix;
    case v1::RECOMPUTE_ABILITY_ANY:
      return RecomputeAbility::kAny;
    case v1::RECOMPUTE_ABILITY_FRONT:
      return RecomputeAbility::kFront;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "recompute_ability ", static_cast<int>(ability), " is not known to this server"));
  }
}

absl::Status CheckRate(absl::string_view field, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is not a finite number from 0 up"));
}

// The part that needs no store.
absl::Status ParseSpec(const v1::LoadStart& start, LoadSpec& spec) {
  const absl::StatusOr<absl::optional<absl::Duration>> deadline = ParseDeadline(start);
  if (!deadline.ok()) return deadline.status();
  const absl::StatusOr<LoadPolicy> policy = ParsePolicy(start.policy(), deadline->has_value());
  if (!policy.ok()) return policy.status();
  const absl::StatusOr<RecomputeAbility> ability = ParseAbility(start.recompute_ability());
  if (!ability.ok()) return ability.status();
  absl::Status rates = CheckRate("prefill_seconds_per_token", start.prefill_seconds_per_token());
  rates.Update(CheckRate("prefill_seconds_per_token_pair", start.prefill_seconds_per_token_pair()));
  rates.Update(CheckRate("decode_seconds_per_token", start.decode_seconds_per_token()));
  rates.Update(
      CheckRate("bandwidth_hint_bytes_per_second", start.bandwidth_hint_bytes_per_second()));
  if (!rates.ok()) return rates;
  const double below = start.floor_below_share();
  if (!(below >= 0 && below <= 1)) {
    return absl::InvalidArgumentError("floor_below_share is not a number from 0 to 1");
  }
  if (below > 0 && (*policy != LoadPolicy::kFastest || start.floor_level() == 0)) {
    return absl::InvalidArgumentError(
        "floor_below_share needs POLICY_FASTEST and a floor_level above 0");
  }
  spec.floor_below_share = below;
  spec.policy = *policy;
  spec.deadline = *deadline;
  spec.ability = *ability;
  spec.prefill_seconds_per_token = start.prefill_seconds_per_token();
  spec.prefill_seconds_per_token_pair = start.prefill_seconds_per_token_pair();
  spec.decode_seconds_per_token = start.decode_seconds_per_token();
  spec.recompute_can_stop = start.recompute_can_stop();
  spec.bandwidth_hint_bytes_per_second = start.bandwidth_hint_bytes_per_second();
  return absl::OkStatus();
}

// `full_levels` of the profile, of which each chunk has those in spec.chunks.
absl::Status CheckLevels(const v1::LoadStart& start, size_t full_levels, LoadSpec& spec) {
  if (start.floor_level() >= full_levels) {
    return absl::InvalidArgumentError(absl::StrCat("floor_level is ", start.floor_level(),
                                                   "; the profile's finest is ", full_levels - 1));
  }
  if (spec.policy == LoadPolicy::kFixed && start.level() >= full_levels) {
    return absl::InvalidArgumentError(
        absl::StrCat("level is ", start.level(), "; the profile's finest is ", full_levels - 1));
  }
  for (size_t i = 0; i < spec.chunks.size(); ++i) {
    const size_t levels = spec.chunks[i].segment_bytes.size();
    if (start.floor_level() < levels) continue;
    return absl::NotFoundError(
        absl::StrCat("chunk ", i, " has lost its finest levels for lack of room: level ",
                     levels - 1, " is left, and floor_level is ", start.floor_level()));
  }
  spec.floor_level = static_cast<int>(start.floor_level());
  spec.level = spec.policy == LoadPolicy::kFixed
                   ? std::min(static_cast<int>(start.level()), LevelsOf(spec.chunks) - 1)
                   : 0;
  return absl::OkStatus();
}

// The levels that the client holds, where it holds any. What the store has lost of them since is
// made up in spec.chunks, by segments that nobody sends.
absl::Status TakeHeld(const v1::LoadStart& start, size_t full_levels, LoadSpec& spec) {
  if (start.held_levels().empty()) return absl::OkStatus();
  if (static_cast<size_t>(start.held_levels_size()) != spec.chunks.size()) {
    return absl::InvalidArgumentError(absl::StrCat("held_levels has ", start.held_levels_size(),
                                                   " values for ", spec.chunks.size(), " chunks"));
  }
  spec.held_levels.reserve(spec.chunks.size());
  for (size_t i = 0; i < spec.chunks.size(); ++i) {
    const uint32_t held = start.held_levels(static_cast<int>(i));
    if (held > full_levels) {
      return absl::InvalidArgumentError(absl::StrCat("held_levels of chunk ", i, " is ", held,
                                                     "; the profile has ", full_levels, " levels"));
    }
    spec.held_levels.push_back(static_cast<uint8_t>(held));
    std::vector<uint64_t>& segment_bytes = spec.chunks[i].segment_bytes;
    if (segment_bytes.size() < held) segment_bytes.resize(held, 1);
  }
  return absl::OkStatus();
}

std::string ChunkName(size_t index, const ChunkId& id) {
  return absl::StrCat("chunk ", index, " (", IdHex(id), ")");
}

// Fills spec.chunks from what the store knows, and returns the levels of a chunk that has lost
// none.
absl::StatusOr<size_t> ResolveChunks(const std::vector<ChunkId>& ids,
                                     const StoredProfileId& profile_id, ChunkStore& store,
                                     LoadSpec& spec) {
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> infos = store.GetInfos(ids);
  if (!infos.ok()) return infos.status();
  spec.chunks.reserve(ids.size());
  size_t full_levels = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!(*infos)[i].has_value()) {
      return absl::NotFoundError(
          absl::StrCat(ChunkName(i, ids[i]), " is not stored; Lookup tells which chunks are"));
    }
    ChunkInfo& info = *(*infos)[i];
    if (info.profile_id != profile_id) {
      return absl::FailedPreconditionError(
          absl::StrCat(ChunkName(i, ids[i]), " belongs to profile ", IdHex(info.profile_id)));
    }
    const size_t levels = info.segment_bytes.size();
    if (i == 0) full_levels = levels + info.levels_lost;
    if (levels == 0 || levels + info.levels_lost != full_levels) {
      return absl::DataLossError(absl::StrCat(ChunkName(i, ids[i]), " has ", levels, " of ",
                                              levels + info.levels_lost,
                                              " levels in the store, chunk 0 ", full_levels));
    }
    if (i > 0) {
      const StoredChunkSizes& before = spec.chunks.back();
      if (info.first_token != before.first_token + before.tokens) {
        return absl::InvalidArgumentError(absl::StrCat(
            ChunkName(i, ids[i]), " starts at token ", info.first_token, ", not where chunk ",
            i - 1, " ends; chunk_ids must be consecutive chunks of one context"));
      }
    }
    spec.chunks.push_back({info.tokens, info.first_token, std::move(info.segment_bytes)});
  }
  return full_levels;
}

}  // namespace

absl::StatusOr<PreparedLoad> PrepareLoad(const v1::LoadStart& start,
                                         const RpcEnvironment& environment) {
  PreparedLoad load;
  const absl::StatusOr<StoredProfileId> profile_id = ParseId("profile_id", start.profile_id());
  if (!profile_id.ok()) return profile_id.status();
  if (start.chunk_ids().empty()) return absl::InvalidArgumentError("chunk_ids is empty");
  absl::StatusOr<std::vector<ChunkId>> ids = ParseChunkIds(start.chunk_ids());
  if (!ids.ok()) return ids.status();
  absl::Status status = ParseSpec(start, load.spec);
  if (!status.ok()) return status;
  load.ids = *std::move(ids);
  load.chunks = Budget::Share(environment.load_chunks);
  if (!load.chunks.Grow(load.ids.size())) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "loads in flight have too many chunks for ", load.ids.size(), " more (at most ",
        environment.load_chunks->limit(), ", --max-load-chunks); try again later"));
  }
  status = environment.profiles->CheckStored(*profile_id);
  if (!status.ok()) return status;
  absl::StatusOr<ChunkLeases::Lease> lease = environment.leases->Acquire(load.ids);
  if (!lease.ok()) return lease.status();
  load.lease = *std::move(lease);
  load.hold = environment.store->Hold(load.ids);
  const absl::StatusOr<size_t> full_levels =
      ResolveChunks(load.ids, *profile_id, *environment.store, load.spec);
  if (!full_levels.ok()) return full_levels.status();
  status = TakeHeld(start, *full_levels, load.spec);
  if (status.ok()) status = CheckLevels(start, *full_levels, load.spec);
  if (!status.ok()) return status;
  environment.store->Touch(load.ids);
  return load;
}

absl::StatusOr<ClientProgress> ParseProgress(const v1::LoadProgress& progress) {
  constexpr double kMaxRecomputeSeconds = 30 * 24 * 60 * 60.0;
  if (progress.clock_ns() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError("progress: clock_ns is beyond 63 bits");
  }
  // Also false for NaN.
  if (!(progress.recompute_seconds() >= 0 &&
        progress.recompute_seconds() <= kMaxRecomputeSeconds)) {
    return absl::InvalidArgumentError("progress: recompute_seconds is not from 0 to 30 days");
  }
  ClientProgress parsed;
  parsed.bytes_received = progress.bytes_received();
  parsed.clock = absl::Nanoseconds(static_cast<int64_t>(progress.clock_ns()));
  parsed.chunks_ready = progress.chunks_ready();
  parsed.recomputed_up_to = progress.recomputed_up_to();
  parsed.recomputed_tokens = progress.recomputed_tokens();
  parsed.recompute_time = absl::Seconds(progress.recompute_seconds());
  if (!v1::OrderProgress::State_IsValid(progress.order().newest())) {
    return absl::InvalidArgumentError("progress: order.newest is not known to this server");
  }
  parsed.order.first = progress.order().first();
  parsed.order.up_to = progress.order().up_to();
  switch (progress.order().newest()) {
    case v1::OrderProgress::STATE_DONE:
      parsed.order.newest = OrderProgress::State::kDone;
      break;
    case v1::OrderProgress::STATE_GIVEN_UP:
      parsed.order.newest = OrderProgress::State::kGivenUp;
      break;
    default:
      parsed.order.newest = OrderProgress::State::kBegun;
      break;
  }
  if (progress.has_taken()) {
    parsed.taken.emplace();
    parsed.taken->chunks.assign(progress.taken().chunks().begin(), progress.taken().chunks().end());
    parsed.taken->late = progress.taken().late();
  }
  parsed.damaged_chunks.assign(progress.damaged_chunks().begin(), progress.damaged_chunks().end());
  return parsed;
}

v1::ChunkPlan ToChunkPlan(uint32_t chunk, const ChunkDecision& decision) {
  v1::ChunkPlan plan;
  plan.set_chunk(chunk);
  if (decision.level.has_value()) {
    plan.set_level(static_cast<uint32_t>(*decision.level));
    return plan;
  }
  v1::Recompute::Reason reason = v1::Recompute::REASON_UNSPECIFIED;
  switch (decision.reason) {
    case RecomputeReason::kFaster:
      reason = v1::Recompute::REASON_FASTER;
      break;
    case RecomputeReason::kDataLoss:
      reason = v1::Recompute::REASON_DATA_LOSS;
      break;
    case RecomputeReason::kPolicy:
      reason = v1::Recompute::REASON_POLICY;
      break;
  }
  plan.mutable_recompute()->set_reason(reason);
  return plan;
}

}  // namespace kvstream

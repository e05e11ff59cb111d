// Random loads and random calls against invariants. Replay a failure with --gtest_filter and
// KVSTREAM_TEST_SEED.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "absl/types/variant.h"
#include "gtest/gtest.h"
#include "server/load/load_session.h"
#include "server/load/testing/link_simulator.h"
#include "server/load/testing/session_checker.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t Below(uint64_t n) { return engine_() % n; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  double LogUniform(double low, double high) {
    return low * std::pow(high / low, static_cast<double>(engine_() >> 11) / (uint64_t{1} << 53));
  }

 private:
  std::mt19937_64 engine_;
};

uint64_t Seed() {
  const char* given = std::getenv("KVSTREAM_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

// As a load is left by another server.
void HoldSome(Random* random, LoadSpec* spec) {
  if (spec->policy == LoadPolicy::kRecompute) return;
  const uint64_t size = spec->chunks.size();
  uint64_t begin = random->Below(size + 1);
  uint64_t end = begin + random->Below(size - begin + 1);
  if (spec->ability == RecomputeAbility::kSuffix) end = size;
  if (spec->ability == RecomputeAbility::kAny || spec->ability == RecomputeAbility::kFront) {
    begin = 0;
  }
  const int base = spec->policy == LoadPolicy::kFixed ? spec->level : spec->floor_level;
  for (uint64_t i = 0; i < size; ++i) {
    const int levels = static_cast<int>(spec->chunks[i].segment_bytes.size());
    const int least = std::min(base, levels - 1) + 1;
    const int held = least + static_cast<int>(random->Below(levels - least + 1));
    spec->held_levels.push_back(i >= begin && i < end ? 0 : static_cast<uint8_t>(held));
  }
}

LoadSpec RandomSpec(Random* random, uint32_t max_chunks, double max_segment) {
  LoadSpec spec = UniformSpec(1 + static_cast<uint32_t>(random->Below(max_chunks)),
                              std::vector<uint64_t>(1 + random->Below(5), 1));
  uint64_t first_token = random->OneIn(4) ? random->Below(100000) : 0;
  for (StoredChunkSizes& chunk : spec.chunks) {
    chunk.tokens = 1 + static_cast<uint32_t>(random->OneIn(5) ? random->Below(1000) : 255);
    chunk.first_token = first_token;
    first_token += chunk.tokens;
    for (uint64_t& bytes : chunk.segment_bytes) {
      bytes = static_cast<uint64_t>(random->LogUniform(1, max_segment));
    }
  }
  const uint64_t levels = spec.chunks[0].segment_bytes.size();
  spec.policy = static_cast<LoadPolicy>(random->Below(5));
  spec.ability = static_cast<RecomputeAbility>(random->Below(4));
  if (spec.policy == LoadPolicy::kRecompute && spec.ability == RecomputeAbility::kNone) {
    spec.ability = RecomputeAbility::kSuffix;
  }
  spec.deadline = absl::Seconds(random->LogUniform(1e-3, 30));
  spec.floor_level = static_cast<int>(random->Below(levels));
  spec.level = spec.floor_level + static_cast<int>(random->Below(levels - spec.floor_level));
  // Chunks that lost their finest levels, but not the floor; perhaps all of them.
  const bool lose = random->OneIn(2);
  const uint64_t whole = 1 + random->Below(4);
  for (StoredChunkSizes& chunk : spec.chunks) {
    if (!lose || random->OneIn(whole)) continue;
    const uint64_t lost = random->Below(levels - spec.floor_level);
    chunk.segment_bytes.resize(levels - lost);
  }
  spec.level = std::min(spec.level, LevelsOf(spec.chunks) - 1);
  if (spec.policy == LoadPolicy::kFastest && spec.floor_level > 0 && random->OneIn(2)) {
    spec.floor_below_share = random->OneIn(4) ? 1 : random->LogUniform(1e-3, 1);
  }
  if (!random->OneIn(4)) spec.prefill_seconds_per_token = random->LogUniform(1e-6, 1e-2);
  if (random->OneIn(2)) spec.prefill_seconds_per_token_pair = random->LogUniform(1e-10, 1e-6);
  if (random->OneIn(2)) spec.decode_seconds_per_token = random->LogUniform(1e-8, 1e-4);
  spec.recompute_can_stop = random->OneIn(2);
  if (random->OneIn(4)) spec.bandwidth_hint_bytes_per_second = random->LogUniform(1, 1e12);
  if (random->OneIn(3)) HoldSome(random, &spec);
  return spec;
}

LoadSessionOptions RandomOptions(Random* random, size_t levels) {
  LoadSessionOptions options;
  if (random->OneIn(2)) return options;
  options.window_bytes_min = 1 + random->Below(200000);
  options.window_bytes_max = options.window_bytes_min + random->Below(1 << 24);
  options.frame_bytes = 1 + random->Below(1 << 18);
  if (options.frame_bytes < 512) options.frame_bytes = 512;  // time
  if (options.window_bytes_min < 512) options.window_bytes_min = 512;
  if (options.window_bytes_max < 512) options.window_bytes_max = 512;
  for (size_t i = 0; random->OneIn(2) && i < levels; ++i) {
    options.level_weights.resize(levels, 0);
    options.level_weights[i] = random->LogUniform(1e-3, 1e3);
  }
  return options;
}

TEST(LoadSessionFuzzTest, RandomLoadsOverRandomLinksEnd) {
  const uint64_t seed = Seed();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  int finished = 0;
  for (int round = 0; round < 1500; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", round " << round);
    Random random(seed + round);
    const LoadSpec spec = RandomSpec(&random, 60, 2e5);
    const LoadSessionOptions options = RandomOptions(&random, LevelsOf(spec.chunks));
    SimulatedLink link =
        ConstantLink(random.LogUniform(1, 5000), absl::Seconds(random.LogUniform(1e-5, 0.2)));
    absl::Duration at;
    for (uint64_t i = random.Below(6); i > 0; --i) {
      at += absl::Seconds(random.LogUniform(1e-3, 2));
      const bool stall = random.OneIn(3);
      link.trace.push_back({at, stall ? 0 : random.LogUniform(1, 5000) * kMbit});
    }
    if (link.trace.back().bytes_per_second == 0) link.trace.push_back({at + absl::Seconds(1), 1e7});
    SimulatedClient client;
    const double error = random.OneIn(2) ? 1 : random.LogUniform(0.05, 20);
    client.prefill_seconds_per_token = std::max(spec.prefill_seconds_per_token * error, 1e-6);
    client.prefill_seconds_per_token_pair = spec.prefill_seconds_per_token_pair * error;
    client.decode_seconds_per_token = random.OneIn(2) ? spec.decode_seconds_per_token : 1e-6;
    client.report_every_frame = random.OneIn(2);
    client.report_period = absl::Seconds(random.LogUniform(1e-3, 0.1));
    SimulatedStore store;
    const bool losses = random.OneIn(4);
    for (uint64_t i = 0; losses && i < 3; ++i) {
      const uint32_t chunk = static_cast<uint32_t>(random.Below(spec.chunks.size()));
      if (random.OneIn(2)) {
        client.damaged.insert(chunk);
      } else {
        store.unreadable.insert(
            {chunk, static_cast<uint32_t>(random.Below(LevelsOf(spec.chunks)))});
      }
    }
    const bool vanishes = random.OneIn(10);
    if (vanishes) client.vanishes_at = absl::Seconds(random.LogUniform(1e-3, 3));
    const SimulationResult result = Simulate(spec, options, link, client, store);
    if (result.status.ok()) {
      ++finished;
      EXPECT_LE(result.max_in_flight, std::max(options.window_bytes_max, options.window_bytes_min));
      continue;
    }
    const absl::StatusCode code = result.status.code();
    EXPECT_TRUE((losses && spec.ability == RecomputeAbility::kNone &&
                 code == absl::StatusCode::kDataLoss) ||
                // Beyond the patience that the session has with a client that declared too much.
                ((vanishes || error > 3) && code == absl::StatusCode::kDeadlineExceeded))
        << result.status;
  }
  EXPECT_GT(finished, 1000);
}

// A client that says anything, at any time.
TEST(LoadSessionFuzzTest, AnyCallsInAnyOrder) {
  const uint64_t seed = Seed();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  int finished = 0, failed = 0;
  for (int round = 0; round < 3000; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", round " << round);
    Random random(seed + round);
    const LoadSpec spec = RandomSpec(&random, 12, 3e5);
    const LoadSessionOptions options = RandomOptions(&random, LevelsOf(spec.chunks));
    absl::Duration now = absl::Seconds(random.LogUniform(1e-3, 1e6));
    auto created = LoadSession::Create(spec, options, now);
    ASSERT_TRUE(created.ok()) << created.status();
    LoadSession& session = **created;
    SessionChecker checker(spec);
    const bool hostile = random.OneIn(2);
    ClientProgress progress;
    uint64_t sent = 0;
    SendOrder ordered;
    bool over = false;
    for (int step = 0; step < 400 && !over; ++step) {
      if (random.OneIn(3)) now += absl::Seconds(random.LogUniform(1e-6, hostile ? 20 : 0.1));
      if (random.OneIn(4)) {
        progress.bytes_received += random.Below(sent - progress.bytes_received + 1);
        progress.clock += absl::Seconds(random.LogUniform(1e-9, 1));
        if (random.OneIn(3)) progress.bytes_received = sent;
        progress.chunks_ready = static_cast<uint32_t>(
            random.Below(hostile ? spec.chunks.size() + 2 : session.state(now).chunks_ready + 1));
        if (random.OneIn(5)) {
          const uint64_t tokens = spec.chunks[0].tokens;
          progress.recomputed_tokens += random.Below(tokens);
          progress.recompute_time += absl::Seconds(random.LogUniform(1e-9, 10));
          progress.recomputed_up_to += random.OneIn(2) ? 1 : 0;
        }
        if (ordered.end > 0 && random.OneIn(3)) {
          OrderProgress& order = progress.order;
          if (order.up_to == order.first) order.first = order.up_to = ordered.first;
          if (hostile && random.OneIn(20)) order.first = random.Below(spec.chunks.size() + 2);
          order.up_to += static_cast<uint32_t>(random.Below(hostile ? 4 : 2));
          order.newest = static_cast<OrderProgress::State>(random.Below(hostile ? 3 : 2));
        }
        if (hostile && random.OneIn(10)) {
          progress.damaged_chunks = {static_cast<uint32_t>(random.Below(spec.chunks.size() + 1))};
        }
        ClientProgress report = progress;
        if (hostile && random.OneIn(20)) {
          switch (random.Below(5)) {
            case 0:
              report.bytes_received = ~uint64_t{0};
              break;
            case 1:
              report.clock = -absl::InfiniteDuration();
              break;
            case 2:
              report.recompute_time = absl::InfiniteDuration();
              break;
            case 3:
              report.recomputed_tokens = ~uint64_t{0};
              break;
            default:
              report.chunks_ready = ~uint32_t{0};
              break;
          }
        }
        progress.damaged_chunks.clear();
        const absl::Status status = session.OnProgress(report, now);
        if (!status.ok()) {
          ASSERT_TRUE(status.code() == absl::StatusCode::kInvalidArgument ||
                      status.code() == absl::StatusCode::kDataLoss)
              << status;
          ASSERT_TRUE(absl::holds_alternative<Fail>(session.Next(now)));
        } else {
          checker.OnProgress(report);
        }
        continue;
      }
      if (hostile && random.OneIn(50)) {
        // Of something that was perhaps never asked for.
        session.OnSegmentUnavailable(static_cast<uint32_t>(random.Below(spec.chunks.size() + 1)),
                                     static_cast<uint32_t>(random.Below(6)),
                                     absl::InternalError("?"), now);
        // The checker cannot follow whether that was the newest data.
        break;
      }
      const LoadSessionState before = session.state(now);
      ASSERT_TRUE(std::isfinite(before.bandwidth_bytes_per_second));
      ASSERT_TRUE(std::isfinite(before.bandwidth_low_bytes_per_second));
      const LoadAction action = session.Next(now);
      if (const auto* plan = absl::get_if<SendPlan>(&action)) {
        const absl::Status status = checker.OnPlan(*plan);
        ASSERT_TRUE(status.ok()) << status;
      } else if (const auto* order = absl::get_if<SendOrder>(&action)) {
        ASSERT_TRUE(checker.OnOrder(*order).ok()) << checker.OnOrder(*order);
        if (order->first < order->end) ordered = *order;
      } else if (const auto* data = absl::get_if<SendData>(&action)) {
        const absl::Status status = checker.OnData(
            *data, before.bytes_sent - before.bytes_acknowledged, before.window_bytes);
        ASSERT_TRUE(status.ok()) << status;
        sent += data->size;
        if (random.OneIn(60)) {
          checker.OnUnavailable(*data);
          sent -= data->size;
          if (random.OneIn(2)) {
            // A report overtakes the store's answer.
            progress.clock += absl::Milliseconds(1);
            ClientProgress report = progress;
            if (random.OneIn(4)) report.damaged_chunks = {data->chunk};
            if (hostile && random.OneIn(4)) report.bytes_received = sent + data->size;
            if (session.OnProgress(report, now).ok()) checker.OnProgress(report);
          }
          session.OnSegmentUnavailable(data->chunk, data->level, absl::DataLossError("gone"), now);
        }
        const LoadSessionState after = session.state(now);
        ASSERT_GE(after.bytes_sent, after.bytes_acknowledged);
        if (!hostile) {
          ASSERT_EQ(after.bytes_sent, sent);
        }
      } else if (const auto* wait = absl::get_if<Wait>(&action)) {
        ASSERT_GT(wait->until, now);
      } else if (const auto* finish = absl::get_if<Finish>(&action)) {
        ASSERT_TRUE(checker.OnFinish(*finish, sent).ok()) << checker.OnFinish(*finish, sent);
        ++finished;
        over = true;
      } else {
        ASSERT_FALSE(absl::get<Fail>(action).status.ok());
        ++failed;
        over = true;
      }
    }
  }
  EXPECT_GT(finished + failed, 100);
}

}  // namespace
}  // namespace kvstream

// Cost of planning. Goal: one planning step with 500 undecided chunks in under 20 us.
#include "benchmark/benchmark.h"
#include "server/load/chunk_table.h"
#include "server/load/level_planner.h"
#include "server/load/load_session.h"
#include "server/load/testing/specs.h"

namespace kvstream {
namespace {

SplitInput Input(const ChunkTable& table, BaseOrder order) {
  SplitInput in;
  in.chunks = &table;
  in.order = order;
  in.open = {0, table.size(), 0};
  in.view.rate = 12.5e6;
  in.view.rate_low = in.view.rate_hoped = 11e6;
  in.view.rtt_s = in.view.latency_s = in.view.latency_low_s = 0.02;
  // No split is in time, so that both planners run to their end.
  in.view.time_left_s = 0.001 * table.size();
  in.may_recompute = true;
  in.prefill = PrefillModel(1e-4, 1e-9);
  return in;
}

void BM_Split(benchmark::State& state) {
  const ChunkTable table(
      UniformSpec(static_cast<uint32_t>(state.range(0)), {800, 1200, 2000, 3000}).chunks);
  const SplitInput in =
      Input(table, state.range(1) != 0 ? BaseOrder::kBackward : BaseOrder::kForward);
  for (auto _ : state) benchmark::DoNotOptimize(SplitForQuality(in));
}
BENCHMARK(BM_Split)->ArgNames({"chunks", "backward"})->ArgsProduct({{8, 500, 8192, 65536}, {0, 1}});

// What a session does per report: take it, plan, pick and send the next frame.
void BM_SessionStep(benchmark::State& state) {
  LoadSpec spec = UniformSpec(500, {1 << 20, 1 << 20, 1 << 20, 1 << 20});
  spec.policy = LoadPolicy::kDeadline;
  spec.deadline = absl::Hours(1);
  spec.ability = static_cast<RecomputeAbility>(state.range(0));
  if (spec.ability != RecomputeAbility::kNone) spec.prefill_seconds_per_token = 0.1;
  absl::Duration now;
  auto session = LoadSession::Create(spec, {}, now);
  ClientProgress progress;
  for (auto _ : state) {
    now += absl::Milliseconds(10);
    const LoadAction action = (*session)->Next(now);
    if (const auto* data = absl::get_if<SendData>(&action)) {
      progress.bytes_received += data->size;
    }
    progress.clock = now;
    if (!(*session)->OnProgress(progress, now).ok()) state.SkipWithError("rejected");
  }
}
// So many that the load is not through.
BENCHMARK(BM_SessionStep)->ArgName("ability")->DenseRange(0, 3)->Iterations(200000);

}  // namespace
}  // namespace kvstream

BENCHMARK_MAIN();

// Throughput of Load over loopback TCP in one process: memory store, generated stubs on the client,
// which reports every message. Arguments: segment size, loads at once.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

void BM_FixedLevelLoad(benchmark::State& state) {
  const auto segment = static_cast<size_t>(state.range(0));
  const int loads = static_cast<int>(state.range(1));
  ServerOptions options = TestServer::Options();
  options.put_buffer_bytes = uint64_t{4} << 30;
  TestServer server(options);
  TestContext context;
  context.segment_bytes = {segment};
  context.chunks = static_cast<int>((size_t{256} << 20) / segment);
  if (!server.PutContext(context).ok()) {
    state.SkipWithError("put failed");
    return;
  }
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  uint64_t bytes = 0;
  std::atomic<uint64_t> frames{0};
  for (auto _ : state) {
    std::vector<std::thread> clients;
    std::vector<uint64_t> received(static_cast<size_t>(loads));
    for (int i = 0; i < loads; ++i) {
      clients.emplace_back([&, i] {
        auto stub = v1::KVStream::NewStub(server.NewChannel());
        ManualLoad load(*stub);
        load.SendStart(start);
        uint64_t got = 0;
        while (auto response = load.Receive()) {
          if (response->has_summary()) break;
          if (!response->has_data()) continue;
          ++frames;
          got += response->data().data().size();
          load.SendProgress(got, static_cast<uint32_t>(got / segment));
        }
        if (load.Finish().ok()) received[static_cast<size_t>(i)] = got;
      });
    }
    for (std::thread& client : clients) client.join();
    for (const uint64_t got : received) bytes += got;
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes));
  state.counters["frame_bytes"] = static_cast<double>(bytes) / static_cast<double>(frames);
}
BENCHMARK(BM_FixedLevelLoad)
    ->ArgNames({"segment", "loads"})
    ->Args({16 << 10, 1})
    ->Args({256 << 10, 1})
    ->Args({4 << 20, 1})
    ->Args({256 << 10, 4})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();

}  // namespace
}  // namespace kvstream

BENCHMARK_MAIN();

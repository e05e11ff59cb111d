// GB/s of BF16 that the device decoder produces and the encoder takes, beside the device's own copy
// in the same run.
//
// Three figures a row: `kernels`, the device's time for a batch that is already there; `call`, all
// of DeviceDecoder::Decode from segments in host memory (checks, copy, kernels), calls in flight;
// and `copy`, a device-to-device copy of as many bytes. Every row's KV is compared with
// ChunkDecoder's. Exit status: 0; 1 if some KV is wrong; 2 if there is no device.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "codec/cuda/benchmark_model.h"
#include "codec/cuda/device_decoder.h"
#include "codec/cuda/device_encoder.h"
#include "codec/cuda/internal/backend.h"
#include "codec/cuda/internal/decode_batch.h"
#include "codec/cuda/internal/device_tables.h"
#include "codec/cuda/internal/staging.h"
#include "codec/cuda/internal/workspace.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/float16.h"
#include "codec/segment.h"

#ifdef KVSTREAM_CUDA_FOUND
#include <cuda_runtime_api.h>
#endif

namespace kvstream {
namespace {

constexpr int kTokens = 256;
constexpr int kRounds = 10;
constexpr int64_t kFirstPosition = 4096;  // beyond the exact tokens

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(value);
}
void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}
// What one thread of the host does for a chunk before the device can start: parse, hash, copy to
// staging; beside a copy of the segments' bytes in the same run.
int HostMain() {
  const BenchmarkModel model = MakeBenchmarkModel(32, 8, 128, 1, 2048);
  const std::vector<uint16_t> kv = MakeBenchmarkKv(model, kTokens, kFirstPosition, 1);
  const EncodedChunk chunk =
      Must(Must(ChunkEncoder::Create(model.profile))
               ->Encode(ViewOfKv(model.geometry, kv, kTokens), kFirstPosition));
  const std::shared_ptr<cuda::Backend> backend = cuda::CreateHostBackend();
  const auto tables = Must(cuda::DeviceTables::Create(backend, model.profile, {}));
  cuda::DecodeBatch batch(*tables);
  cuda::Staging staging;
  Must(staging.Create(backend, kv.size()));
  std::printf("host's part of decoding a chunk of %d tokens, 8B, one layer a group\n", kTokens);
  std::printf("%5s %10s %9s %9s %19s %14s %14s\n", "level", "segments", "prepare", "memcpy",
              "BF16 that it feeds", "level's blocks", "longest, steps");
  std::vector<absl::string_view> segments;
  for (const std::string& segment : chunk.segments) {
    segments.push_back(segment);
    size_t bytes = 0;
    for (absl::string_view bytes_of : segments) bytes += bytes_of.size();
    size_t blocks = 0;
    uint64_t steps = 0;  // of a warp in the level's longest block
    std::vector<double> prepare_ms;
    std::vector<double> copy_ms;
    std::string copy(bytes, 0);
    for (int round = 0; round < kRounds; ++round) {
      const auto begin = std::chrono::steady_clock::now();
      cuda::ParsedChunk parsed;
      Must(cuda::ParseChunk(model.profile->data(), segments, &parsed));
      Must(staging.Begin(backend, batch.StagingBytes({&parsed, 1})));
      cuda::BatchDev device = {};
      std::vector<cuda::LevelDev> levels;
      int failed = 0;
      Must(batch.Prepare({&parsed, 1}, &staging, &device, &levels, &failed));
      const auto middle = std::chrono::steady_clock::now();
      blocks = parsed.levels.back().blocks.size();
      for (const BlockEntry& block : parsed.levels.back().blocks)
        steps = std::max<uint64_t>(steps, uint64_t{block.coordinates} * (kTokens / cuda::kWarp));
      size_t at = 0;
      for (absl::string_view from : segments) {
        std::memcpy(&copy[at], from.data(), from.size());
        at += from.size();
      }
      const auto end = std::chrono::steady_clock::now();
      prepare_ms.push_back(std::chrono::duration<double, std::milli>(middle - begin).count());
      copy_ms.push_back(std::chrono::duration<double, std::milli>(end - middle).count());
    }
    std::sort(prepare_ms.begin(), prepare_ms.end());
    std::sort(copy_ms.begin(), copy_ms.end());
    const double ms = prepare_ms[kRounds / 2];
    std::printf("%5zu %7.2f MB %6.2f ms %6.2f ms %14.1f GB/s %14zu %14llu\n", segments.size() - 1,
                static_cast<double>(bytes) * 1e-6, ms, copy_ms[kRounds / 2],
                static_cast<double>(kv.size()) * 2e-6 / ms, blocks,
                static_cast<unsigned long long>(steps));
  }
  return 0;
}

#ifdef KVSTREAM_CUDA_FOUND

void Must(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "cuda: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

// Median milliseconds on the device of `run`, which enqueues work on the stream.
template <typename Run>
double DeviceMs(cudaStream_t stream, Run run) {
  cudaEvent_t begin;
  cudaEvent_t end;
  Must(cudaEventCreate(&begin));
  Must(cudaEventCreate(&end));
  std::vector<float> times;
  for (int round = 0; round < kRounds + 2; ++round) {
    Must(cudaEventRecord(begin, stream));
    run();
    Must(cudaEventRecord(end, stream));
    Must(cudaEventSynchronize(end));
    float ms = 0;
    Must(cudaEventElapsedTime(&ms, begin, end));
    if (round >= 2) times.push_back(ms);
  }
  Must(cudaEventDestroy(begin));
  Must(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

struct Setup {
  const char* name;
  int layers;
  int group_layers;
  int rank;
};

class DecodeBenchmark {
 public:
  DecodeBenchmark(const Setup& setup, int chunks_max)
      : setup_(setup),
        model_(MakeBenchmarkModel(setup.layers, 8, 128, setup.group_layers, setup.rank)),
        chunk_values_(model_.geometry.values_per_token() * kTokens) {
    const std::vector<uint16_t> kv = MakeBenchmarkKv(model_, kTokens, kFirstPosition, 1);
    chunk_ = Must(Must(ChunkEncoder::Create(model_.profile))
                      ->Encode(ViewOfKv(model_.geometry, kv, kTokens), kFirstPosition));
    backend_ = Must(cuda::CreateCudaBackend(0));
    tables_ = Must(cuda::DeviceTables::Create(backend_, model_.profile, {}));
    DeviceDecoderOptions options;
    options.max_batch_chunks = std::min(chunks_max, 8);
    decoder_ = Must(DeviceDecoder::Create(model_.profile, options));
    Must(cudaStreamCreate(&stream_));
    // Half of what is free, at most: the output and the source of the copy.
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    Must(cudaMemGetInfo(&free_bytes, &total_bytes));
    const size_t chunk_bytes = static_cast<size_t>(chunk_values_) * 2;
    chunks_max_ = static_cast<int>(
        std::min<size_t>(chunks_max, std::max<size_t>(1, free_bytes / 4 / chunk_bytes)));
    Must(cudaMalloc(&out_, chunk_bytes * chunks_max_));
    Must(cudaMalloc(&copy_, chunk_bytes * chunks_max_));
  }
  ~DecodeBenchmark() {
    decoder_.reset();
    (void)cudaFree(out_);
    (void)cudaFree(copy_);
    (void)cudaStreamDestroy(stream_);
  }

  // All levels from the KV that the last Run left; false if they do not decode to it.
  bool RunEncode(int chunks) {
    if (chunks > chunks_max_) return true;
    const size_t bytes = static_cast<size_t>(chunk_values_) * 2 * chunks;
    DeviceEncoderOptions options;
    options.max_batch_chunks = std::min(chunks, 8);
    auto encoder = Must(DeviceEncoder::Create(model_.profile, options));
    const DeviceKvView view = View(chunks);
    std::vector<EncodedChunk> encoded = Must(encoder->Encode(view, kFirstPosition, stream_));
    const auto begin = std::chrono::steady_clock::now();
    for (int round = 0; round < kRounds; ++round)
      encoded = Must(encoder->Encode(view, kFirstPosition, stream_));
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - begin;
    const double copy_ms = DeviceMs(stream_, [&] {
      Must(cudaMemcpyAsync(copy_, out_, bytes, cudaMemcpyDeviceToDevice, stream_));
    });
    size_t coded = 0;
    for (const std::string& segment : encoded[0].segments) coded += segment.size();
    const std::vector<absl::string_view> segments(encoded[0].segments.begin(),
                                                  encoded[0].segments.end());
    // Half a step of 0.04 deviations, and BF16.
    const bool right = Verify(1, chunks, segments, 3e-2);
    const double gb = static_cast<double>(bytes) * 1e-6;
    const double call_ms = elapsed.count() / kRounds;
    std::printf("%-22s %6d %5s %8.3f %9s %9.1f %9.1f %7.1f%% %s\n", setup_.name, chunks, "enc",
                static_cast<double>(coded) * 8 / static_cast<double>(chunk_values_), "-",
                gb / call_ms, gb / copy_ms, 100 * copy_ms / call_ms, right ? "ok" : "WRONG");
    std::fflush(stdout);
    return right;
  }

  // False if the KV is wrong.
  bool Run(int chunks, int level) {
    if (chunks > chunks_max_) return true;
    const size_t bytes = static_cast<size_t>(chunk_values_) * 2 * chunks;
    Must(cudaMemset(out_, 0xff, bytes));  // NaN
    const DeviceKvView view = View(chunks);
    const std::vector<absl::string_view> segments(chunk_.segments.begin(),
                                                  chunk_.segments.begin() + level + 1);
    std::vector<DeviceChunk> jobs;
    for (int i = 0; i < chunks; ++i) jobs.push_back({segments, int64_t{i} * kTokens});
    const double call_ms = CallMs(jobs, view);
    const bool right = Verify(chunks, chunks, segments, 2e-3);
    const double kernel_ms = KernelMs(jobs, view);
    const double copy_ms = DeviceMs(stream_, [&] {
      Must(cudaMemcpyAsync(copy_, out_, bytes, cudaMemcpyDeviceToDevice, stream_));
    });
    size_t coded = 0;
    for (absl::string_view segment : segments) coded += segment.size();
    const double gb = static_cast<double>(bytes) * 1e-6;  // ms -> GB/s
    std::printf("%-22s %6d %5d %8.3f %9.1f %9.1f %9.1f %7.1f%% %s\n", setup_.name, chunks, level,
                static_cast<double>(coded) * 8 / static_cast<double>(chunk_values_), gb / kernel_ms,
                gb / call_ms, gb / copy_ms, 100 * copy_ms / kernel_ms, right ? "ok" : "WRONG");
    std::fflush(stdout);
    return right;
  }

 private:
  DeviceKvView View(int chunks) const {
    DeviceKvView view;
    view.tokens = int64_t{chunks} * kTokens;
    const int64_t row = int64_t{model_.geometry.kv_heads} * model_.geometry.head_size;
    for (int tensor = 0; tensor < 2 * model_.geometry.layers; ++tensor) {
      (tensor % 2 == 0 ? view.keys : view.values)
          .push_back({static_cast<uint16_t*>(out_) + tensor * view.tokens * row, row,
                      model_.geometry.head_size});
    }
    return view;
  }

  double CallMs(const std::vector<DeviceChunk>& jobs, const DeviceKvView& view) {
    Must(decoder_->Finish(Must(decoder_->Decode(jobs, view, stream_))));
    const auto begin = std::chrono::steady_clock::now();
    DecodeTicket last = 0;
    for (int round = 0; round < kRounds; ++round)
      last = Must(decoder_->Decode(jobs, view, stream_));
    Must(decoder_->Finish(last));
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - begin;
    return elapsed.count() / kRounds;
  }

  double KernelMs(const std::vector<DeviceChunk>& jobs, const DeviceKvView& view) {
    const int count = static_cast<int>(std::min<size_t>(jobs.size(), 8));
    cuda::Workspace workspace;
    Must(workspace.Allocate(*tables_, count));
    cuda::Memory status;
    Must(status.Allocate(backend_, cuda::Memory::Kind::kDevice, jobs.size() * 4));
    Must(backend_->Clear(status.as<char>(), jobs.size() * 4, stream_));
    std::vector<cuda::TensorDev> tensors;
    for (size_t layer = 0; layer < view.keys.size(); ++layer) {
      for (const DeviceKvTensor* t : {&view.keys[layer], &view.values[layer]})
        tensors.push_back(
            {static_cast<uint16_t*>(t->data_dev), 0, t->token_stride, t->head_stride});
    }
    struct Batch {
      cuda::Staging staging;
      cuda::BatchDev batch;
      std::vector<cuda::LevelDev> levels;
    };
    std::vector<Batch> batches;
    cuda::DecodeBatch preparer(*tables_);
    for (size_t first = 0; first < jobs.size(); first += count) {
      std::vector<cuda::ParsedChunk> parsed(std::min<size_t>(count, jobs.size() - first));
      for (size_t i = 0; i < parsed.size(); ++i) {
        Must(cuda::ParseChunk(model_.profile->data(), jobs[first + i].segments, &parsed[i]));
        parsed[i].first_token = jobs[first + i].first_token;
        parsed[i].status = static_cast<int32_t>(first + i);
      }
      batches.emplace_back();
      Batch& batch = batches.back();
      const size_t bytes =
          preparer.StagingBytes(parsed) + cuda::Staging::Bytes<cuda::TensorDev>(tensors.size());
      Must(batch.staging.Create(backend_, bytes));
      Must(batch.staging.Begin(backend_, bytes));
      batch.batch = workspace.buffers();
      batch.batch.status = status.as<uint32_t>();
      int failed = 0;
      Must(preparer.Prepare(parsed, &batch.staging, &batch.batch, &batch.levels, &failed));
      batch.batch.out = {};
      batch.batch.out.tensors = batch.staging.Put(tensors);
      Must(batch.staging.Upload(*backend_, stream_));
    }
    return DeviceMs(stream_, [&] {
      for (const Batch& batch : batches)
        Must(cuda::LaunchBatch(*backend_, batch.batch, batch.levels, stream_));
    });
  }

  // Compares the first `compared` chunks' first and last with what ChunkDecoder makes of the
  // segments. Both round to BF16 (2^-9 on average) after sums in another order.
  bool Verify(int compared, int chunks, const std::vector<absl::string_view>& segments,
              double tolerance) {
    std::vector<uint16_t> expected(chunk_values_);
    Must(Must(ChunkDecoder::Create(model_.profile))
             ->Decode(segments, MutableViewOfKv(model_.geometry, expected, kTokens)));
    const int64_t row = int64_t{model_.geometry.kv_heads} * model_.geometry.head_size;
    const int64_t part = kTokens * row;  // of one tensor
    std::vector<uint16_t> actual(part);
    for (const int chunk : {0, compared - 1}) {
      double error = 0;
      double power = 0;
      for (int64_t tensor = 0; tensor < 2 * model_.geometry.layers; ++tensor) {
        Must(cudaMemcpy(actual.data(),
                        static_cast<uint16_t*>(out_) + (tensor * chunks + chunk) * part, part * 2,
                        cudaMemcpyDeviceToHost));
        for (int64_t i = 0; i < part; ++i) {
          const double want = FloatFromBfloat(expected[tensor * part + i]);
          const double got = FloatFromBfloat(actual[i]);
          error += (want - got) * (want - got);
          power += want * want;
        }
      }
      if (!(std::sqrt(error / power) < tolerance)) return false;
    }
    return true;
  }

  const Setup setup_;
  const BenchmarkModel model_;
  const int64_t chunk_values_;
  EncodedChunk chunk_;
  std::shared_ptr<cuda::Backend> backend_;
  std::shared_ptr<const cuda::DeviceTables> tables_;
  std::unique_ptr<DeviceDecoder> decoder_;
  cudaStream_t stream_ = nullptr;
  int chunks_max_ = 1;
  void* out_ = nullptr;
  void* copy_ = nullptr;
};

int DeviceMain(bool quick) {
  const absl::Status device = CheckCudaDevice(0);
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", device.ToString().c_str());
    return 2;
  }
  cudaDeviceProp properties;
  Must(cudaGetDeviceProperties(&properties, 0));
  std::printf("device: %s\n", properties.name);
  std::printf("%-22s %6s %5s %8s %9s %9s %9s %8s\n", "model, groups", "chunks", "level", "bits/val",
              "kernels", "call", "copy", "of copy");
  std::vector<Setup> setups = {
      {"2 layers, 1 layer", 2, 1, 2048},       {"8B, 1 layer, full rank", 32, 1, 2048},
      {"8B, 1 layer, rank 1024", 32, 1, 1024}, {"8B, model, rank 4096", 32, 32, 4096},
      {"70B, 1 layer", 80, 1, 2048},
  };
  std::vector<int> sizes = {1, 4, 16, 64};
  if (quick) {
    setups.resize(1);
    sizes = {1, 3};
  }
  bool right = true;
  for (const Setup& setup : setups) {
    DecodeBenchmark benchmark(setup, sizes.back());
    for (const int chunks : sizes) {
      for (int level = 0; level < 4; ++level) right = benchmark.Run(chunks, level) && right;
      if (chunks <= 16) right = benchmark.RunEncode(chunks) && right;
    }
  }
  return right ? 0 : 1;
}

#else

int DeviceMain(bool) {
  std::fprintf(stderr, "%s\n", CheckCudaDevice(0).ToString().c_str());
  return 2;
}

#endif  // KVSTREAM_CUDA_FOUND

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "--host") return kvstream::HostMain();
  return kvstream::DeviceMain(mode == "--quick");
}

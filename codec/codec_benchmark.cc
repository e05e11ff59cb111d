// Speed of the codec on one and on all cores, against memcpy of its output and against general
// compressors on the same symbols in the same minute.
//
//   bazel run -c opt //codec:codec_benchmark [-- head|layer|2layers|identity ...]
//
// Heads of 128, 8 KV heads, BF16, chunks of 256 tokens, made-up KV (benchmark_kv.h). Every figure
// is the best of some rounds, with one thread by processor time, with more by the clock; GB/s are
// of BF16 output (decode) or input (encode), 10^9 bytes.
#include <lz4.h>
#include <time.h>
#include <zstd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "codec/benchmark_kv.h"
#include "codec/calibration.h"
#include "codec/cell_rows.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/level_coder.h"
#include "codec/profile_data.h"
#include "codec/segment.h"

namespace kvstream {
namespace {

constexpr int kTokens = 256;
constexpr double kSecondsPerFigure = 0.4;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds that this thread has had a processor: on a machine that others use too, waiting for one
// is no property of the codec.
double CpuTime() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Processor seconds of the fastest call.
double Best(const std::function<void()>& call) {
  call();
  double best = 1e9;
  const double begin = Now();
  for (int round = 0; round < 3 || Now() - begin < kSecondsPerFigure; ++round) {
    const double start = CpuTime();
    call();
    best = std::min(best, CpuTime() - start);
  }
  return best;
}

// Seconds a call when every one of `threads` runs make(thread)() over and over.
double Together(int threads, const std::function<std::function<void()>(int)>& make) {
  std::vector<std::function<void()>> calls;
  for (int i = 0; i < threads; ++i) calls.push_back(make(i));
  std::vector<int64_t> done(threads, 0);
  std::vector<std::thread> workers;
  const double begin = Now();
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&, i] {
      while (Now() - begin < 2 * kSecondsPerFigure) {
        calls[i]();
        ++done[i];
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  int64_t all = 0;
  for (int64_t n : done) all += n;
  return (Now() - begin) / static_cast<double>(all);
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::abort();
}

struct Setup {
  const char* name;
  int layers;
  bool calibrated;
  CalibrationOptions::Group group;
  int group_layers;
  int64_t sample_tokens;
};

const Setup kSetups[] = {
    {"head", 8, true, CalibrationOptions::Group::kHead, 1, 768},
    {"layer", 4, true, CalibrationOptions::Group::kLayers, 1, 2560},
    {"2layers", 4, true, CalibrationOptions::Group::kLayers, 2, 4608},
    {"identity", 8, false, CalibrationOptions::Group::kHead, 1, 0},
};

std::shared_ptr<const Profile> MakeProfile(const KvGeometry& geometry, const Setup& setup) {
  CalibrationOptions options;
  options.group = setup.group;
  options.group_layers = setup.group_layers;
  absl::StatusOr<std::shared_ptr<const Profile>> profile;
  if (setup.calibrated) {
    const TestKv sample = MakeBenchmarkKv(geometry, setup.sample_tokens, 1001);
    const std::vector<KvView> samples = {sample.view()};
    profile = BuildProfile(geometry, samples, {}, options);
  } else {
    profile = BuildProfile(geometry, {}, {}, options);
  }
  Check(profile.status());
  return *std::move(profile);
}

// One general compressor on the bytes: bits a byte, compression and decompression in Gbyte/s.
void Peer(const char* name, const std::string& bytes, size_t bound,
          const std::function<size_t(char*, size_t)>& compress,
          const std::function<size_t(const char*, size_t, char*)>& decompress) {
  std::string packed(bound, '\0');
  std::string plain(bytes.size(), '\0');
  size_t size = 0;
  const double in = Best([&] { size = compress(&packed[0], bound); });
  const double out = Best([&] { decompress(packed.data(), size, &plain[0]); });
  if (plain != bytes) std::abort();
  const double count = static_cast<double>(bytes.size());
  std::printf("| %s | %.3f | %.3f | %.3f |\n", name, 8.0 * size / count, count / in * 1e-9,
              count / out * 1e-9);
}

void Peers(const std::string& bytes) {
  for (const int level : {-1, 3}) {
    const std::string name = "zstd " + std::to_string(level);
    Peer(
        name.c_str(), bytes, ZSTD_compressBound(bytes.size()),
        [&](char* out, size_t bound) {
          return ZSTD_compress(out, bound, bytes.data(), bytes.size(), level);
        },
        [&](const char* in, size_t size, char* out) {
          return ZSTD_decompress(out, bytes.size(), in, size);
        });
  }
  Peer(
      "lz4", bytes, LZ4_compressBound(static_cast<int>(bytes.size())),
      [&](char* out, size_t bound) {
        return LZ4_compress_default(bytes.data(), out, static_cast<int>(bytes.size()),
                                    static_cast<int>(bound));
      },
      [&](const char* in, size_t size, char* out) {
        return LZ4_decompress_safe(in, out, static_cast<int>(size), static_cast<int>(bytes.size()));
      });
}

// The entropy stage alone, level by level, and the peers on the same symbols as bytes.
void EntropyStage(const Profile& profile, const EncodedChunk& chunk) {
  const ProfileData& data = profile.data();
  LevelDecoder decoder(data);
  LevelEncoder encoder(data);
  std::vector<uint8_t> classes = data.classes;
  CellRows rows;
  std::vector<int32_t> cells(static_cast<size_t>(data.coordinates) * kTokens);
  std::vector<int32_t> order;
  std::printf(
      "\n| entropy stage | bits a coded symbol | encode, Gsymbol/s | decode, Gsymbol/s |\n"
      "|---|---|---|---|\n");
  for (int level = 0; level < data.levels; ++level) {
    const absl::StatusOr<SegmentView> segment = ParseSegment(data, chunk.segments[level]);
    Check(segment.status());
    const std::vector<uint8_t> classes_below = classes;
    const std::vector<int32_t> parents = cells;
    // Decoding replaces the parents; copying them back is timed apart and taken off.
    const CellRows rows_below = rows;
    const double copy = level == 0 ? 0 : Best([&] { rows = rows_below; });
    const double decode = Best([&] {
      classes = classes_below;
      if (level > 0) rows = rows_below;
      Check(decoder.Decode(*segment, kTokens, &classes, &rows));
    });
    rows.Write(cells.data());
    const double encode = Best([&] {
      std::vector<uint8_t> chosen = classes_below;
      SegmentSections sections;
      encoder.Encode(level, cells.data(), level == 0 ? nullptr : parents.data(), kTokens, &chosen,
                     &sections);
    });
    CodingOrder(data, level, classes, &order);
    const double symbols = static_cast<double>(order.size()) * kTokens;
    std::string bytes;
    for (int32_t coordinate : order) {
      for (int t = 0; t < kTokens; ++t) {
        const size_t i = static_cast<size_t>(coordinate) * kTokens + t;
        const int32_t symbol = level == 0 ? cells[i] : cells[i] - 3 * parents[i];
        bytes.push_back(static_cast<char>(std::max(-128, std::min(127, symbol))));
      }
    }
    std::printf("| **level %d**, %.0f %% of the values coded | %.3f | %.3f | %.3f |\n", level,
                100.0 * symbols / (static_cast<double>(data.channels()) * kTokens),
                8.0 * segment->payload.size() / symbols, symbols / encode * 1e-9,
                symbols / (decode - copy) * 1e-9);
    Peers(bytes);
  }
}

void Run(const Setup& setup) {
  const KvGeometry geometry = TestGeometry(setup.layers, 8, 128, KvDtype::kBF16);
  const std::shared_ptr<const Profile> profile = MakeProfile(geometry, setup);
  // The second chunk of a context: no sinks, every token coded.
  const TestKv kv = MakeBenchmarkKv(geometry, 2 * kTokens, 77);
  const KvView view = kv.view().Slice(kTokens, kTokens);
  auto encoder = *ChunkEncoder::Create(profile);
  const absl::StatusOr<EncodedChunk> chunk = encoder->Encode(view, kTokens);
  Check(chunk.status());
  const std::vector<absl::string_view> segments(chunk->segments.begin(), chunk->segments.end());

  const double bytes = 2.0 * geometry.values_per_token() * kTokens;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  TestKv out(geometry, kTokens);
  const std::string source(static_cast<size_t>(bytes), 'x');
  std::string target(source.size(), 'y');
  const double copy = Best([&] { std::memcpy(&target[0], source.data(), source.size()); });
  std::printf("\n### %s: %d layers, %.1f MB of BF16 a chunk, %lld coordinates\n\n", setup.name,
              setup.layers, bytes * 1e-6, static_cast<long long>(profile->coordinates()));
  std::printf("memcpy of the output: %.2f GB/s\n\n", bytes / copy * 1e-9);
  std::printf("| level | b/v | decode, GB/s | memcpy is faster by | decode, %d threads |\n", cores);
  std::printf("|---|---|---|---|---|\n");
  auto decoder = *ChunkDecoder::Create(profile);
  double stored = 0;
  for (int level = 0; level < profile->levels(); ++level) {
    const absl::Span<const absl::string_view> some = absl::MakeConstSpan(segments).first(level + 1);
    stored += static_cast<double>(segments[level].size());
    const double one = Best([&] { Check(decoder->Decode(some, out.mutable_view())); });
    std::vector<TestKv> outs(cores, out);
    std::vector<std::unique_ptr<ChunkDecoder>> decoders;
    for (int i = 0; i < cores; ++i) decoders.push_back(*ChunkDecoder::Create(profile));
    const double all = Together(cores, [&](int i) {
      return [&, i] { Check(decoders[i]->Decode(some, outs[i].mutable_view())); };
    });
    std::printf("| %d | %.3f | %.3f | %.1f | %.3f |\n", level, 16 * stored / bytes,
                bytes / one * 1e-9, one / copy, bytes / all * 1e-9);
    std::fflush(stdout);
  }
  const double one = Best([&] { Check(encoder->Encode(view, kTokens).status()); });
  std::vector<std::unique_ptr<ChunkEncoder>> encoders;
  for (int i = 0; i < cores; ++i) encoders.push_back(*ChunkEncoder::Create(profile));
  const double all = Together(
      cores, [&](int i) { return [&, i] { Check(encoders[i]->Encode(view, kTokens).status()); }; });
  std::printf("\nencode of all levels: %.3f GB/s, %d threads %.3f GB/s\n", bytes / one * 1e-9,
              cores, bytes / all * 1e-9);
  EntropyStage(*profile, *chunk);
  std::fflush(stdout);
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  for (const kvstream::Setup& setup : kvstream::kSetups) {
    bool wanted = argc < 2 && std::strcmp(setup.name, "2layers") != 0;
    for (int i = 1; i < argc; ++i) wanted |= std::strcmp(argv[i], setup.name) == 0;
    if (wanted) kvstream::Run(setup);
  }
  return 0;
}

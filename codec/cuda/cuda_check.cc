// Everything that the device decoder and encoder do, on a GPU, against the host's codec: for the
// first run on new hardware and for compute-sanitizer. Small models, some seconds.
//
// `--host` runs the same checks on the host backend, so that the checks themselves are tested where
// there is no GPU. Exit status: 0; 1 if something is wrong; 2 if there is no device.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "codec/cuda/create_on.h"
#include "codec/cuda/internal/backend.h"
#include "codec/cuda/internal/device_memory.h"
#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/segment.h"
#include "codec/test_kv.h"

namespace kvstream {
namespace {

using Views = std::vector<absl::string_view>;
using cuda::Memory;

constexpr int kChunkTokens = 160;
constexpr int kTokens = 2 * kChunkTokens + 39;
constexpr int kBlockSize = 16;
constexpr int kBlocks = (kTokens + kBlockSize - 1) / kBlockSize + 3;

int failures = 0;

void Report(const std::string& name, bool good, const std::string& detail = "") {
  std::printf("%-6s %s %s\n", good ? "ok" : "WRONG", name.c_str(), detail.c_str());
  std::fflush(stdout);
  failures += good ? 0 : 1;
}

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

// Relative error; infinite if some value is not finite (output is poisoned with NaN first).
double ErrorOf(const std::vector<float>& want, const std::vector<float>& got) {
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    error += std::pow(double{want[i]} - got[i], 2);
    power += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(error / std::max(power, 1e-30));
}

class Check {
 public:
  Check(std::shared_ptr<cuda::Backend> backend, std::string name, const KvGeometry& geometry,
        CalibrationOptions::Group group, bool calibrated = true)
      : backend_(std::move(backend)),
        scope_(*backend_),
        name_(std::move(name)),
        geometry_(geometry) {
    CalibrationOptions options;
    options.group = group;
    options.chunk_tokens = kChunkTokens;
    profile_ = calibrated ? MakeTestProfile(geometry, 3, options)
                          : Must(BuildProfile(geometry, {}, {}, options));
    kv_ = std::make_unique<TestKv>(MakeTestKv(geometry, kTokens, 3, 9));
    auto encoder = Must(ChunkEncoder::Create(profile_));
    for (int first = 0; first < kTokens; first += kChunkTokens) {
      const int count = std::min(kChunkTokens, kTokens - first);
      chunks_.push_back(Must(encoder->Encode(kv_->view().Slice(first, count), first)));
    }
    values_ = static_cast<int64_t>(kTokens) * geometry.tensor_channels();
    Must(memory_.Allocate(
        backend_, Memory::Kind::kDevice,
        static_cast<size_t>(tensors() * kBlocks * kBlockSize) * geometry.tensor_channels() * 2));
    for (int i = 0; i < kBlocks; ++i) table_.push_back(kBlocks - 1 - i);
    Must(table_memory_.Allocate(backend_, Memory::Kind::kDevice, table_.size() * 4));
    Upload(table_memory_.as<char>(), table_.data(), table_.size() * 4);
  }

  void Decode() {
    for (int levels = 1; levels <= profile_->levels(); ++levels) {
      SetLevels(levels);
      Poison();
      const absl::Status status = Run(Contiguous());
      const double error = ErrorOf(expected_, Contents(false));
      // Halves of values, BF16 (2^-9) or F16 of the output, and sums in another order.
      Report(name_ + ", contiguous, level " + std::to_string(levels - 1),
             status.ok() && error < 5e-3, "error " + std::to_string(error));
    }
    Poison();
    const absl::Status status = Run(Paged());
    const double error = ErrorOf(expected_, Contents(true));
    Report(name_ + ", paged", status.ok() && error < 5e-3, "error " + std::to_string(error));
  }

  void Refuse() {
    SetLevels(2);
    std::string damaged = chunks_[1].segments[1];
    damaged[damaged.size() - 9] ^= 1;
    Reseal(&damaged);
    views_[1].back() = damaged;
    Report(name_ + ", damaged block", Run(Contiguous()).code() == absl::StatusCode::kDataLoss);
    SetLevels(2);
    std::vector<int32_t> wrong = table_;
    wrong[2] = 1 << 30;
    Upload(table_memory_.as<char>(), wrong.data(), wrong.size() * 4);
    Report(name_ + ", wrong block table",
           Run(Paged()).code() == absl::StatusCode::kInvalidArgument);
    Upload(table_memory_.as<char>(), table_.data(), table_.size() * 4);
  }

  // Segments from the device, decoded by the host.
  void Encode() {
    int64_t at = 0;
    for (const std::vector<uint16_t>& tensor : kv_->tensors()) {
      Upload(memory_.as<uint16_t>() + at, tensor.data(), tensor.size() * 2);
      at += values_;
    }
    for (const bool choose : {false, true}) {
      DeviceEncoderOptions options;
      options.choose_classes = choose;
      auto encoder = Must(cuda::CreateEncoderOn(backend_, profile_, options));
      auto encoded = encoder->Encode(Contiguous(), 0, nullptr);
      const std::string name = name_ + (choose ? ", encode, classes chosen" : ", encode");
      if (!encoded.ok()) {
        Report(name, false, encoded.status().ToString());
        continue;
      }
      SetLevels(profile_->levels());
      const std::vector<float> host = expected_;
      std::swap(chunks_, *encoded);
      SetLevels(profile_->levels());
      std::swap(chunks_, *encoded);
      const std::vector<float> original = kv_->Floats();
      const double with_device = ErrorOf(original, expected_);
      const double with_host = ErrorOf(original, host);
      // Values are put back where their class says, so that other classes move the error a little.
      Report(name, with_device < (choose ? 1.002 : 1.05) * with_host + 1e-6,
             "error " + std::to_string(with_device) + ", the host's " + std::to_string(with_host));
    }
  }

 private:
  int64_t tensors() const { return int64_t{geometry_.planes} * geometry_.layers; }

  void Upload(void* to, const void* from, size_t bytes) {
    Must(backend_->Upload(to, from, bytes, nullptr));
    Must(backend_->Synchronize(nullptr));
  }

  void Poison() {
    const std::vector<char> nan(memory_.bytes(), '\xff');
    Upload(memory_.as<char>(), nan.data(), nan.size());
  }

  // What the host decodes from the first `levels` segments of every chunk.
  void SetLevels(int levels) {
    views_.clear();
    TestKv out(geometry_, kTokens);
    auto decoder = Must(ChunkDecoder::Create(profile_));
    for (size_t i = 0; i < chunks_.size(); ++i) {
      views_.emplace_back(chunks_[i].segments.begin(), chunks_[i].segments.begin() + levels);
      const int64_t first = static_cast<int64_t>(i) * kChunkTokens;
      Must(decoder->Decode(
          views_.back(),
          out.mutable_view().Slice(first, std::min<int64_t>(kChunkTokens, kTokens - first))));
    }
    expected_ = out.Floats();
  }

  DeviceKvView Contiguous() const {
    DeviceKvView view;
    view.tokens = kTokens;
    for (int64_t i = 0; i < tensors(); ++i) {
      (i % geometry_.planes == 0 ? view.keys : view.values)
          .push_back({memory_.as<uint16_t>() + i * values_, geometry_.tensor_channels(),
                      geometry_.head_size});
    }
    return view;
  }

  int64_t cache_values() const {
    return int64_t{geometry_.planes} * kBlocks * kBlockSize * geometry_.tensor_channels();
  }

  PagedKvView Paged() const {
    std::vector<void*> caches;
    caches.reserve(geometry_.layers);
    for (int layer = 0; layer < geometry_.layers; ++layer)
      caches.push_back(memory_.as<uint16_t>() + layer * cache_values());
    return Must(MakePagedKvView(
        geometry_.planes == 1 ? PagedLayout::kLatent : PagedLayout::kBlockMajorNhd,
        absl::MakeConstSpan(caches), kBlocks, kBlockSize, geometry_.kv_heads, geometry_.head_size,
        table_memory_.as<int32_t>(), static_cast<int64_t>(table_.size())));
  }

  template <typename View>
  absl::Status Run(const View& view) {
    DeviceDecoderOptions options;
    options.max_batch_chunks = 2;
    auto decoder = Must(cuda::CreateDecoderOn(backend_, profile_, options));
    std::vector<DeviceChunk> jobs;
    for (size_t i = 0; i < views_.size(); ++i)
      jobs.push_back({views_[i], static_cast<int64_t>(i) * kChunkTokens});
    const auto ticket = decoder->Decode(jobs, view, nullptr);
    return ticket.ok() ? decoder->Finish(*ticket) : ticket.status();
  }

  // The device's values in the order of TestKv::Floats.
  std::vector<float> Contents(bool paged) {
    std::vector<uint16_t> raw(memory_.bytes() / 2);
    Must(backend_->Download(raw.data(), memory_.as<char>(), raw.size() * 2, nullptr));
    Must(backend_->Synchronize(nullptr));
    TestKv out(geometry_, kTokens);
    const int64_t row = geometry_.tensor_channels();
    const int64_t planes = geometry_.planes;
    for (int64_t i = 0; i < tensors(); ++i) {
      const int layer = static_cast<int>(i / planes);
      std::vector<uint16_t>& to = i % planes == 0 ? out.keys(layer) : out.values(layer);
      for (int64_t t = 0; t < kTokens; ++t) {
        const int64_t place =
            (table_[t / kBlockSize] * planes + i % planes) * kBlockSize + t % kBlockSize;
        const int64_t from = paged ? layer * cache_values() + place * row : i * values_ + t * row;
        std::copy_n(raw.begin() + from, row, to.begin() + t * row);
      }
    }
    return out.Floats();
  }

  const std::shared_ptr<cuda::Backend> backend_;
  const cuda::DeviceScope scope_;
  const std::string name_;
  const KvGeometry geometry_;
  std::shared_ptr<const Profile> profile_;
  std::unique_ptr<TestKv> kv_;
  std::vector<EncodedChunk> chunks_;
  std::vector<Views> views_;
  std::vector<float> expected_;
  int64_t values_ = 0;  // of one tensor
  Memory memory_;       // all tensors, or all caches
  std::vector<int32_t> table_;
  Memory table_memory_;
};

int Main(bool host) {
  absl::StatusOr<std::shared_ptr<cuda::Backend>> backend =
      host ? cuda::CreateHostBackend() : cuda::CreateCudaBackend(0);
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().ToString().c_str());
    return 2;
  }
  using Group = CalibrationOptions::Group;
  using Layout = RopeParameters::Layout;
  const struct {
    const char* name;
    KvGeometry geometry;
    Group group;
  } cases[] = {
      {"heads of 128", TestGeometry(2, 2, 128, KvDtype::kBF16), Group::kLayers},
      {"heads of 64, F16, whole model", TestGeometry(2, 2, 64), Group::kModel},
      {"heads of 80", TestGeometry(1, 3, 80, KvDtype::kBF16), Group::kHead},
      {"heads of 192, partial RoPE",
       TestGeometry(1, 2, 192, KvDtype::kBF16, Layout::kHalfSplit, 64), Group::kLayers},
      {"heads of 33, interleaved", TestGeometry(2, 2, 33, KvDtype::kF16, Layout::kInterleaved, 32),
       Group::kLayers},
      {"latent of 96 + 32", TestLatentGeometry(2, 96, 32), Group::kLayers},
  };
  for (const auto& one : cases) {
    // The host's tests have these geometries already (device_decoder_test, device_encoder_test).
    if (host && one.geometry.kv_heads != 1 && one.geometry.head_size != 192) continue;
    Check check(*backend, one.name, one.geometry, one.group);
    check.Decode();
    check.Refuse();
    check.Encode();
  }
  Check(*backend, "no calibration", TestGeometry(2, 2, 64, KvDtype::kBF16), Group::kLayers, false)
      .Decode();
  std::printf("%s\n", failures == 0 ? "all ok" : "some are WRONG");
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  return kvstream::Main(argc > 1 && std::string(argv[1]) == "--host");
}

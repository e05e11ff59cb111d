#include "codec/encoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/cell_rows.h"
#include "codec/exact_tokens.h"
#include "codec/float16.h"
#include "codec/format.h"
#include "codec/kv_panels.h"
#include "codec/level_coder.h"
#include "codec/panel_multiply.h"
#include "codec/profile_data.h"
#include "codec/quantize.h"
#include "codec/rans_encode_kernels.h"
#include "codec/segment.h"

namespace kvstream {

class ChunkEncoder::Impl {
 public:
  explicit Impl(std::shared_ptr<const Profile> profile)
      : profile_(std::move(profile)),
        data_(profile_->data()),
        panels_(data_.geometry),
        levels_(data_) {}

  absl::StatusOr<EncodedChunk> Encode(const KvView& kv, int64_t first_position);

 private:
  absl::Status CheckShape(const KvView& kv, int64_t first_position) const;
  // Means and scales of a chunk without calibration; sets mean_ and unit_.
  absl::Status Measure(const KvView& kv, int64_t first_position, std::string* section);
  // Fills cells_ at the finest level.
  absl::Status Quantise(const KvView& kv, int64_t first_position);

  const std::shared_ptr<const Profile> profile_;
  const ProfileData& data_;
  KvPanels panels_;
  LevelEncoder levels_;
  PanelScratch scratch_;
  std::vector<float> mean_;  // of this chunk, without calibration
  std::vector<float> unit_;
  std::vector<float> normalised_;   // panels of a group's channels
  std::vector<float> transformed_;  // panels of its coordinates
  std::vector<int32_t> rows_;
  CellRows cells_;  // of the finest level
  std::vector<uint8_t> fits_;
};

absl::Status ChunkEncoder::Impl::CheckShape(const KvView& kv, int64_t first_position) const {
  if (kv.tokens < 1 || kv.tokens > data_.chunk_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv: has ", kv.tokens, " tokens, a chunk has 1 to ", data_.chunk_tokens));
  }
  if (first_position < 0 || first_position > kMaxFirstPosition) {
    return absl::InvalidArgumentError(
        absl::StrCat("first_position is ", first_position, ", must be 0 to 2^40"));
  }
  return CheckKvView(data_.geometry, kv);
}

absl::Status ChunkEncoder::Impl::Measure(const KvView& kv, int64_t first_position,
                                         std::string* section) {
  const KvGeometry& geometry = data_.geometry;
  const int32_t per_tensor = geometry.tensor_channels();
  const std::vector<float> zero(data_.channels(), 0.0f);
  const std::vector<float> one(data_.channels(), 1.0f);
  mean_.assign(data_.channels(), 0.0f);
  unit_.assign(data_.channels(), 1.0f);
  normalised_.resize(PanelFloats(per_tensor, std::max<int64_t>(kv.tokens, 1)));
  std::string means;
  for (int32_t first = 0; first < data_.channels(); first += per_tensor) {
    if (!panels_.Load(kv, first_position, first, per_tensor, zero, one, normalised_.data())) {
      return absl::InvalidArgumentError("kv: a value is not finite");
    }
    double power[2] = {0, 0};
    int64_t count[2] = {0, 0};
    for (int32_t c = 0; c < per_tensor; ++c) {
      const int part = geometry.PartOf(c);
      count[part] += kv.tokens;
      const auto at = [&](int64_t token) {
        return double{normalised_[((token / kPanelColumns) * per_tensor + c) * kPanelColumns +
                                  token % kPanelColumns]};
      };
      double sum = 0;
      for (int64_t token = 0; token < kv.tokens; ++token) sum += at(token);
      const uint16_t mean =
          BfloatFromFloat(static_cast<float>(kv.tokens > 0 ? sum / kv.tokens : 0));
      AppendLe(mean, &means);
      mean_[first + c] = FloatFromBfloat(mean);
      for (int64_t token = 0; token < kv.tokens; ++token)
        power[part] += std::pow(at(token) - mean_[first + c], 2);
    }
    float stored[2];
    for (int part = 0; part < geometry.parts(); ++part) {
      const double scale = std::sqrt(power[part] / std::max<int64_t>(1, count[part]));
      stored[part] = scale > 1e-9 && scale < 1e9 ? static_cast<float>(scale) : 1.0f;
      AppendLe(stored[part], section);
    }
    for (int32_t c = 0; c < per_tensor; ++c)
      unit_[first + c] = stored[geometry.PartOf(c)] * data_.unit[first + c];
  }
  *section += means;
  return absl::OkStatus();
}

absl::Status ChunkEncoder::Impl::Quantise(const KvView& kv, int64_t first_position) {
  const int64_t tokens = kv.tokens;
  const int64_t panels = PanelCount(tokens);
  const float power = static_cast<float>(PowerOf3(data_.levels - 1));
  const int finest = data_.levels - 1;
  cells_.Reset(data_.coordinates, static_cast<int>(tokens), data_.levels);
  for (const ProfileGroup& group : data_.groups) {
    normalised_.resize(PanelFloats(group.channels, tokens));
    if (!panels_.Load(kv, first_position, group.first_channel, group.channels,
                      data_.calibrated ? data_.mean : mean_, data_.calibrated ? data_.unit : unit_,
                      normalised_.data())) {
      return absl::InvalidArgumentError("kv: a value is not finite");
    }
    const float* coordinates = normalised_.data();
    if (data_.calibrated) {
      transformed_.resize(PanelFloats(group.rank, tokens));
      rows_.resize(group.rank);
      std::iota(rows_.begin(), rows_.end(), 0);
      MultiplyRows(data_.Matrix(group), rows_, normalised_.data(), panels, transformed_.data(),
                   scratch_);
      coordinates = transformed_.data();
    }
    fits_.resize(group.rank);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const float* const sources = coordinates + panel * group.rank * kPanelColumns;
      const int64_t first = panel * kPanelColumns;
      QuantisePanel(sources, group.rank, power, cells_.narrow(group.first_coordinate) + first,
                    cells_.stride(), fits_.data());
      for (int32_t i = 0; i < group.rank; ++i) {
        const int32_t coordinate = group.first_coordinate + i;
        if (fits_[i] != 0 && cells_.wide(coordinate) == nullptr) continue;
        for (int64_t t = first; t < std::min(tokens, first + kPanelColumns); ++t)
          cells_.Set(coordinate, t, CellOf(sources[i * kPanelColumns + t - first], power), finest);
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<EncodedChunk> ChunkEncoder::Impl::Encode(const KvView& kv, int64_t first_position) {
  absl::Status status = CheckShape(kv, first_position);
  if (!status.ok()) return status;
  SegmentHeader header;
  header.first_position = first_position;
  header.tokens = static_cast<int32_t>(kv.tokens);
  header.sinks = static_cast<int32_t>(
      std::min<int64_t>(kv.tokens, std::max<int64_t>(0, data_.sink_tokens - first_position)));
  std::vector<SegmentSections> sections(data_.levels);
  status = EncodeExactTokens(data_.geometry, data_.references, first_position,
                             kv.Slice(0, header.sinks), &sections[0].sinks);
  if (!status.ok()) return status;
  const KvView coded = kv.Slice(header.sinks, kv.tokens - header.sinks);
  const int64_t coded_position = first_position + header.sinks;
  if (!data_.calibrated) {
    status = Measure(coded, coded_position, &sections[0].statistics);
    if (!status.ok()) return status;
  }
  status = Quantise(coded, coded_position);
  if (!status.ok()) return status;

  EncodedChunk chunk;
  std::vector<uint8_t> classes = data_.classes;
  for (int level = 0; level < data_.levels; ++level) {
    levels_.EncodeFinest(level, cells_, &classes, &sections[level]);
    header.level = level;
    header.flags =
        static_cast<uint8_t>((sections[level].class_override.empty() ? 0 : kSegmentHasOverride) |
                             (sections[level].statistics.empty() ? 0 : kSegmentHasStatistics));
    chunk.segments.push_back(WriteSegment(data_, header, sections[level]));
    sections[level] = SegmentSections();
    if (level == 0)
      header.base_checksum =
          LoadLe<uint64_t>(chunk.segments[0].data() + chunk.segments[0].size() - kChecksumBytes);
  }
  return chunk;
}

absl::StatusOr<std::unique_ptr<ChunkEncoder>> ChunkEncoder::Create(
    std::shared_ptr<const Profile> profile) {
  if (profile == nullptr) return absl::InvalidArgumentError("profile is null");
  return absl::WrapUnique(new ChunkEncoder(absl::make_unique<Impl>(std::move(profile))));
}

ChunkEncoder::ChunkEncoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChunkEncoder::~ChunkEncoder() = default;

absl::StatusOr<EncodedChunk> ChunkEncoder::Encode(const KvView& kv, int64_t first_position) {
  return impl_->Encode(kv, first_position);
}

}  // namespace kvstream

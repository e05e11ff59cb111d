#include "codec/decoder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/cell_rows.h"
#include "codec/exact_tokens.h"
#include "codec/float16.h"
#include "codec/inverse_transform.h"
#include "codec/kv_panels.h"
#include "codec/level_coder.h"
#include "codec/profile_data.h"
#include "codec/segment.h"

namespace kvstream {

absl::StatusOr<SegmentInfo> ValidateSegment(const Profile& profile, absl::string_view segment) {
  const absl::StatusOr<SegmentView> view = ParseSegment(profile.data(), segment);
  if (!view.ok()) return view.status();
  SegmentInfo info;
  info.level = view->header.level;
  info.tokens = view->header.tokens;
  info.first_position = view->header.first_position;
  return info;
}

class ChunkDecoder::Impl {
 public:
  explicit Impl(std::shared_ptr<const Profile> profile)
      : profile_(std::move(profile)), data_(profile_->data()), levels_(data_), inverse_(data_) {}

  absl::Status Decode(absl::Span<const absl::string_view> segments, const MutableKvView& out);

 private:
  absl::Status Parse(absl::Span<const absl::string_view> segments, const MutableKvView& out);
  // Means and units of a chunk without calibration, from its statistics.
  absl::Status ReadStatistics(absl::string_view section);

  const std::shared_ptr<const Profile> profile_;
  const ProfileData& data_;
  LevelDecoder levels_;
  InverseTransform inverse_;
  std::vector<SegmentView> segments_;
  MutableKvView coded_;  // of the chunk at work, without its exact tokens
  std::vector<uint8_t> classes_;
  CellRows cells_;
  std::vector<float> mean_;
  std::vector<float> unit_;
};

absl::Status ChunkDecoder::Impl::Parse(absl::Span<const absl::string_view> segments,
                                       const MutableKvView& out) {
  if (segments.empty() || segments.size() > static_cast<size_t>(data_.levels)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got ", segments.size(), " segments, the profile has ", data_.levels, " levels"));
  }
  absl::Status status = CheckKvView(data_.geometry, out);
  if (!status.ok()) return status;
  // Views beyond those of this chunk stay, for their memory.
  if (segments_.size() < segments.size()) segments_.resize(segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    status = ParseSegmentInto(data_, segments[i], &segments_[i]);
    if (!status.ok()) return status;
    const SegmentHeader& header = segments_[i].header;
    if (header.level != static_cast<int>(i)) {
      return absl::InvalidArgumentError(
          absl::StrCat("segment: is of level ", header.level, " where level ", i, " must stand"));
    }
    const SegmentView& base = segments_[0];
    if (i > 0 && (header.base_checksum != base.checksum || header.tokens != base.header.tokens ||
                  header.first_position != base.header.first_position)) {
      return absl::InvalidArgumentError(
          absl::StrCat("segment: level ", header.level, " belongs to another chunk than level 0"));
    }
  }
  if (segments_[0].header.tokens != out.tokens) {
    return absl::InvalidArgumentError(absl::StrCat("segment: has ", segments_[0].header.tokens,
                                                   " tokens, the output ", out.tokens));
  }
  return absl::OkStatus();
}

absl::Status ChunkDecoder::Impl::ReadStatistics(absl::string_view section) {
  ByteReader in(section);
  const KvGeometry& geometry = data_.geometry;
  const int32_t per_tensor = geometry.tensor_channels();
  mean_.resize(data_.channels());
  unit_.resize(data_.channels());
  for (int32_t first = 0; first < data_.channels(); first += per_tensor) {
    float scale[2] = {1, 1};
    for (int part = 0; part < geometry.parts(); ++part) {
      scale[part] = in.Read<float>();
      if (!(scale[part] >= 1e-10f && scale[part] <= 1e10f))
        return absl::InvalidArgumentError("segment: a scale of its statistics is out of range");
    }
    for (int32_t c = 0; c < per_tensor; ++c)
      unit_[first + c] = scale[geometry.PartOf(c)] * data_.unit[first + c];
  }
  for (int32_t c = 0; c < data_.channels(); ++c) {
    const uint16_t mean = in.Read<uint16_t>();
    if (!IsFinite16(mean, KvDtype::kBF16))
      return absl::InvalidArgumentError("segment: a mean of its statistics is not finite");
    mean_[c] = FloatFromBfloat(mean);
  }
  return in.ok() ? absl::OkStatus() : absl::DataLossError("segment: statistics are truncated");
}

absl::Status ChunkDecoder::Impl::Decode(absl::Span<const absl::string_view> segments,
                                        const MutableKvView& out) {
  absl::Status status = Parse(segments, out);
  if (!status.ok()) return status;
  const SegmentHeader& header = segments_[0].header;
  if (header.sinks > 0) {
    status = DecodeExactTokens(data_.geometry, data_.references, header.first_position,
                               segments_[0].sinks, out.Slice(0, header.sinks));
    if (!status.ok()) return status;
  }
  if (!data_.calibrated) {
    status = ReadStatistics(segments_[0].statistics);
    if (!status.ok()) return status;
  }
  // As out.Slice, in memory of the chunk before.
  coded_ = out;
  coded_.tokens -= header.sinks;
  for (std::vector<MutableKvTensor>* tensors : {&coded_.keys, &coded_.values}) {
    for (MutableKvTensor& tensor : *tensors) tensor.data += header.sinks * tensor.token_stride;
  }
  const int64_t tokens = coded_.tokens;
  classes_ = data_.classes;
  for (size_t i = 0; i < segments.size(); ++i) {
    status = levels_.Decode(segments_[i], static_cast<int>(tokens), &classes_, &cells_);
    if (!status.ok()) return status;
  }
  if (tokens == 0) return absl::OkStatus();

  const int64_t position = header.first_position + header.sinks;
  const std::vector<float>& mean = data_.calibrated ? data_.mean : mean_;
  const std::vector<float>& unit = data_.calibrated ? data_.unit : unit_;
  for (const ProfileGroup& group : data_.groups) {
    inverse_.Run(group, static_cast<int>(segments.size()) - 1, cells_, classes_, mean, unit,
                 position, coded_);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ChunkDecoder>> ChunkDecoder::Create(
    std::shared_ptr<const Profile> profile) {
  if (profile == nullptr) return absl::InvalidArgumentError("profile is null");
  return absl::WrapUnique(new ChunkDecoder(absl::make_unique<Impl>(std::move(profile))));
}

ChunkDecoder::ChunkDecoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChunkDecoder::~ChunkDecoder() = default;

absl::Status ChunkDecoder::Decode(absl::Span<const absl::string_view> segments,
                                  const MutableKvView& out) {
  return impl_->Decode(segments, out);
}

}  // namespace kvstream

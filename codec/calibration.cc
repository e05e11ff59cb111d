#include "codec/calibration.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "codec/class_training.h"
#include "codec/exact_tokens.h"
#include "codec/format.h"
#include "codec/kv_panels.h"
#include "codec/panel_multiply.h"
#include "codec/profile_data.h"
#include "codec/quantize.h"
#include "codec/transform.h"

namespace kvstream {
namespace {

// Weights of keys stay within this factor of their layer's root mean square, so that a pair of
// channels that the samples' queries ignore is still kept roughly.
constexpr double kQueryWeightMin = 0.1;
constexpr double kQueryWeightMax = 10;
// A layer's step follows the root mean square of its values before the means are subtracted, but
// counts the means' power for at most this many times the variance: layers with large offsets stand
// more noise, yet an offset must not swallow the signal.
constexpr double kMeanPowerMax = 3;
// Sensitivities count as no less than this share of their mean: what calibration found to be
// harmless is coded with steps of at most six times those without sensitivities, for texts that use
// the model differently.
constexpr double kSensitivityFloor = 0.03;
// Standard deviation that stands in for that of a tensor that never changes.
constexpr double kScaleMin = 1e-8;

template <typename... T>
absl::Status Invalid(const T&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("calibration: ", parts...));
}

absl::Status CheckOptions(const KvGeometry& geometry, const QueryRms& query_rms,
                          const CalibrationOptions& options) {
  absl::Status status = geometry.Validate();
  if (!status.ok()) return status;
  if (geometry.values_per_token() > kMaxChannels)
    return Invalid("a token has ", geometry.values_per_token(), " values, at most ", kMaxChannels,
                   " are supported");
  if (options.steps.empty() || options.steps.size() > kMaxLevels)
    return Invalid("there must be 1 to ", kMaxLevels, " steps");
  for (size_t i = 0; i < options.steps.size(); ++i) {
    if (!(options.steps[i] > 1e-6 && options.steps[i] < 1e6))
      return Invalid("step ", i, " is out of range");
    if (i > 0 && std::abs(options.steps[i] * 3 / options.steps[i - 1] - 1) > 1e-6)
      return Invalid("step ", i, " is not a third of the one before");
  }
  if (!(options.value_step_ratio > 0.01 && options.value_step_ratio < 100))
    return Invalid("value_step_ratio is out of range");
  if (options.chunk_tokens < 1 || options.chunk_tokens > kMaxChunkTokens)
    return Invalid("chunk_tokens must be 1 to ", kMaxChunkTokens);
  if (options.sink_tokens < 0 || options.sink_tokens > kMaxSinkTokens)
    return Invalid("sink_tokens must be 0 to ", kMaxSinkTokens);
  if (options.group == CalibrationOptions::Group::kLayers &&
      (options.group_layers < 1 || options.group_layers > geometry.layers)) {
    return Invalid("group_layers is ", options.group_layers, ", the model has ", geometry.layers,
                   " layers");
  }
  if (!query_rms.empty()) {
    const int64_t wanted = int64_t{geometry.layers} * geometry.tensor_channels();
    if (query_rms.size() != static_cast<size_t>(wanted)) {
      return Invalid("query_rms has ", query_rms.size(), " entries, must be ", wanted);
    }
    for (float value : query_rms) {
      if (!(value >= 0 && value < 1e9f)) return Invalid("query_rms has a value out of range");
    }
  }
  if (!options.sensitivity.empty()) {
    if (options.sensitivity.size() != static_cast<size_t>(geometry.values_per_token())) {
      return Invalid("sensitivity has ", options.sensitivity.size(), " entries, must be ",
                     geometry.values_per_token());
    }
    bool positive = false;
    for (float value : options.sensitivity) {
      if (!(value >= 0 && value < 1e30f)) return Invalid("sensitivity has a value out of range");
      positive |= value > 1e-30f;
    }
    if (!positive) return Invalid("sensitivity has no positive value");
  }
  return absl::OkStatus();
}

int32_t GroupChannels(const KvGeometry& geometry, const CalibrationOptions& options,
                      int32_t first_channel) {
  const int32_t left = static_cast<int32_t>(geometry.values_per_token()) - first_channel;
  const int64_t per_layer = int64_t{geometry.planes} * geometry.tensor_channels();
  switch (options.group) {
    case CalibrationOptions::Group::kHead:
      return geometry.head_size;
    case CalibrationOptions::Group::kLayers:
      return static_cast<int32_t>(std::min<int64_t>(left, per_layer * options.group_layers));
    case CalibrationOptions::Group::kModel:
      break;
  }
  return left;
}

class Calibrator {
 public:
  Calibrator(const KvGeometry& geometry, absl::Span<const KvView> samples,
             const CalibrationOptions& options)
      : options_(options), panels_(geometry), levels_(static_cast<int>(options.steps.size())) {
    ProfileData& data = fields_.data;
    data.geometry = geometry;
    data.chunk_tokens = options.chunk_tokens;
    data.sink_tokens = options.sink_tokens;
    data.levels = levels_;
    data.steps = options.steps;
    ChooseReferences(samples);
    for (const KvView& sample : samples) {
      if (sample.tokens <= options.sink_tokens) continue;
      samples_.push_back(sample.Slice(options.sink_tokens, sample.tokens - options.sink_tokens));
      tokens_ += samples_.back().tokens;
    }
  }

  absl::Status Calibrate(const QueryRms& query_rms) {
    ProfileData& data = fields_.data;
    data.calibrated = true;
    data.group_kind = options_.group == CalibrationOptions::Group::kHead     ? GroupKind::kHead
                      : options_.group == CalibrationOptions::Group::kLayers ? GroupKind::kLayers
                                                                             : GroupKind::kModel;
    data.group_layers =
        options_.group == CalibrationOptions::Group::kLayers ? options_.group_layers : 0;
    absl::Status status = MeasureChannels(query_rms);
    for (int32_t first = 0; status.ok() && first < data.channels();) {
      const int32_t channels = GroupChannels(data.geometry, options_, first);
      status = AddGroup(first, channels);
      first += channels;
    }
    if (!status.ok()) return status;
    data.tables = TrainTables(statistics_, levels_, &data.classes);
    return absl::OkStatus();
  }

  // Identity transform, one class for all: chunks measure the rest.
  void Fallback() {
    ProfileData& data = fields_.data;
    const KvGeometry& geometry = data.geometry;
    const int32_t per_tensor = geometry.tensor_channels();
    data.mean.assign(data.channels(), 0.0f);
    for (int32_t first = 0; first < data.channels(); first += per_tensor) {
      const bool values = first / per_tensor % geometry.planes == 1;
      data.unit.insert(
          data.unit.end(), per_tensor,
          static_cast<float>(options_.steps[0] * (values ? options_.value_step_ratio : 1)));
      ProfileGroup group;
      group.first_channel = group.first_coordinate = first;
      group.channels = group.rank = per_tensor;
      data.groups.push_back(group);
    }
    data.coordinates = data.channels();
    const ParametricLadder ladder = MakeLadder(levels_);
    data.tables = ParametricTables(ladder, levels_);
    const size_t nearest =
        std::lower_bound(ladder.scale.begin(), ladder.scale.end(), 1 / options_.steps[0]) -
        ladder.scale.begin();
    data.classes.assign(data.coordinates,
                        static_cast<uint8_t>(2 * std::min(nearest, ladder.scale.size() - 1)));
  }

  const ProfileFields& fields() const { return fields_; }
  int64_t tokens() const { return tokens_; }

 private:
  // The sink tokens that most samples share, such as the one that starts every document.
  void ChooseReferences(absl::Span<const KvView> samples) {
    ReferenceTokens& references = fields_.data.references;
    references.resize(options_.sink_tokens);
    for (int position = 0; position < options_.sink_tokens; ++position) {
      std::vector<std::vector<uint16_t>> tokens;
      for (const KvView& sample : samples) {
        if (sample.tokens > position)
          tokens.push_back(TokenValues(fields_.data.geometry, sample, position));
      }
      if (tokens.size() < 2) continue;
      for (size_t i = 0; i < std::min<size_t>(tokens.size(), 4) && references[position].empty();
           ++i) {
        const size_t close = std::count_if(
            tokens.begin(), tokens.end(),
            [&](const std::vector<uint16_t>& token) { return CloseToReference(token, tokens[i]); });
        if (2 * close > tokens.size()) references[position] = tokens[i];
      }
    }
  }

  // Panels of a range of channels for a run of at most kRun tokens of one sample; calls use(panels,
  // tokens) for each.
  static constexpr int64_t kRun = 256;
  template <typename Use>
  absl::Status ForEachRun(int32_t first_channel, int32_t channels, const std::vector<float>& mean,
                          const std::vector<float>& unit, Use use) {
    panel_.resize(PanelFloats(channels, kRun));
    for (const KvView& sample : samples_) {
      for (int64_t first = 0; first < sample.tokens; first += kRun) {
        const int64_t count = std::min(kRun, sample.tokens - first);
        if (!panels_.Load(sample.Slice(first, count), options_.sink_tokens + first, first_channel,
                          channels, mean, unit, panel_.data())) {
          return Invalid("a sample has a value that is not finite");
        }
        use(panel_.data(), count);
      }
    }
    return absl::OkStatus();
  }

  // Means and units of all channels.
  absl::Status MeasureChannels(const QueryRms& query_rms) {
    ProfileData& data = fields_.data;
    const KvGeometry& geometry = data.geometry;
    const int32_t per_tensor = geometry.tensor_channels();
    data.mean.assign(data.channels(), 0.0f);
    data.unit.assign(data.channels(), 1.0f);
    for (int32_t first = 0; first < data.channels(); first += per_tensor) {
      std::vector<double> sum(per_tensor, 0.0);
      std::vector<double> square(per_tensor, 0.0);
      absl::Status status = ForEachRun(
          first, per_tensor, data.mean, data.unit, [&](const float* panel, int64_t tokens) {
            for (int64_t i = 0; i < PanelCount(tokens) * per_tensor; ++i) {
              for (int column = 0; column < kPanelColumns; ++column) {
                const double value = panel[i * kPanelColumns + column];  // 0 beyond the last token
                sum[i % per_tensor] += value;
                square[i % per_tensor] += value * value;
              }
            }
          });
      if (!status.ok()) return status;
      double deviation[2];
      for (int part = 0; part < geometry.parts(); ++part) {
        double variance = 0;
        double mean_power = 0;
        int32_t count = 0;
        for (int32_t c = 0; c < per_tensor; ++c) count += geometry.PartOf(c) == part ? 1 : 0;
        for (int32_t c = 0; c < per_tensor; ++c) {
          if (geometry.PartOf(c) != part) continue;
          const double mean = sum[c] / tokens_;
          data.mean[first + c] = static_cast<float>(mean);
          variance += std::max(0.0, square[c] / tokens_ - mean * mean) / count;
          mean_power += mean * mean / count;
        }
        variance += std::min(mean_power, kMeanPowerMax * variance);
        deviation[part] = std::sqrt(variance);
        if (deviation[part] < kScaleMin) deviation[part] = 1;
      }
      const bool values = first / per_tensor % geometry.planes == 1;
      const int layer = first / (geometry.planes * per_tensor);
      std::vector<double> weight(per_tensor, 1.0);
      if (!values && !query_rms.empty())
        weight = QueryWeights(&query_rms[static_cast<size_t>(layer) * per_tensor]);
      for (int32_t c = 0; c < per_tensor; ++c) {
        const double step = options_.steps[0] * (values ? options_.value_step_ratio : 1);
        data.unit[first + c] = static_cast<float>(deviation[geometry.PartOf(c)] * step / weight[c]);
      }
    }
    if (!options_.sensitivity.empty()) ApplySensitivity();
    return absl::OkStatus();
  }

  // Scales the units by 1 / sqrt(the damage that a channel does with its unit, relative to the mean
  // over all channels).
  void ApplySensitivity() {
    ProfileData& data = fields_.data;
    const int32_t per_layer = data.geometry.planes * data.geometry.tensor_channels();
    std::vector<double> damage(options_.sensitivity.begin(), options_.sensitivity.end());
    for (int32_t first = 0; first < data.channels(); first += per_layer)
      AverageOverPairs(&damage[first]);
    double mean = 0;
    for (int32_t c = 0; c < data.channels(); ++c) {
      damage[c] *= double{data.unit[c]} * data.unit[c];
      mean += damage[c] / data.channels();
    }
    if (!(mean > 0)) return;
    for (int32_t c = 0; c < data.channels(); ++c) {
      data.unit[c] =
          static_cast<float>(data.unit[c] / std::sqrt((damage[c] / mean + kSensitivityFloor) /
                                                      (1 + kSensitivityFloor)));
    }
  }

  // Replaces squares of a layer's key channels by their mean over each RoPE pair: that commutes
  // with the rotation.
  void AverageOverPairs(double* of_keys) const {
    const KvGeometry& geometry = fields_.data.geometry;
    const int pairs = static_cast<int>(geometry.rope.inverse_frequency.size());
    const bool half_split = geometry.rope.layout == RopeParameters::Layout::kHalfSplit;
    for (int head = 0; head < geometry.kv_heads; ++head) {
      double* of_head = of_keys + head * geometry.head_size + geometry.rope.rotary_offset;
      for (int pair = 0; pair < pairs; ++pair) {
        double& a = of_head[half_split ? pair : 2 * pair];
        double& b = of_head[half_split ? pair + pairs : 2 * pair + 1];
        a = b = (a + b) / 2;
      }
    }
  }

  // Weights of a layer's key channels: root mean square of the queries over each RoPE pair,
  // normalised to a root mean square of 1. Of a latent only the rotated part is weighted: the rest
  // is read as values too.
  std::vector<double> QueryWeights(const float* query_rms) const {
    const KvGeometry& geometry = fields_.data.geometry;
    const int32_t count = geometry.tensor_channels();
    std::vector<double> power(count);
    for (int32_t c = 0; c < count; ++c) power[c] = double{query_rms[c]} * query_rms[c];
    AverageOverPairs(power.data());
    const auto weighted = [&](int32_t c) {
      const int in_head = c % geometry.head_size - geometry.rope.rotary_offset;
      return geometry.has_values() || (in_head >= 0 && in_head < geometry.rope.rotary_size());
    };
    double mean = 0;
    int32_t number = 0;
    for (int32_t c = 0; c < count; ++c) {
      if (!weighted(c)) continue;
      mean += power[c];
      ++number;
    }
    mean /= std::max(number, 1);
    for (int32_t c = 0; c < count; ++c) {
      power[c] =
          mean > 0 && weighted(c)
              ? std::max(kQueryWeightMin, std::min(kQueryWeightMax, std::sqrt(power[c] / mean)))
              : 1;
    }
    return power;
  }

  absl::Status AddGroup(int32_t first_channel, int32_t channels) {
    ProfileData& data = fields_.data;
    std::vector<float> samples(static_cast<size_t>(channels) * tokens_);
    int64_t done = 0;
    absl::Status status = ForEachRun(
        first_channel, channels, data.mean, data.unit, [&](const float* panel, int64_t tokens) {
          for (int64_t token = 0; token < tokens; ++token) {
            for (int32_t c = 0; c < channels; ++c) {
              samples[c * tokens_ + done + token] =
                  panel[((token / kPanelColumns) * channels + c) * kPanelColumns +
                        token % kPanelColumns];
            }
          }
          done += tokens;
        });
    if (!status.ok()) return status;
    absl::StatusOr<std::vector<uint16_t>> estimated =
        EstimateKlt(samples, channels, tokens_, channels);
    if (!estimated.ok()) return estimated.status();
    std::vector<uint16_t> matrix = *std::move(estimated);
    samples = std::vector<float>();
    const int32_t full_rank = static_cast<int32_t>(matrix.size() / channels);

    // Count the symbols that the coded transform gives.
    std::vector<CoordinateStatistics> statistics(full_rank, CoordinateStatistics(levels_));
    std::vector<int32_t> rows(full_rank);
    std::iota(rows.begin(), rows.end(), 0);
    const HalfMatrix view = {reinterpret_cast<const char*>(matrix.data()), full_rank, channels};
    std::vector<float> transformed(PanelFloats(full_rank, kRun));
    status = ForEachRun(
        first_channel, channels, data.mean, data.unit, [&](const float* panel, int64_t tokens) {
          MultiplyRows(view, rows, panel, PanelCount(tokens), transformed.data(), scratch_);
          for (int32_t i = 0; i < full_rank; ++i) {
            for (int64_t token = 0; token < tokens; ++token) {
              statistics[i].Add(
                  transformed[((token / kPanelColumns) * full_rank + i) * kPanelColumns +
                              token % kPanelColumns],
                  levels_);
            }
          }
        });
    if (!status.ok()) return status;
    // Drop the tail of coordinates that are zero even at the finest level.
    int32_t rank = full_rank;
    while (rank > 0 && statistics[rank - 1].AllZero()) --rank;
    matrix.resize(static_cast<size_t>(rank) * channels);
    fields_.matrices.push_back(std::move(matrix));
    ProfileGroup group;
    group.first_channel = first_channel;
    group.channels = channels;
    group.rank = rank;
    group.first_coordinate = data.coordinates;
    data.groups.push_back(group);
    data.coordinates += rank;
    std::move(statistics.begin(), statistics.begin() + rank, std::back_inserter(statistics_));
    return absl::OkStatus();
  }

  const CalibrationOptions options_;
  KvPanels panels_;
  const int levels_;
  std::vector<KvView> samples_;  // without sinks
  int64_t tokens_ = 0;
  ProfileFields fields_;
  std::vector<CoordinateStatistics> statistics_;
  std::vector<float> panel_;
  PanelScratch scratch_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Profile>> BuildProfile(const KvGeometry& geometry,
                                                            absl::Span<const KvView> samples,
                                                            const QueryRms& query_rms,
                                                            const CalibrationOptions& options) {
  absl::Status status = CheckOptions(geometry, query_rms, options);
  if (!status.ok()) return status;
  for (const KvView& sample : samples) {
    status = CheckKvView(geometry, sample);
    if (!status.ok()) return status;
  }
  Calibrator calibrator(geometry, samples, options);
  if (samples.empty()) {
    calibrator.Fallback();
  } else {
    if (calibrator.tokens() == 0) return Invalid("the samples have no tokens beyond the sinks");
    status = calibrator.Calibrate(query_rms);
    if (!status.ok()) return status;
  }
  return Profile::ParseOwned(SerializeProfile(calibrator.fields()));
}

}  // namespace kvstream

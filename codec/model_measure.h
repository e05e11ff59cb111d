// Encodes and decodes KV of model_kv.h and measures what comes of it, beside theory.
#ifndef KVSTREAM_CODEC_MODEL_MEASURE_H_
#define KVSTREAM_CODEC_MODEL_MEASURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "codec/calibration.h"
#include "codec/geometry.h"
#include "codec/model_kv.h"
#include "codec/profile.h"

namespace kvstream {

constexpr int kModelChunk = 256;
constexpr int kModelLevels = 4;

// config.json files as the models have them, cut to the keys that say how their KV looks. Layers,
// and of LLaMA 3.1 the KV heads, are arguments, so that tests stay fast.
std::string Llama31Config(int layers, int kv_heads);
std::string Glm4Config(int layers);  // 64 of 128 channels turn, interleaved
std::string QwenYarnConfig(int layers);
std::string Phi3LongRopeConfig(int layers);  // heads of 96, F16
std::string DeepSeekV3Config(int layers);    // MLA

// What follows ends the process with a message on an error: it serves tests and reports.

KvGeometry GeometryOf(const std::string& config);

// A profile calibrated on two contexts of the model, `tokens` together.
std::shared_ptr<const Profile> CalibrateOn(const ModelKv& model, int64_t tokens,
                                           const CalibrationOptions& options);

struct Measured {
  double bits = 0;      // a value, all segments up to the level
  double error = 0;     // mean square in units, a value
  double rounding = 0;  // what of it the output's rounding to 16 bits explains
};

// Bits of a fresh chunk at first_position at every level, and its errors at the `wanted` ones.
// unit: of every channel.
std::vector<Measured> MeasureChunk(const ModelKv& model,
                                   const std::shared_ptr<const Profile>& profile,
                                   const std::vector<float>& unit, int64_t first_position,
                                   absl::Span<const int> wanted);

// Theory of a calibrated profile at every level, a value.
std::vector<SpectrumTheory> TheoryOfProfile(const ModelKv& model, const Profile& profile);

// A line a level, rates and errors side by side.
void PrintMeasured(const std::string& name, const std::vector<Measured>& measured,
                   const std::vector<SpectrumTheory>& theory);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_MODEL_MEASURE_H_

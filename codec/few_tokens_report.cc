// Prints what a group loses when it is calibrated on few tokens: a layer of 512 channels from 128
// to 16,384 tokens, and with the argument `whole` an 8B model as one group of 65,536 channels from
// 2,048 tokens, which takes minutes and 6 GB.
//
//   bazel run //codec:few_tokens_report [-- whole]
#include <chrono>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "codec/model_measure.h"
#include "codec/profile_data.h"

namespace kvstream {
namespace {

void OneLayer() {
  const ModelKv model(GeometryOf(Glm4Config(1)), {}, 15);
  for (const int64_t tokens : {128, 256, 512, 1024, 2048, 4096, 16384}) {
    const std::shared_ptr<const Profile> profile = CalibrateOn(model, tokens, {});
    PrintMeasured(absl::StrCat("512 channels, ", tokens),
                  MeasureChunk(model, profile, profile->data().unit, 4096, {0, 1, 2, 3}),
                  TheoryOfProfile(model, *profile));
  }
}

void WholeModel() {
  const ModelKv model(GeometryOf(Llama31Config(32, 8)), {}, 14);
  CalibrationOptions options;
  options.group = CalibrationOptions::Group::kModel;
  const auto start = std::chrono::steady_clock::now();
  const std::shared_ptr<const Profile> profile = CalibrateOn(model, 2048, options);
  std::printf("built in %.0f s, rank %d of %d channels\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
              profile->group_rank(0), profile->group_channels(0));
  PrintMeasured("8B as one group, 2048",
                MeasureChunk(model, profile, profile->data().unit, 4096, {0, 1, 2, 3}),
                std::vector<SpectrumTheory>(kModelLevels));
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "whole") == 0) {
    kvstream::WholeModel();
  } else {
    kvstream::OneLayer();
  }
  return 0;
}

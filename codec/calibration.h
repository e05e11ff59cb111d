// Builds a model profile from sample KV.
#ifndef KVSTREAM_CODEC_CALIBRATION_H_
#define KVSTREAM_CODEC_CALIBRATION_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

struct CalibrationOptions {
  enum class Group { kHead, kLayers, kModel };
  // Which values share a KLT: one head's keys or values (kHead), keys and values of `group_layers`
  // consecutive layers (kLayers), or the whole model (kModel).
  Group group = Group::kLayers;
  int group_layers = 1;
  // Steps of the levels, coarsest first, each a third of the one before; in units of a layer's
  // standard deviation. 1 to 8 levels.
  std::vector<double> steps = {1.08, 0.36, 0.12, 0.04};
  // Step of values relative to that of keys.
  double value_step_ratio = 1.2;
  int chunk_tokens = 256;
  int sink_tokens = 4;
  // How much the model minds an error of a channel: the mean square of the gradient of the
  // log-likelihood of what the model predicts with respect to the cached value, by channel as
  // profile_data.h numbers them: [layer][plane][kv_head][channel]. Keys before or after RoPE
  // (only the mean over a pair is used); the scale does not matter. Empty: unknown, all layers
  // count alike.
  //
  // With errors e independent of each other, the expected divergence of the model's output is
  // 1/2 sum of sensitivity x e^2 to second order, so that for a given rate the step of a channel
  // goes with 1 / sqrt(sensitivity). Steps are scaled such that this sum at a given level is what
  // it is without sensitivities.
  std::vector<float> sensitivity;
};

// Root mean square of the queries per layer, KV head and channel (before or after RoPE makes no
// difference to a pair's RMS), over the query heads that read the KV head: element
// [layer][kv_head][channel]. Empty: no query weights. Of a latent's queries (absorbed ones, as long
// as the latent) only the rotated part is read: attention reads the rest both as keys and as
// values, which queries do not tell.
using QueryRms = std::vector<float>;

// samples: contexts' KV from position 0 on, in the geometry's dtype. No sample at all gives the
// fallback: identity transform, tables measured per chunk. Errors: INVALID_ARGUMENT (shapes,
// options, non-finite values). Cost: one eigendecomposition per group.
absl::StatusOr<std::shared_ptr<const Profile>> BuildProfile(const KvGeometry& geometry,
                                                            absl::Span<const KvView> samples,
                                                            const QueryRms& query_rms,
                                                            const CalibrationOptions& options);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CALIBRATION_H_

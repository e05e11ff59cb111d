// Sensitivities from a safetensors file, for `profile build --sensitivity`.
#ifndef KVSTREAM_CLIENT_CLI_SENSITIVITY_H_
#define KVSTREAM_CLIENT_CLI_SENSITIVITY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "codec/geometry.h"

namespace kvstream::cli {

// Per layer i the file holds layers.{i}.key_sensitivity and layers.{i}.value_sensitivity (of a
// latent: layers.{i}.latent_sensitivity), [kv_heads, head_size] F32: the mean square of the
// gradient of the log-likelihood with respect to a channel. Returns them in the order of
// CalibrationOptions::sensitivity. INVALID_ARGUMENT naming path and tensor for missing tensors,
// other shapes and values that are negative or not finite.
absl::StatusOr<std::vector<float>> ReadSensitivity(const std::string& path,
                                                   const KvGeometry& geometry);

}  // namespace kvstream::cli

#endif  // KVSTREAM_CLIENT_CLI_SENSITIVITY_H_

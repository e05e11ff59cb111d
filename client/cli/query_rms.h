// Query statistics from a safetensors file, for `profile build --queries`.
#ifndef KVSTREAM_CLIENT_CLI_QUERY_RMS_H_
#define KVSTREAM_CLIENT_CLI_QUERY_RMS_H_

#include <string>

#include "absl/status/statusor.h"
#include "codec/calibration.h"
#include "codec/geometry.h"

namespace kvstream::cli {

// Per layer i the file holds either
//   layers.{i}.query      [tokens, query_heads, head_size]  F16, BF16 or F32, before or after RoPE
//   (a rotation does not change what is
//                         kept); query head h reads KV head h / (query_heads / kv_heads), as in
//                         grouped-query attention; or
//   layers.{i}.query_rms  [kv_heads, head_size]  F32, the root mean squares themselves.
// Returns the root mean squares over tokens and the query heads of a KV head. INVALID_ARGUMENT
// naming path and tensor for missing tensors, other shapes and values that are not finite.
absl::StatusOr<QueryRms> ReadQueryRms(const std::string& path, const KvGeometry& geometry);

}  // namespace kvstream::cli

#endif  // KVSTREAM_CLIENT_CLI_QUERY_RMS_H_

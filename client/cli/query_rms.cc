#include "client/cli/query_rms.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/status_macros.h"
#include "client/safetensors.h"
#include "codec/float16.h"

namespace kvstream::cli {
namespace {

absl::Status Wrong(const SafetensorsFile& file, absl::string_view tensor, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor ", tensor, " ", what));
}

// Element `index` of a tensor of one of the three types, however it is aligned.
float ElementAt(absl::string_view bytes, TensorDtype dtype, size_t index) {
  if (dtype == TensorDtype::kF32) {
    float value;
    std::memcpy(&value, bytes.data() + index * sizeof(value), sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes.data() + index * sizeof(bits), sizeof(bits));
  const KvDtype type = dtype == TensorDtype::kF16 ? KvDtype::kF16 : KvDtype::kBF16;
  // The codec's conversion makes infinities finite.
  return IsFinite16(bits, type) ? FloatFrom16(bits, type) : std::numeric_limits<float>::infinity();
}

// Adds the mean squares of one layer's queries to the end of `out` as roots.
absl::Status AppendFromQueries(const SafetensorsFile& file, const TensorEntry& entry,
                               const KvGeometry& geometry, QueryRms& out) {
  const bool float_type = entry.dtype == TensorDtype::kF16 || entry.dtype == TensorDtype::kBF16 ||
                          entry.dtype == TensorDtype::kF32;
  if (!float_type) {
    return Wrong(file, entry.name,
                 absl::StrCat("is ", TensorDtypeName(entry.dtype), ", must be F16, BF16 or F32"));
  }
  if (entry.shape.size() != 3 || entry.shape[0] < 1 || entry.shape[1] < 1 ||
      entry.shape[1] % geometry.kv_heads != 0 || entry.shape[2] != geometry.head_size) {
    return Wrong(file, entry.name,
                 absl::StrCat("must have shape [tokens, a multiple of ", geometry.kv_heads, ", ",
                              geometry.head_size, "]"));
  }
  const absl::string_view bytes = file.Bytes(entry);
  const size_t query_heads = static_cast<size_t>(entry.shape[1]);
  const size_t group = query_heads / static_cast<size_t>(geometry.kv_heads);
  const size_t head_size = static_cast<size_t>(geometry.head_size);
  std::vector<double> squares(static_cast<size_t>(geometry.kv_heads) * head_size);
  size_t index = 0;
  for (int64_t token = 0; token < entry.shape[0]; ++token) {
    for (size_t head = 0; head < query_heads; ++head) {
      double* row = &squares[head / group * head_size];
      for (size_t channel = 0; channel < head_size; ++channel) {
        const double value = ElementAt(bytes, entry.dtype, index++);
        row[channel] += value * value;
      }
    }
  }
  const double count = static_cast<double>(entry.shape[0]) * static_cast<double>(group);
  for (const double square : squares) {
    const float rms = static_cast<float>(std::sqrt(square / count));
    if (!std::isfinite(rms)) return Wrong(file, entry.name, "holds values that are not finite");
    out.push_back(rms);
  }
  return absl::OkStatus();
}

absl::Status AppendFromRms(const SafetensorsFile& file, const TensorEntry& entry,
                           const KvGeometry& geometry, QueryRms& out) {
  const std::vector<int64_t> shape = {geometry.kv_heads, geometry.head_size};
  if (entry.dtype != TensorDtype::kF32 || entry.shape != shape) {
    return Wrong(
        file, entry.name,
        absl::StrCat("must be F32 of shape [", geometry.kv_heads, ", ", geometry.head_size, "]"));
  }
  const absl::string_view bytes = file.Bytes(entry);
  for (size_t i = 0; i < bytes.size() / sizeof(float); ++i) {
    const float rms = ElementAt(bytes, entry.dtype, i);
    if (!std::isfinite(rms) || rms < 0) {
      return Wrong(file, entry.name, "holds values that are negative or not finite");
    }
    out.push_back(rms);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QueryRms> ReadQueryRms(const std::string& path, const KvGeometry& geometry) {
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
  QueryRms out;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    const std::string query = absl::StrCat("layers.", layer, ".query");
    if (const TensorEntry* rms = file->Find(query + "_rms")) {
      CLI_RETURN_IF_ERROR(AppendFromRms(*file, *rms, geometry, out));
    } else if (const TensorEntry* queries = file->Find(query)) {
      CLI_RETURN_IF_ERROR(AppendFromQueries(*file, *queries, geometry, out));
    } else {
      return Wrong(*file, query,
                   absl::StrCat("is missing, and so is ", query, "_rms; the model has ",
                                geometry.layers, " layers"));
    }
  }
  return out;
}

}  // namespace kvstream::cli

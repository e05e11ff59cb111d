#include "client/cli/sensitivity.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/cli/status_macros.h"
#include "client/safetensors.h"

namespace kvstream::cli {
namespace {

absl::Status Wrong(const SafetensorsFile& file, absl::string_view tensor, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor ", tensor, " ", what));
}

}  // namespace

absl::StatusOr<std::vector<float>> ReadSensitivity(const std::string& path,
                                                   const KvGeometry& geometry) {
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
  const std::vector<int64_t> shape = {geometry.kv_heads, geometry.head_size};
  const std::vector<const char*> kinds = geometry.has_values()
                                             ? std::vector<const char*>{"key", "value"}
                                             : std::vector<const char*>{"latent"};
  std::vector<float> out;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (const char* kind : kinds) {
      const std::string name = absl::StrCat("layers.", layer, ".", kind, "_sensitivity");
      const TensorEntry* entry = file->Find(name);
      if (entry == nullptr) {
        return Wrong(*file, name,
                     absl::StrCat("is missing; the model has ", geometry.layers, " layers"));
      }
      if (entry->dtype != TensorDtype::kF32 || entry->shape != shape) {
        return Wrong(*file, name,
                     absl::StrCat("must be F32 of shape [", geometry.kv_heads, ", ",
                                  geometry.head_size, "]"));
      }
      const absl::string_view bytes = file->Bytes(*entry);
      for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
        float value;
        std::memcpy(&value, bytes.data() + at, sizeof(value));
        if (!std::isfinite(value) || value < 0) {
          return Wrong(*file, name, "holds values that are negative or not finite");
        }
        out.push_back(value);
      }
    }
  }
  return out;
}

}  // namespace kvstream::cli

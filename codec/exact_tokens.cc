#include "codec/exact_tokens.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "codec/float16.h"

namespace kvstream {

absl::Status EncodeExactTokens(const KvGeometry& geometry, const KvView& kv, std::string* out) {
  const size_t row_bytes = static_cast<size_t>(geometry.head_size) * 2;
  for (int64_t token = 0; token < kv.tokens; ++token) {
    for (int layer = 0; layer < geometry.layers; ++layer) {
      for (const KvTensor* tensor : {&kv.keys[layer], &kv.values[layer]}) {
        for (int head = 0; head < geometry.kv_heads; ++head) {
          const uint16_t* row = tensor->at(token, head);
          for (int i = 0; i < geometry.head_size; ++i) {
            if (!IsFinite16(row[i], geometry.dtype))
              return absl::InvalidArgumentError("kv: a value is not finite");
          }
          out->append(reinterpret_cast<const char*>(row), row_bytes);
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeExactTokens(const KvGeometry& geometry, absl::string_view bytes,
                               const MutableKvView& kv) {
  const uint64_t expected = static_cast<uint64_t>(kv.tokens) * geometry.values_per_token() * 2;
  if (bytes.size() != expected) {
    return absl::DataLossError(
        absl::StrCat("segment: exact tokens take ", bytes.size(), " bytes, must be ", expected));
  }
  const size_t row_bytes = static_cast<size_t>(geometry.head_size) * 2;
  const char* at = bytes.data();
  for (int64_t token = 0; token < kv.tokens; ++token) {
    for (int layer = 0; layer < geometry.layers; ++layer) {
      for (const MutableKvTensor* tensor : {&kv.keys[layer], &kv.values[layer]}) {
        for (int head = 0; head < geometry.kv_heads; ++head, at += row_bytes) {
          uint16_t* row = tensor->at(token, head);
          std::memcpy(row, at, row_bytes);
          for (int i = 0; i < geometry.head_size; ++i) {
            if (!IsFinite16(row[i], geometry.dtype))
              return absl::InvalidArgumentError("segment: an exact token's value is not finite");
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace kvstream

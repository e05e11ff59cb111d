// Any bytes as a safetensors header: what is accepted must be consistent, and every byte that it
// names readable.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "absl/strings/string_view.h"
#include "client/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view file(reinterpret_cast<const char*>(data), size);
  const auto header = kvstream::ParseSafetensorsHeader(file);
  if (!header.ok()) {
    if (header.status().code() != absl::StatusCode::kInvalidArgument) std::abort();
    return 0;
  }
  unsigned sum = 0;
  for (const auto& [name, tensor] : header->tensors) {
    if (tensor.offset > size || tensor.size_bytes > size - tensor.offset) std::abort();
    if (name != tensor.name) std::abort();
    for (const char c : file.substr(tensor.offset, tensor.size_bytes)) sum += c;
  }
  volatile unsigned sink = sum;
  (void)sink;
  return 0;
}

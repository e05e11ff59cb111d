#include "storage/id_text.h"

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"

namespace kvstream {

std::string ShortHex(const ChunkId& id) {
  constexpr size_t kShownBytes = 8;
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(id.data()), kShownBytes));
}

}  // namespace kvstream

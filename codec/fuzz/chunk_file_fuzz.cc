// ParseChunkFile on any bytes, and on any body under a good checksum.
#include <cstdlib>
#include <numeric>
#include <string>

#include "codec/byte_io.h"
#include "codec/chunk_file.h"
#include "codec/fuzz/fuzz_target.h"
#include "codec/fuzz/fuzz_world.h"
#include "codec/segment.h"

namespace kvstream {

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  for (const FuzzWorld* world : {&CalibratedWorld(), &UncalibratedWorld()}) {
    std::vector<int32_t> tokens(FuzzWorld::kTokens);
    std::iota(tokens.begin(), tokens.end(), 1);
    seeds.push_back(*WriteChunkFile(*world->profile, tokens, {world->chunks[0]}));
  }
  return seeds;
}

namespace {

void TryFile(const std::string& bytes) {
  const absl::StatusOr<ChunkFileView> view = ParseChunkFile(bytes);
  if (!view.ok()) return;
  // Every segment lies within the file.
  size_t total = 0;
  for (const std::vector<absl::string_view>& chunk : view->chunks) {
    for (absl::string_view segment : chunk) {
      if (segment.data() < bytes.data() ||
          segment.data() + segment.size() > bytes.data() + bytes.size())
        std::abort();
      total += segment.size();
    }
  }
  if (total + view->tokens.size() * 4 > bytes.size()) std::abort();
}

}  // namespace
}  // namespace kvstream

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  kvstream::TryFile(bytes);
  if (size >= 24) kvstream::StoreLe<uint64_t>(size, &bytes[8]);
  kvstream::Reseal(&bytes);
  kvstream::TryFile(bytes);
  return 0;
}

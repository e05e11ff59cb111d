#include "storage/conformance/test_chunks.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace kvstream {
namespace {

// SplitMix64's finaliser: a bijection, so different numbers stay different.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

ChunkId TestId(uint64_t number) {
  ChunkId id;
  for (size_t word = 0; word < 4; ++word) {
    const uint64_t bits = Mix(number + (uint64_t{word} << 56));
    for (size_t i = 0; i < 8; ++i) id[8 * word + i] = static_cast<uint8_t>(bits >> (8 * i));
  }
  return id;
}

std::string TestBytes(uint64_t seed, size_t bytes) {
  const uint64_t start = Mix(seed);
  std::string noise(bytes, '\0');
  for (size_t i = 0; i < bytes; i += 8) {
    const uint64_t bits = Mix(start + i);
    std::memcpy(noise.data() + i, &bits, std::min<size_t>(8, bytes - i));
  }
  return noise;
}

TestChunk MakeTestChunk(uint64_t number, size_t max_segment_bytes) {
  TestChunk chunk;
  chunk.id = TestId(number);
  const uint64_t bits = Mix(number ^ 0xc0ffee);
  // The first chunk of a context, and no other, has no parent.
  if (bits % 4 != 0) {
    chunk.info.parent = TestId(number - 1);
    chunk.info.first_token = 256 * (1 + number % 1000);
  }
  chunk.info.profile_id = TestId(~number);
  chunk.info.model = absl::StrCat("model-", number, "@revision");
  chunk.info.tokens = 1 + bits % 256;
  chunk.info.created = absl::FromUnixNanos(static_cast<int64_t>(bits % 4'000'000'000'000'000'000));
  const size_t levels = 1 + (bits >> 8) % 5;
  for (size_t level = 0; level < levels; ++level) {
    const size_t bytes = Mix(bits + level) % (max_segment_bytes + 1);
    chunk.segments.push_back(TestBytes(number * 256 + level, bytes));
    chunk.info.segment_bytes.push_back(bytes);
  }
  return chunk;
}

bool SameInfo(const ChunkInfo& a, const ChunkInfo& b) {
  return a.parent == b.parent && a.profile_id == b.profile_id && a.model == b.model &&
         a.first_token == b.first_token && a.tokens == b.tokens &&
         a.segment_bytes == b.segment_bytes && a.created == b.created &&
         a.levels_lost == b.levels_lost && a.expires == b.expires && a.tenant == b.tenant &&
         a.outer_id == b.outer_id && a.outer_parent == b.outer_parent;
}

uint64_t TestSeed() {
  uint64_t seed = 0;
  const char* given = std::getenv("KVSTREAM_TEST_SEED");
  if (given == nullptr || !absl::SimpleAtoi(given, &seed)) seed = std::random_device()();
  std::cout << "KVSTREAM_TEST_SEED=" << seed << std::endl;
  return seed;
}

int TestRounds(int rounds) {
  int given = 0;
  const char* text = std::getenv("KVSTREAM_TEST_ROUNDS");
  return text != nullptr && absl::SimpleAtoi(text, &given) && given > 0 ? given : rounds;
}

}  // namespace kvstream

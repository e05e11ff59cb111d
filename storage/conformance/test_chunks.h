// Chunks for tests: every byte of them follows from small numbers, so that a reader of the store
// can check what it got.
#ifndef KVSTREAM_STORAGE_CONFORMANCE_TEST_CHUNKS_H_
#define KVSTREAM_STORAGE_CONFORMANCE_TEST_CHUNKS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "storage/chunk_store.h"

namespace kvstream {

struct TestChunk {
  ChunkId id;
  ChunkInfo info;
  std::vector<std::string> segments;

  // Borrowed from `segments`.
  std::vector<absl::string_view> views() const {
    return std::vector<absl::string_view>(segments.begin(), segments.end());
  }
};

// 32 bytes that look like a hash of `number`, and differ for different numbers.
ChunkId TestId(uint64_t number);

// Noise of a size, the same for the same seed.
std::string TestBytes(uint64_t seed, size_t bytes);

// A chunk that its number determines: 1 to 5 levels of up to `max_segment_bytes` each, with and
// without a parent.
TestChunk MakeTestChunk(uint64_t number, size_t max_segment_bytes = 3000);

// Compares every field.
bool SameInfo(const ChunkInfo& a, const ChunkInfo& b);

// KVSTREAM_TEST_SEED if it is set, else one drawn at random; printed, so that a failure can be
// repeated.
uint64_t TestSeed();

// KVSTREAM_TEST_ROUNDS if it is set, else `rounds`: crash loops are short in CI and long by hand.
int TestRounds(int rounds);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_CONFORMANCE_TEST_CHUNKS_H_

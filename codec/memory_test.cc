// What encoder and decoder allocate, counted by an operator new of this binary.
#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "codec/decoder.h"
#include "codec/encoder.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace {

std::atomic<int64_t> allocations{0};
std::atomic<int64_t> live_bytes{0};
std::atomic<int64_t> peak_bytes{0};

// The size stands in front of the block.
constexpr size_t kFront = 64;

void* Allocate(size_t size) {
  char* const block =
      static_cast<char*>(std::aligned_alloc(kFront, (size + 2 * kFront - 1) / kFront * kFront));
  if (block == nullptr) std::abort();
  *reinterpret_cast<size_t*>(block) = size;
  ++allocations;
  const int64_t live = live_bytes += static_cast<int64_t>(size);
  if (live > peak_bytes) peak_bytes = live;
  return block + kFront;
}

void Free(void* at) {
  if (at == nullptr) return;
  char* const block = static_cast<char*>(at) - kFront;
  live_bytes -= static_cast<int64_t>(*reinterpret_cast<size_t*>(block));
  std::free(block);
}

}  // namespace

void* operator new(size_t size) { return Allocate(size); }
void* operator new[](size_t size) { return Allocate(size); }
void* operator new(size_t size, std::align_val_t) { return Allocate(size); }
void* operator new[](size_t size, std::align_val_t) { return Allocate(size); }
void operator delete(void* at) noexcept { Free(at); }
void operator delete[](void* at) noexcept { Free(at); }
void operator delete(void* at, size_t) noexcept { Free(at); }
void operator delete[](void* at, size_t) noexcept { Free(at); }
void operator delete(void* at, std::align_val_t) noexcept { Free(at); }
void operator delete[](void* at, std::align_val_t) noexcept { Free(at); }
void operator delete(void* at, size_t, std::align_val_t) noexcept { Free(at); }
void operator delete[](void* at, size_t, std::align_val_t) noexcept { Free(at); }

namespace kvstream {
namespace {

using Group = CalibrationOptions::Group;

struct Chunks {
  std::shared_ptr<const Profile> profile;
  KvGeometry geometry;
  int tokens;
  std::vector<TestKv> contexts;
  std::vector<EncodedChunk> chunks;  // the second of each context: no exact tokens

  Chunks(KvDtype dtype, bool calibrated, Group group) {
    geometry = TestGeometry(4, 2, 32, dtype);
    CalibrationOptions options;
    options.group = group;
    profile = calibrated ? MakeTestProfile(geometry, 3, options)
                         : *BuildProfile(geometry, {}, {}, options);
    tokens = profile->chunk_tokens();
    auto encoder = *ChunkEncoder::Create(profile);
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      contexts.push_back(MakeTestKv(geometry, 2 * tokens, 3, seed));
      chunks.push_back(*encoder->Encode(contexts.back().view().Slice(tokens, tokens), tokens));
    }
  }
};

TEST(MemoryTest, DecodingAllocatesNothingAfterTheFirstChunk) {
  for (const bool calibrated : {true, false}) {
    for (const KvDtype dtype : {KvDtype::kF16, KvDtype::kBF16}) {
      const Chunks chunks(dtype, calibrated, Group::kLayers);
      auto decoder = *ChunkDecoder::Create(chunks.profile);
      TestKv out(chunks.geometry, chunks.tokens);
      const MutableKvView view = out.mutable_view();
      std::vector<std::vector<absl::string_view>> segments;
      for (const EncodedChunk& chunk : chunks.chunks)
        segments.emplace_back(chunk.segments.begin(), chunk.segments.end());
      // Blocks differ in number; the first round sees the most of each.
      for (const auto& some : segments) ASSERT_TRUE(decoder->Decode(some, view).ok());
      const int64_t before = allocations;
      for (const auto& some : segments) {
        for (size_t levels = 1; levels <= some.size(); ++levels)
          ASSERT_TRUE(decoder->Decode(absl::MakeConstSpan(some).first(levels), view).ok());
      }
      EXPECT_EQ(allocations - before, 0) << "calibrated " << calibrated;
    }
  }
}

TEST(MemoryTest, EncodingPeaksBelowThreeTimesTheChunk) {
  // As deep as models are, since a group of one layer is held in floats twice.
  const KvGeometry geometry = TestGeometry(32, 1, 64, KvDtype::kBF16);
  for (const Group group : {Group::kHead, Group::kLayers}) {
    CalibrationOptions options;
    options.group = group;
    const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, options, 300);
    const int tokens = profile->chunk_tokens();
    const TestKv kv = MakeTestKv(geometry, 2 * tokens, 3, 5);
    const KvView view = kv.view().Slice(tokens, tokens);
    // What depends on the profile alone.
    auto encoder = *ChunkEncoder::Create(profile);
    const int64_t before = live_bytes;
    peak_bytes = before;
    ASSERT_TRUE(encoder->Encode(view, tokens).ok());
    const double chunk = 2.0 * geometry.values_per_token() * tokens;
    EXPECT_LT((peak_bytes - before) / chunk, 3);
    RecordProperty("times_the_chunk", std::to_string((peak_bytes - before) / chunk));
  }
}

}  // namespace
}  // namespace kvstream

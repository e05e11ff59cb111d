// What both servers store: values of one size, each a segment that a Put accepts.
#ifndef KVSTREAM_TESTS_BENCH_STORE_VALUES_H_
#define KVSTREAM_TESTS_BENCH_STORE_VALUES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "codec/profile.h"
#include "storage/chunk_store.h"

namespace kvstream::bench {

constexpr int kChunkTokens = 256;

// A profile with one level and no calibration, so that a segment of it may have any size.
std::shared_ptr<const Profile> BenchProfile();

// 32 bytes that look like a hash; equal arguments give equal ids.
ChunkId BenchChunkId(uint64_t set, uint64_t index);

// One context of `count` chunks, whose only segment is the value: a segment's header, bytes that do
// not compress, a checksum.
class ValueSet {
 public:
  // Generates every value once, to learn its hash.
  ValueSet(std::shared_ptr<const Profile> profile, size_t value_bytes, int count);

  size_t value_bytes() const { return value_bytes_; }
  int count() const { return static_cast<int>(ids_.size()); }
  uint64_t total_bytes() const { return uint64_t{value_bytes_} * ids_.size(); }
  const std::vector<ChunkId>& ids() const { return ids_; }
  const Profile& profile() const { return *profile_; }

  std::string Value(int index) const;
  // Of every byte.
  bool Matches(int index, absl::string_view value) const;

 private:
  const std::shared_ptr<const Profile> profile_;
  const size_t value_bytes_;
  std::vector<ChunkId> ids_;
  std::vector<uint64_t> hashes_;
};

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_VALUES_H_

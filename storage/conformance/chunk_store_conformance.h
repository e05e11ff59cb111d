// What every ChunkStore must do. A driver's test links this library and instantiates the suite:
//
//   INSTANTIATE_TEST_SUITE_P(Memory, ChunkStoreConformance,
//                            testing::Values(ConformanceParam{"memory", [] { return ...; }}),
//                            ConformanceParam::Name);
#ifndef KVSTREAM_STORAGE_CONFORMANCE_CHUNK_STORE_CONFORMANCE_H_
#define KVSTREAM_STORAGE_CONFORMANCE_CHUNK_STORE_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/chunk_store.h"
#include "storage/conformance/test_chunks.h"

namespace kvstream {

struct TestProfile {
  StoredProfileId id;
  std::string bytes;
};

// One place where a driver keeps its chunks: a temporary directory, a server of the test's own,
// nothing at all. Lives for one test.
class ConformanceTarget {
 public:
  virtual ~ConformanceTarget() = default;
  // The first call opens an empty store. Later calls, which happen only if persistent() and after
  // the store before was destroyed, open the same store again.
  virtual absl::StatusOr<std::unique_ptr<ChunkStore>> Open() = 0;
  virtual bool persistent() const = 0;
  // Whether Stats().chunks and payload_bytes are exact.
  virtual bool exact_stats() const { return true; }
  // Whether the store is one tenant's part of another (TenantView): it lists in an order of its
  // own, and takes no tenants itself.
  virtual bool of_tenant() const { return false; }
  // Whether the store is a server's, behind the protocol of clients. What that does not carry, so
  // that the suite asks for less:
  // - when a chunk was created: the server says that itself;
  // - a Put of a stored chunk with another profile, and so with another number of levels, which is
  //   refused (FAILED_PRECONDITION) rather than left unstored;
  // - that a Put stored a chunk whose deletion was acknowledged but waited for a load: the Put
  // takes
  //   the deletion back, and counts the chunk as existing;
  // - segments that do not fit what was announced of them, a first token beyond 62 bits, levels
  // that
  //   are lost in a Put: no order of messages says so, or the server refuses it in words of its own
  //   (//server/service:put_rpc_test);
  // - tenants, which follow from who calls (//tests/tenants);
  // - ids of profiles that are not the hash of their bytes, and what is no profile.
  virtual bool over_protocol() const { return false; }
  // A profile of about so many bytes that the store takes; different for different numbers.
  virtual TestProfile MakeProfile(uint64_t number, size_t bytes) const {
    return {TestId(number), TestBytes(number, bytes)};
  }
};

struct ConformanceParam {
  std::string name;  // what the store says its driver() is; letters only
  std::function<std::unique_ptr<ConformanceTarget>()> make;

  static std::string Name(const testing::TestParamInfo<ConformanceParam>& info) {
    return info.param.name;
  }
};

class ChunkStoreConformance : public testing::TestWithParam<ConformanceParam> {
 protected:
  void SetUp() override;

  ChunkStore& store() { return *store_; }
  const ConformanceTarget& target() const { return *target_; }
  // Closes and opens a persistent store; leaves another as it is.
  void Reopen();

  // Failing the test if they cannot.
  bool Put(const TestChunk& chunk);
  // Checks everything that the store tells of a chunk that it must have, or must not have.
  void ExpectStored(const TestChunk& chunk);
  void ExpectAbsent(const TestChunk& chunk);
  // Whether the store tells of a chunk what was put.
  bool Same(const ChunkInfo& told, const ChunkInfo& put) const;
  // `content` under the id of MakeTestChunk(number), as a Put after a deletion may bring it.
  TestChunk Under(uint64_t number, TestChunk content) const;

 private:
  std::unique_ptr<ConformanceTarget> target_;
  std::unique_ptr<ChunkStore> store_;
};

// For drivers that keep lifetimes (Expire, Renew, pins, DeleteSoon, Children): a suite of its own,
// instantiated the same way.
class ChunkStoreLifetimes : public ChunkStoreConformance {
 protected:
  // So far ahead of the store's own clock that nothing ends while a test runs.
  absl::Time In(int64_t seconds) const { return base_ + absl::Seconds(seconds); }
  static TestChunk Expiring(uint64_t number, absl::Time expires);
  // Failing the test if they cannot.
  size_t Expire(absl::Time now, size_t limit = 1000);
  size_t Pin(const std::vector<ChunkId>& ids, const std::string& owner, absl::Time until);
  size_t Delete(const std::vector<ChunkId>& ids);
  std::vector<std::string> Owners(const ChunkId& id);

 private:
  const absl::Time base_ = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()) + 1000000);
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_CONFORMANCE_CHUNK_STORE_CONFORMANCE_H_

// What every ChunkStore must do. A driver's test links this library and instantiates the suite:
//
//   INSTANTIATE_TEST_SUITE_P(Memory, ChunkStoreConformance,
//                            testing::Values(ConformanceParam{"memory", [] { return ...; }}),
//                            ConformanceParam::Name);
#ifndef KVSTREAM_STORAGE_CONFORMANCE_CHUNK_STORE_CONFORMANCE_H_
#define KVSTREAM_STORAGE_CONFORMANCE_CHUNK_STORE_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "storage/chunk_store.h"
#include "storage/conformance/test_chunks.h"

namespace kvstream {

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

 private:
  std::unique_ptr<ConformanceTarget> target_;
  std::unique_ptr<ChunkStore> store_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_CONFORMANCE_CHUNK_STORE_CONFORMANCE_H_

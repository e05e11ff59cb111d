// What lifetime_writer does to the chunk of a number, so that lifetime_crash_test can tell what
// must be left of it.
#ifndef KVSTREAM_STORAGE_ROCKSDB_LIFETIME_SCRIPT_H_
#define KVSTREAM_STORAGE_ROCKSDB_LIFETIME_SCRIPT_H_

#include <cstdint>

#include "absl/time/time.h"
#include "storage/conformance/test_chunks.h"

namespace kvstream {

// By the number modulo kLifetimeScripts. The chunk is put first; the number and a letter are
// written after each step has been acknowledged.
enum class LifetimeScript : uint64_t {
  kDelete,      // "p", deleted: "d"
  kDeleteSoon,  // "p", noted: "d"
  kExpire,      // put with a time that has come: "p"; a thread sweeps
  kPin,         // "p", pinned: "n"
  kRenew,       // "p", renewed: "r"
  kUnpin,       // "p", pinned: "n", unpinned: "u", deleted: "d"
};
inline constexpr uint64_t kLifetimeScripts = 6;

inline LifetimeScript LifetimeScriptOf(uint64_t number) {
  return static_cast<LifetimeScript>(number % kLifetimeScripts);
}

// Long past and far ahead of any clock of a test.
inline constexpr absl::Time kLongPast = absl::UnixEpoch();
inline const absl::Time kFarAhead = absl::UnixEpoch() + absl::Hours(24 * 365 * 200);
inline const absl::Time kFartherAhead = kFarAhead + absl::Hours(1);

inline TestChunk LifetimeChunk(uint64_t number) {
  TestChunk chunk = MakeTestChunk(number, 10000);
  chunk.info.expires = LifetimeScriptOf(number) == LifetimeScript::kExpire ? kLongPast : kFarAhead;
  return chunk;
}

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_LIFETIME_SCRIPT_H_

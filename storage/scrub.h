// What a scrub of a store finds: the words of ChunkStore's methods that look for damage.
#ifndef KVSTREAM_STORAGE_SCRUB_H_
#define KVSTREAM_STORAGE_SCRUB_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"

namespace kvstream {

// A chunk (by its id) whose info cannot be read.
struct DamagedInfo {
  std::array<uint8_t, 32> id = {};
  absl::Status why;
};

// A page of files that a store keeps its chunks in.
struct ScrubbedFiles {
  struct Damaged {
    std::string name;
    absl::Status why;
  };
  uint64_t files = 0;  // looked at, with their bytes
  uint64_t bytes = 0;
  std::vector<Damaged> damaged;
  // Where to go on; empty: that was all.
  std::string next;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_SCRUB_H_

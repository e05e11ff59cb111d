// EvictionIndex against a model that looks at every chunk for each victim.
#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <vector>

#include "storage/conformance/test_chunks.h"
#include "storage/eviction_index.h"
#include "storage/fuzz/operations.h"

namespace kvstream {

const int kReplayedInputs = 3000;
const size_t kReplayedBytes = 1200;

namespace {

constexpr uint64_t kIds = 16;
uint64_t taken = 0;

struct Known {
  ChunkInfo info;
  absl::optional<uint64_t> parent;  // that counts: stored later in the context than it
};

class Fuzzer {
 public:
  explicit Fuzzer(const uint8_t* data, size_t size) : input_(data, size) {
    for (uint64_t i = 0; i < kIds; ++i) ids_[i] = TestId(i);
  }

  void Run() {
    while (!input_.done()) {
      switch (input_.Below(8)) {
        case 0:
        case 1:
        case 2:
          Put();
          break;
        case 3:
          Remove(input_.Below(kIds));
          break;
        case 4:
        case 5:
          index_.Touch(ids_[input_.Below(kIds)]);
          break;
        case 6:
          Take();
          break;
        default: {
          const uint64_t id = input_.Below(kIds);
          if (!held_.erase(id)) held_.insert(id);
        }
      }
      Check();
    }
    // Without holds everything can go: no chunk is stuck behind another.
    held_.clear();
    const uint64_t bytes = index_.payload_bytes();
    for (const auto& victim : index_.Take(UINT64_MAX, SIZE_MAX, Held())) {
      FUZZ_CHECK(victim.keep_levels == 0);
    }
    FUZZ_CHECK(index_.chunks() == 0);
    FUZZ_CHECK(index_.payload_bytes() == 0);
    taken += bytes > 0;
  }

 private:
  std::function<bool(const ChunkId&)> Held() {
    return [this](const ChunkId& id) {
      for (const uint64_t held : held_) {
        if (ids_[held] == id) return true;
      }
      return false;
    };
  }
  uint64_t NumberOf(const ChunkId& id) const {
    return static_cast<uint64_t>(std::find(ids_.begin(), ids_.end(), id) - ids_.begin());
  }

  void Put() {
    const uint64_t id = input_.Below(kIds);
    if (const auto known = known_.find(id); known != known_.end()) {
      // Levels restored or lost; it is the same chunk otherwise.
      known->second.info.segment_bytes.assign(1 + input_.Below(4), 100 + 50 * input_.Below(100));
      index_.Put(ids_[id], known->second.info);
      return;
    }
    Known chunk;
    // Honest contexts: a parent comes before its children. (Rings of lies are a test of their own.)
    if (id % 4 != 0) {
      chunk.parent = id - 1 - input_.Below(id % 4);
      chunk.info.parent = ids_[*chunk.parent];
    }
    chunk.info.first_token = (id % 4) * 256;
    chunk.info.tokens = static_cast<uint32_t>(1 + input_.Below(256));
    for (uint64_t n = 1 + input_.Below(4); n > 0; --n) {
      chunk.info.segment_bytes.push_back(1 + 37 * input_.Below(256));
    }
    absl::optional<EvictionIndex::Usage> usage;
    if (input_.Below(4) == 0) {
      usage = EvictionIndex::Usage{index_.clock() * static_cast<double>(input_.Below(5)) / 3,
                                   static_cast<uint32_t>(input_.Below(100))};
    }
    index_.Put(ids_[id], chunk.info, usage);
    known_.emplace(id, chunk);
  }

  void Remove(uint64_t id) {
    index_.Remove(ids_[id]);
    known_.erase(id);
  }

  bool HasChildren(uint64_t id) const {
    return std::any_of(known_.begin(), known_.end(),
                       [id](const auto& other) { return other.second.parent == id; });
  }
  bool Removable(uint64_t id) const {
    return known_.at(id).info.segment_bytes.size() > 1 || !HasChildren(id);
  }

  // The least value among what may go now; none if nothing may.
  absl::optional<double> Least() {
    absl::optional<double> least;
    for (const auto& [id, chunk] : known_) {
      if (held_.count(id) > 0 || !Removable(id)) continue;
      const double value = *index_.value(ids_[id]);
      if (!least.has_value() || value < *least) least = value;
    }
    return least;
  }

  // One unit at a time, so that each can be compared with all others.
  void Take() {
    for (uint64_t n = 1 + input_.Below(6); n > 0; --n) {
      const absl::optional<double> least = Least();
      std::map<uint64_t, double> before;
      for (const auto& [id, chunk] : known_) before[id] = *index_.value(ids_[id]);
      const double clock = index_.clock();
      const auto victims = index_.Take(1, 1, Held());
      FUZZ_CHECK(victims.empty() == !least.has_value());
      if (victims.empty()) return;
      const uint64_t id = NumberOf(victims[0].id);
      FUZZ_CHECK(known_.count(id) == 1 && held_.count(id) == 0 && Removable(id));
      FUZZ_CHECK(before[id] == *least);
      FUZZ_CHECK(index_.clock() == std::max(clock, *least));
      ChunkInfo& info = known_[id].info;
      FUZZ_CHECK(victims[0].keep_levels + 1 == info.segment_bytes.size());
      FUZZ_CHECK(victims[0].bytes == info.segment_bytes.back());
      info.segment_bytes.pop_back();
      if (info.segment_bytes.empty()) {
        known_.erase(id);
      } else if (input_.Below(8) == 0) {
        // It could not be removed, and is given back.
        info.segment_bytes.push_back(victims[0].bytes);
        index_.Put(ids_[id], info);
      }
      ++taken;
    }
  }

  void Check() {
    uint64_t bytes = 0;
    for (const auto& [id, chunk] : known_) {
      FUZZ_CHECK(index_.value(ids_[id]).has_value());
      const auto usage = index_.usage(ids_[id]);
      FUZZ_CHECK(usage.has_value() && usage->uses >= 1 && usage->uses <= 64);
      FUZZ_CHECK(usage->clock <= index_.clock());
      for (const uint64_t segment : chunk.info.segment_bytes) bytes += segment;
    }
    FUZZ_CHECK(index_.chunks() == known_.size());
    FUZZ_CHECK(index_.payload_bytes() == bytes);
  }

  Operations input_;
  std::array<ChunkId, kIds> ids_;
  EvictionIndex index_;
  std::map<uint64_t, Known> known_;
  std::set<uint64_t> held_;
};

}  // namespace

bool ReplayedEnough() { return taken > 1000; }

}  // namespace kvstream

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvstream::Fuzzer(data, size).Run();
  return 0;
}

// A ChunkStore against a model: what is acknowledged is there, whole and byte for byte, or was
// removed by a rule that the model knows. The first byte of an input chooses the driver and whether
// it is bounded, the others are operations.
#include <rocksdb/env.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"
#include "storage/chunk_store.h"
#include "storage/conformance/test_chunks.h"
#include "storage/fuzz/operations.h"
#include "storage/memory/memory_chunk_store.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/store_audit.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {

// Few, for the sanitizers' sake; KVSTREAM_TEST_ROUNDS makes more.
const int kReplayedInputs = 48;
const size_t kReplayedBytes = 700;

namespace {

constexpr uint64_t kIds = 24;
constexpr uint64_t kMemoryBytes = 30000;
constexpr size_t kNoiseBytes = size_t{4} << 20;
uint64_t stored = 0, evicted = 0, restored = 0, expired = 0, reopened = 0;

const std::string& Noise() {
  static const auto* const noise = new std::string(TestBytes(7, kNoiseBytes));
  return *noise;
}

// What was put under an id, and how much of it the store must have at most.
struct Known {
  uint64_t variant = 0;
  ChunkInfo info;  // as put, but for `expires`
  std::vector<absl::string_view> segments;
  size_t levels = 0;
};

class Fuzzer {
 public:
  Fuzzer(const uint8_t* data, size_t size) : input_(data, size) {
    const uint64_t kind = input_.Byte();
    rocksdb_ = kind % 2 == 0;
    // A RocksDB that is so full that it evicts takes a while.
    bounded_ = rocksdb_ ? kind % 16 == 0 : kind % 4 == 1;
    for (uint64_t i = 0; i < kIds; ++i) ids_.push_back(TestId(i));
    if (rocksdb_) {
      env_.reset(rocksdb::NewMemEnv(rocksdb::Env::Default()));
      options_.env = env_.get();
      options_.data_dir = dir_.path();
      options_.block_cache_bytes = 8 << 20;
      options_.write_buffer_bytes = 1 << 20;
      options_.max_log_bytes = 2 << 20;
      options_.room_timeout = absl::Seconds(5);
      options_.usage_interval = absl::Milliseconds(5);
      options_.now = [this] { return now_; };
      if (bounded_) options_.capacity_bytes = RocksDbChunkStoreOptions::kCapacityBytesMin;
    }
    Open();
  }

  void Run() {
    while (!input_.done()) {
      Step();
      CheckStats();
    }
    for (uint64_t id = 0; id < kIds; ++id) Observe(id);
    CheckList();
    if (!rocksdb_) return;
    Close();
    const auto audit = AuditStore(options_);
    FUZZ_CHECK(audit.ok());
    if (!bounded_) FUZZ_CHECK(audit->size() == known_.size());
    for (const ChunkId& id : *audit) FUZZ_CHECK(known_.count(NumberOf(id)) == 1);
  }

 private:
  void Open() {
    if (rocksdb_) {
      auto opened = RocksDbChunkStore::Create(options_);
      FUZZ_CHECK(opened.ok());
      store_ = *std::move(opened);
      return;
    }
    MemoryChunkStoreOptions options;
    options.now = [this] { return now_; };
    options.evict = bounded_;
    if (bounded_) options.max_bytes = kMemoryBytes;
    store_ = *MemoryChunkStore::Create(options);
  }
  void Close() {
    pinned_bytes_.clear();
    holds_.clear();
    store_.reset();
  }

  uint64_t NumberOf(const ChunkId& id) const {
    const auto found = std::find(ids_.begin(), ids_.end(), id);
    FUZZ_CHECK(found != ids_.end());
    return static_cast<uint64_t>(found - ids_.begin());
  }
  bool Kept(uint64_t id) const { return holds_.count(id) > 0 || pins_.count(id) > 0; }

  void Step() {
    const uint64_t id = input_.Below(kIds);
    switch (input_.Below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        return Put(id);
      case 5:
        return Delete(id);
      case 6:
        return Trim(id);
      case 7:
        if (holds_.erase(id) == 0) {
          ChunkHold hold = store_->Hold({ids_[id]});
          Observe(id);  // what went before
          holds_[id] = std::move(hold);
        }
        return;
      case 8:
        store_->Touch({ids_[id], ids_[input_.Below(kIds)]});
        return;
      case 9:
        return Pin(id);
      case 10:
        return Expire();
      case 11:
        return Read(id);
      case 12:
        return Prefix();
      case 13:
        return CheckList();
      case 14:
        // Seldom: it costs most.
        if (!rocksdb_ || input_.Below(4) != 0) return;
        Close();
        Open();
        ++reopened;
        return;
      default:
        return Observe(id);
    }
  }

  Known Make(uint64_t id) {
    Known made;
    made.variant = input_.Below(4) == 0 ? 1 : 0;
    if (id % 4 != 0) made.info.parent = ids_[id - 1];
    made.info.first_token = (id % 4) * 256;
    made.info.tokens = 256;
    made.info.model = "model";
    made.info.created = absl::FromUnixSeconds(1700000000);
    if (input_.Below(3) == 0) {
      made.info.expires = now_ + absl::Seconds(static_cast<int64_t>(input_.Below(8)));
    }
    // Sizes follow from id and variant, so that a Put may restore levels.
    const uint64_t levels = 1 + (id * 7 + made.variant) % 4;
    const bool large = rocksdb_ && (bounded_ || id % 5 == 0);
    for (uint64_t level = 0; level < levels; ++level) {
      const size_t bytes = (id * 613 + made.variant * 97 + level * 1237) % 3000 *
                           (large ? (bounded_ ? 200 : 100) : 1);
      const size_t at = (id * 4001 + made.variant * 100003 + level * 30011) % (kNoiseBytes - bytes);
      made.segments.push_back(absl::string_view(Noise()).substr(at, bytes));
      made.info.segment_bytes.push_back(bytes);
    }
    made.levels = levels;
    return made;
  }

  void Put(uint64_t id) {
    const Known made = Make(id);
    // Held, so that what is observed is what the Put meets.
    const ChunkHold hold = store_->Hold({ids_[id]});
    Observe(id);
    const auto known = known_.find(id);
    const auto put = store_->Put(ids_[id], made.info, made.segments);
    if (!put.ok()) {
      FUZZ_CHECK(bounded_ && absl::IsResourceExhausted(put.status()));
      return;
    }
    if (known == known_.end()) {
      FUZZ_CHECK(*put);
      known_[id] = made;
      ++stored;
      return;
    }
    Known& before = known->second;
    // The first levels of both are there, so the same variant or the same bytes.
    bool restores = before.levels < before.info.segment_bytes.size() &&
                    made.info.segment_bytes.size() > before.levels &&
                    made.info.segment_bytes.size() <= before.info.segment_bytes.size();
    for (size_t level = 0; restores && level < before.levels; ++level) {
      restores = made.segments[level] == before.segments[level];
    }
    FUZZ_CHECK(*put == restores);
    before.info.expires = std::max(before.info.expires, made.info.expires);
    if (!restores) return;
    ++restored;
    const size_t full = before.info.segment_bytes.size();
    before.segments = made.segments;
    before.segments.resize(full);
    before.info.segment_bytes = made.info.segment_bytes;
    before.info.segment_bytes.resize(full);
    before.levels = made.levels;
  }

  void Delete(uint64_t id) {
    const auto deleted = store_->Delete({ids_[id]});
    FUZZ_CHECK(deleted.ok());
    const size_t expected = known_.count(id) > 0 && pins_.count(id) == 0 ? 1 : 0;
    FUZZ_CHECK(*deleted == expected || (bounded_ && *deleted < expected));
    if (expected > 0) known_.erase(id);
  }

  void Trim(uint64_t id) {
    const uint32_t keep = static_cast<uint32_t>(1 + input_.Below(4));
    const auto trimmed = store_->Trim({ids_[id]}, keep);
    FUZZ_CHECK(trimmed.ok());
    const auto known = known_.find(id);
    const size_t expected =
        known != known_.end() && !Kept(id) && known->second.levels > keep ? 1 : 0;
    FUZZ_CHECK(*trimmed == expected || (bounded_ && *trimmed < expected));
    if (expected > 0) known->second.levels = keep;
  }

  void Pin(uint64_t id) {
    if (pins_.count(id) > 0) {
      FUZZ_CHECK(store_->Unpin({ids_[id]}, std::string("owner")).value_or(9) == 1);
      pins_.erase(id);
      return;
    }
    const ChunkHold hold = store_->Hold({ids_[id]});
    Observe(id);
    const auto pinned = store_->Pin({ids_[id]}, "owner", now_ + absl::Hours(1000));
    if (!pinned.ok()) {
      FUZZ_CHECK(bounded_ && absl::IsResourceExhausted(pinned.status()));
      return;
    }
    FUZZ_CHECK(*pinned == known_.count(id));
    if (*pinned > 0) pins_.insert(id);
  }

  void Expire() {
    now_ += absl::Seconds(static_cast<int64_t>(input_.Below(4)));
    const auto gone = store_->Expire(now_, 100);
    // A disk that is behind with writes; then some may be gone.
    FUZZ_CHECK(gone.ok() || (rocksdb_ && absl::IsUnavailable(gone.status())));
    size_t expected = 0;
    for (auto it = known_.begin(); it != known_.end();) {
      bool due = it->second.info.expires <= now_ && !Kept(it->first);
      if (due && !gone.ok()) due = !store_->GetInfos({ids_[it->first]})->front().has_value();
      expected += due;
      it = due ? known_.erase(it) : std::next(it);
    }
    if (!gone.ok()) return;
    FUZZ_CHECK(*gone == expected || (bounded_ && *gone < expected));
    expired += *gone;
  }

  // Keeps the pinned bytes for later, whatever happens to the chunk.
  void Read(uint64_t id) {
    const auto known = known_.find(id);
    if (known == known_.end()) return;
    const uint32_t level = static_cast<uint32_t>(input_.Below(known->second.levels));
    auto bytes = store_->ReadSegment(ids_[id], level);
    if (!bytes.ok()) {
      FUZZ_CHECK(bounded_ && !Kept(id) && absl::IsNotFound(bytes.status()));
      return;
    }
    pinned_bytes_.emplace_back(*std::move(bytes), known->second.segments[level]);
    if (pinned_bytes_.size() > 8) pinned_bytes_.erase(pinned_bytes_.begin());
    for (const auto& [pin, expected] : pinned_bytes_) FUZZ_CHECK(pin.bytes() == expected);
  }

  void Prefix() {
    std::vector<ChunkId> chain;
    for (uint64_t n = input_.Below(6); n > 0; --n) chain.push_back(ids_[input_.Below(kIds)]);
    size_t expected = 0;
    while (expected < chain.size() && known_.count(NumberOf(chain[expected])) > 0) ++expected;
    const auto prefix = store_->LongestPrefix(chain);
    FUZZ_CHECK(prefix.ok());
    FUZZ_CHECK(*prefix == expected || (bounded_ && *prefix < expected));
  }

  void CheckList() {
    const auto listed = store_->List(absl::nullopt, kIds + 1);
    FUZZ_CHECK(listed.ok());
    FUZZ_CHECK(bounded_ || listed->size() == known_.size());
    for (size_t i = 0; i < listed->size(); ++i) {
      FUZZ_CHECK(i == 0 || (*listed)[i - 1].first < (*listed)[i].first);
      FUZZ_CHECK(known_.count(NumberOf((*listed)[i].first)) == 1);
    }
  }

  // Everything that the store tells of one chunk, against the model; learns what was evicted.
  void Observe(uint64_t id) {
    const ChunkHold hold = store_->Hold({ids_[id]});
    const auto infos = store_->GetInfos({ids_[id]});
    FUZZ_CHECK(infos.ok());
    const auto known = known_.find(id);
    if (!infos->front().has_value()) {
      if (known == known_.end()) return;
      FUZZ_CHECK(bounded_ && !Kept(id));
      known_.erase(known);
      ++evicted;
      return;
    }
    FUZZ_CHECK(known != known_.end());
    Known& expected = known->second;
    const ChunkInfo& info = *infos->front();
    const size_t levels = info.segment_bytes.size();
    FUZZ_CHECK(levels <= expected.levels);
    if (levels < expected.levels) {
      FUZZ_CHECK(bounded_ && !Kept(id));
      expected.levels = levels;
      ++evicted;
    }
    ChunkInfo told = expected.info;
    TrimInfo(&told, static_cast<uint32_t>(levels));
    FUZZ_CHECK(SameInfo(info, told));
    for (uint32_t level = 0; level < levels; ++level) {
      const auto segment = store_->ReadSegment(ids_[id], level);
      FUZZ_CHECK(segment.ok() && segment->bytes() == expected.segments[level]);
    }
    FUZZ_CHECK(
        absl::IsNotFound(store_->ReadSegment(ids_[id], static_cast<uint32_t>(levels)).status()));
  }

  void CheckStats() {
    const auto stats = store_->Stats();
    FUZZ_CHECK(stats.ok());
    if (stats->capacity_bytes > 0) {
      FUZZ_CHECK((rocksdb_ ? stats->disk_bytes : stats->payload_bytes) <= stats->capacity_bytes);
    }
    FUZZ_CHECK(stats->pins == pins_.size());
    if (bounded_) return;
    uint64_t bytes = 0;
    for (const auto& [id, chunk] : known_) {
      for (size_t level = 0; level < chunk.levels; ++level) bytes += chunk.segments[level].size();
    }
    FUZZ_CHECK(stats->chunks == known_.size());
    FUZZ_CHECK(stats->payload_bytes == bytes);
  }

  Operations input_;
  bool rocksdb_ = false, bounded_ = false;
  TempDir dir_;
  std::unique_ptr<rocksdb::Env> env_;
  absl::Time now_ = absl::FromUnixSeconds(1800000000);
  RocksDbChunkStoreOptions options_;
  std::vector<ChunkId> ids_;
  std::map<uint64_t, Known> known_;
  std::set<uint64_t> pins_;
  std::unique_ptr<ChunkStore> store_;
  // Given back before the store goes.
  std::vector<std::pair<PinnedBytes, absl::string_view>> pinned_bytes_;
  std::map<uint64_t, ChunkHold> holds_;
};

}  // namespace

bool ReplayedEnough() {
  std::fprintf(stderr, "%d stored, %d evicted, %d restored, %d expired, %d reopened\n",
               static_cast<int>(stored), static_cast<int>(evicted), static_cast<int>(restored),
               static_cast<int>(expired), static_cast<int>(reopened));
  return stored > 150 && evicted > 20 && restored > 5 && expired > 15 && reopened > 5;
}

}  // namespace kvstream

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvstream::Fuzzer(data, size).Run();
  return 0;
}

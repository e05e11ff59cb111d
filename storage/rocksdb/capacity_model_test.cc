// The rules by which a store stays below its capacity (CapacityPlan::Limit, PickCompaction) against
// a model of RocksDB, without files, threads or time: random sequences of all that can happen, in
// any order that RocksDB allows. At every step the tables stay below their bound, and a Put that
// waits is admitted in the end.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <iostream>
#include <iterator>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/types/optional.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/capacity_plan.h"
#include "storage/rocksdb/compaction_pick.h"

namespace kvstream {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr size_t kLevels = 4;  // 0, the base, one between and the last
constexpr size_t kBuffers = 4;
constexpr size_t kLevel0Compact = 4;
constexpr size_t kLevel0Stop = 14;
constexpr uint64_t kMultiplier = 10;  // of the sizes of levels
constexpr uint64_t kEntryBytes = 40;  // key, lengths and index of an entry
constexpr uint64_t kPiece = 64 << 10;

struct Entry {
  uint64_t sequence = 0;
  uint64_t bytes = 0;
  bool deletion = false;
};
// The newest entry of a key.
using Entries = std::map<uint32_t, Entry>;

uint64_t BytesOf(const Entries& entries) {
  uint64_t bytes = 0;
  for (const auto& [key, entry] : entries) bytes += entry.bytes + kEntryBytes;
  return bytes;
}

std::string KeyText(uint32_t key) {
  std::string text(4, 0);
  for (int byte = 0; byte < 4; ++byte) text[byte] = static_cast<char>(key >> (24 - 8 * byte));
  return text;
}

void Merge(const Entries& from, Entries* into) {
  for (const auto& [key, entry] : from) {
    Entry& newest = (*into)[key];
    if (entry.sequence >= newest.sequence) newest = entry;
  }
}

struct Table {
  Entries entries;
  uint64_t bytes = 0;
  uint64_t deletions = 0;
  bool busy = false;
};

// A compaction or flush that is running: what it will have written, and how far it is.
struct Job {
  bool running = false;
  std::vector<std::pair<size_t, uint64_t>> input;  // level and number of tables
  uint64_t input_bytes = 0;
  size_t output_level = 0;
  std::deque<Entries> output;  // tables that are not finished
  std::vector<Entries> finished;
  uint64_t finished_bytes = 0;
  uint64_t partial_bytes = 0;
};

class Model {
 public:
  // How often what happens, of those things that can.
  struct Weights {
    int put, write, flush, begin, go_on, own, keep;
  };

  Model(uint64_t capacity, uint64_t entry_bytes_max, const Weights& weights, uint64_t seed)
      : random_(seed), weights_(weights), entry_bytes_max_(entry_bytes_max), levels_(kLevels) {
    RocksDbChunkStoreOptions options;
    options.capacity_bytes = capacity;
    plan_ = CapacityPlan::Of(options);
    buffers_.emplace_back();
  }

  const CapacityPlan& plan() const { return plan_; }
  uint64_t admitted() const { return admitted_; }
  uint64_t waits() const { return waits_; }
  uint64_t evicted() const { return evicted_; }
  // What compactions have read.
  uint64_t compacted_bytes() const { return compacted_; }

  // One thing happens. False if nothing can.
  bool Step() {
    const std::pair<int, bool (Model::*)()> all[] = {
        {weights_.put, &Model::Put},           {weights_.write, &Model::WritePending},
        {weights_.flush, &Model::Flush},       {weights_.begin, &Model::BeginOfRocksDb},
        {weights_.go_on, &Model::GoOnRocksDb}, {weights_.own, &Model::KeeperCompacts},
        {weights_.keep, &Model::KeeperEvicts}};
    std::vector<std::pair<int, bool (Model::*)()>> left(std::begin(all), std::end(all));
    while (!left.empty()) {
      std::vector<double> odds;
      for (const auto& [weight, step] : left) odds.push_back(weight);
      const size_t at = std::discrete_distribution<size_t>(odds.begin(), odds.end())(random_);
      if ((this->*left[at].second)()) return true;
      left.erase(left.begin() + static_cast<std::ptrdiff_t>(at));
    }
    return false;
  }

  uint64_t TableBytes() const {
    uint64_t bytes = flush_.partial_bytes + own_.finished_bytes + own_.partial_bytes +
                     auto_.finished_bytes + auto_.partial_bytes;
    for (size_t level = 0; level < kLevels; ++level) bytes += LevelBytes(level);
    return bytes;
  }

  // A millisecond: a running flush or compaction writes `job_bytes`, all together at most
  // `all_bytes`; whatever can begin begins. Puts are for the caller.
  void Tick(uint64_t job_bytes, uint64_t all_bytes) {
    const Job* const jobs[] = {&auto_, &own_, &flush_};
    const auto running = std::count_if(std::begin(jobs), std::end(jobs),
                                       [](const Job* job) { return job->running; });
    const uint64_t share =
        std::min(job_bytes, all_bytes / std::max<uint64_t>(1, static_cast<uint64_t>(running)));
    ++now_ms_;
    if (auto_.running) Advance(&auto_, share);
    if (own_.running) Advance(&own_, share);
    if (flush_.running) {
      AdvanceFlush(share);
    } else {
      Flush();
    }
    // Where there is no room RocksDB waits a second, the keeper 10 ms.
    refused_ = false;
    if (!auto_.running && now_ms_ >= auto_pause_ && !BeginOfRocksDb() && refused_) {
      auto_pause_ = now_ms_ + 1000;
    }
    if (!own_.running && now_ms_ >= own_pause_ && !KeeperCompacts()) own_pause_ = now_ms_ + 10;
    KeeperEvicts();
    while (WritePending()) {
    }
  }
  // False if it has to wait.
  bool TryPut(uint64_t bytes) {
    next_put_ = bytes;
    return Put();
  }

  std::string Text() const {
    std::string text = absl::StrFormat(
        "tables %d of %d, buffered %d, pending %d, log %d, upper %d, payload %d of %d; running %d "
        "and %d; levels",
        TableBytes(), plan_.tables_max, Buffered(), pending_bytes_, log_bytes_, Upper(), payload_,
        plan_.payload_high, auto_.input_bytes, own_.input_bytes);
    for (size_t level = 0; level < kLevels; ++level) {
      text += absl::StrFormat(" %d (%d)", LevelBytes(level), levels_[level].size());
    }
    return text;
  }

 private:
  uint64_t Random(uint64_t below) { return random_() % below; }

  uint64_t Buffered() const {
    return std::accumulate(buffer_bytes_.begin(), buffer_bytes_.end(), uint64_t{0});
  }
  uint64_t LevelBytes(size_t level) const { return level_bytes_[level]; }
  uint64_t Upper() const {
    uint64_t bytes = LevelBytes(0);
    for (size_t level = 1; level + 1 < kLevels; ++level) {
      if (!levels_[level].empty()) return bytes + LevelBytes(level);
    }
    return bytes;
  }
  CapacityUse Use() const {
    CapacityUse use;
    use.tables = TableBytes();
    use.logs = log_bytes_;
    use.buffered = Buffered();
    use.pending = pending_bytes_;
    use.running_input = auto_.input_bytes + own_.input_bytes;
    use.running_output = auto_.finished_bytes + own_.finished_bytes;
    use.upper = upper_seen_ + flushed_since_;
    return use;
  }
  void LookAtLevels() {
    upper_seen_ = Upper();
    flushed_since_ = 0;
  }
  // As SstFileManager decides.
  bool RoomFor(uint64_t input_bytes) const {
    uint64_t finished = own_.finished_bytes + auto_.finished_bytes;
    for (size_t level = 0; level < kLevels; ++level) finished += LevelBytes(level);
    return finished + own_.input_bytes + auto_.input_bytes + input_bytes + plan_.buffers_max <=
           plan_.tables_max;
  }

  bool Put() {
    if (next_put_ == 0) {
      next_put_ = 1 + (Random(8) == 0 ? Random(plan_.put_max)
                                      : Random(std::min(entry_bytes_max_, plan_.put_max)));
    }
    if (plan_.Limit(Use(), next_put_) != CapacityLimit::kNone) {
      waits_ += waiting_ ? 0 : 1;
      waiting_ = true;
      return false;
    }
    waiting_ = false;
    pending_.push_back(next_put_);
    pending_bytes_ += next_put_;
    next_put_ = 0;
    ++admitted_;
    return true;
  }

  // The log and the buffer; RocksDB stops writes when buffers or tables of level 0 are too many.
  bool Stopped() const { return buffers_.size() > kBuffers || levels_[0].size() >= kLevel0Stop; }
  void Write(uint32_t key, const Entry& entry) {
    const auto [place, added] = buffers_.back().insert({key, entry});
    buffer_bytes_.back() += entry.bytes + kEntryBytes;
    if (!added) buffer_bytes_.back() -= std::exchange(place->second, entry).bytes + kEntryBytes;
    log_bytes_ += entry.bytes + kEntryBytes;
    log_of_buffer_.back() += entry.bytes + kEntryBytes;
  }
  void SwitchBuffer() {
    buffers_.emplace_back();
    buffer_bytes_.push_back(0);
    log_of_buffer_.push_back(0);
  }
  bool WritePending() {
    if (pending_.empty() || Stopped()) return false;
    const size_t at = Random(pending_.size());
    const uint64_t bytes = pending_[at];
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(at));
    for (uint64_t left = bytes; left > 0;) {
      const uint64_t part = std::min(left, 1 + Random(entry_bytes_max_));
      left -= part;
      const auto key = static_cast<uint32_t>(random_());
      if (part <= kEntryBytes || live_.count(key) > 0) continue;
      live_[key] = part - kEntryBytes;
      payload_ += part - kEntryBytes;
      Write(key, {++sequence_, part - kEntryBytes, false});
    }
    pending_bytes_ -= bytes;
    if (buffer_bytes_.back() >= plan_.write_buffer_bytes || log_bytes_ > plan_.flush_log_bytes) {
      SwitchBuffer();
    }
    return true;
  }

  // Begins to write the oldest full buffer, or goes on.
  bool Flush() {
    if (!flush_.running) {
      if (buffers_.size() == 1) {
        const bool asked = waiting_ && (log_bytes_ + plan_.put_max > plan_.logs_max ||
                                        Buffered() + plan_.put_max > plan_.buffers_max);
        if (!asked || buffers_.back().empty()) return false;
        SwitchBuffer();
      }
      flush_.running = true;
      return true;
    }
    AdvanceFlush(kPiece);
    return true;
  }
  void AdvanceFlush(uint64_t more) {
    const uint64_t bytes = buffer_bytes_.front();
    flush_.partial_bytes = std::min(flush_.partial_bytes + more, bytes);
    if (flush_.partial_bytes < bytes) return;
    if (bytes > 0) Insert(0, std::move(buffers_.front()));
    flushed_since_ += bytes;
    flush_ = Job();
    buffers_.pop_front();
    buffer_bytes_.pop_front();
    log_bytes_ -= log_of_buffer_.front();
    log_of_buffer_.pop_front();
  }

  // Adds the tables of a level that overlap what is in `job`; false if one is busy.
  bool AddOverlapping(size_t level, uint32_t smallest, uint32_t largest, Job* job) const {
    for (const auto& [number, table] : levels_[level]) {
      if (table.entries.begin()->first > largest || table.entries.rbegin()->first < smallest) {
        continue;
      }
      if (table.busy) return false;
      job->input.emplace_back(level, number);
      job->input_bytes += table.bytes;
    }
    return true;
  }

  // Cut as RocksDB cuts: at the size of tables, and before a table overlaps too much of the level
  // below; and as TableCutter does.
  void Start(Job* job, uint64_t entries_per_table) {
    Entries all;
    for (const auto& [level, number] : job->input) {
      Table& table = levels_[level].at(number);
      table.busy = true;
      Merge(table.entries, &all);
    }
    const bool last = job->output_level + 1 == kLevels;
    Entries table;
    uint64_t bytes = 0;
    uint64_t below = 0;
    uint32_t previous = 0;
    for (const auto& [key, entry] : all) {
      if (last && entry.deletion) continue;
      if (!last) below += BytesBetween(job->output_level + 1, previous, key);
      previous = key;
      if (!table.empty() &&
          (bytes + entry.bytes > plan_.target_file_bytes || below > plan_.level_base_bytes ||
           (entries_per_table > 0 && table.size() >= entries_per_table))) {
        job->output.push_back(std::move(table));
        table.clear();
        bytes = 0;
        below = 0;
      }
      table[key] = entry;
      bytes += entry.bytes + kEntryBytes;
    }
    if (!table.empty()) job->output.push_back(std::move(table));
  }
  uint64_t BytesBetween(size_t level, uint32_t from, uint32_t to) const {
    uint64_t bytes = 0;
    for (const auto& [number, table] : levels_[level]) {
      const uint32_t end = table.entries.rbegin()->first;
      if (end >= from && end < to) bytes += table.bytes;
    }
    return bytes;
  }
  void Advance(Job* job, uint64_t more) {
    job->partial_bytes += more;
    while (!job->output.empty() && job->partial_bytes >= BytesOf(job->output.front())) {
      const uint64_t bytes = BytesOf(job->output.front());
      job->partial_bytes -= bytes;
      job->finished_bytes += bytes;
      job->finished.push_back(std::move(job->output.front()));
      job->output.pop_front();
    }
    if (job->output.empty()) End(job);
  }
  // Its tables take the place of what it read.
  void End(Job* job) {
    for (const auto& [level, number] : job->input) {
      level_bytes_[level] -= levels_[level].at(number).bytes;
      levels_[level].erase(number);
    }
    for (Entries& entries : job->finished) Insert(job->output_level, std::move(entries));
    *job = Job();
    LookAtLevels();
  }
  void Insert(size_t level, Entries entries) {
    Table table;
    table.bytes = BytesOf(entries);
    for (const auto& [key, entry] : entries) table.deletions += entry.deletion ? 1 : 0;
    table.entries = std::move(entries);
    level_bytes_[level] += table.bytes;
    levels_[level][next_table_++] = std::move(table);
  }
  // RocksDB's own choice: of the level that is the most too large, the table that overlaps least of
  // the next one for its size; level 0 as a whole.
  bool BeginOfRocksDb() {
    if (auto_.running) return false;
    const uint64_t next_to_last = LevelBytes(kLevels - 1) / kMultiplier;
    const double targets[] = {0,
                              static_cast<double>(std::min(plan_.level_base_bytes,
                                                           std::max(next_to_last / kMultiplier,
                                                                    plan_.level_base_bytes / 10))),
                              static_cast<double>(std::max(next_to_last, plan_.level_base_bytes))};
    std::vector<std::pair<double, size_t>> scores = {
        {std::max(static_cast<double>(levels_[0].size()) / kLevel0Compact,
                  double(LevelBytes(0)) / plan_.level_base_bytes),
         0}};
    for (size_t level = 1; level + 1 < kLevels; ++level) {
      scores.emplace_back(static_cast<double>(LevelBytes(level)) / targets[level], level);
    }
    std::sort(scores.rbegin(), scores.rend());
    for (const auto& [score, level] : scores) {
      if (score < 1) return false;
      Job best;
      double best_ratio = 1e300;
      if (level == 0) {
        if (levels_[0].size() < kLevel0Compact) continue;
        uint32_t smallest = UINT32_MAX, largest = 0;
        bool busy = false;
        Job job;
        for (const auto& [number, table] : levels_[0]) {
          busy = busy || table.busy;
          smallest = std::min(smallest, table.entries.begin()->first);
          largest = std::max(largest, table.entries.rbegin()->first);
          job.input.emplace_back(0, number);
          job.input_bytes += table.bytes;
        }
        job.output_level = 1;
        if (busy || !AddOverlapping(1, smallest, largest, &job)) continue;
        best = job;
      } else {
        for (const auto& [number, table] : levels_[level]) {
          if (table.busy) continue;
          Job job;
          job.input.emplace_back(level, number);
          job.input_bytes = table.bytes;
          job.output_level = level + 1;
          if (!AddOverlapping(level + 1, table.entries.begin()->first,
                              table.entries.rbegin()->first, &job)) {
            continue;
          }
          const double ratio =
              static_cast<double>(job.input_bytes - table.bytes) / static_cast<double>(table.bytes);
          if (ratio >= best_ratio) continue;
          best_ratio = ratio;
          best = job;
        }
      }
      if (best.input.empty()) continue;
      return BeginIfRoom(best, &auto_, 0);
    }
    return false;
  }
  bool BeginIfRoom(const Job& job, Job* running, uint64_t entries_per_table) {
    refused_ = !RoomFor(job.input_bytes);
    if (refused_) return false;
    *running = job;
    running->running = true;
    compacted_ += job.input_bytes;
    Start(running, entries_per_table);
    return true;
  }
  bool GoOnRocksDb() {
    if (!auto_.running) return false;
    Advance(&auto_, kPiece * (1 + Random(8)));
    return true;
  }

  bool KeeperCompacts() {
    if (own_.running) {
      Advance(&own_, kPiece * (1 + Random(8)));
      return true;
    }
    LookAtLevels();
    if (!waiting_ && TableBytes() + Buffered() <= plan_.tables_high) return false;
    const absl::optional<CompactionPick> pick = PickCompaction(MetaData(), plan_.pick_max);
    if (!pick.has_value()) {
      // What was deleted since is in the buffers.
      if (buffers_.size() > 1 || buffers_.back().empty()) return false;
      SwitchBuffer();
      return true;
    }
    Job job;
    job.output_level = static_cast<size_t>(pick->output_level);
    for (const std::string& name : pick->files) {
      const uint64_t number = std::stoull(name);
      for (size_t level = 0; level < kLevels; ++level) {
        if (levels_[level].count(number) > 0) job.input.emplace_back(level, number);
      }
    }
    job.input_bytes = pick->bytes;
    return BeginIfRoom(job, &own_, pick->entries_per_table);
  }
  rocksdb::ColumnFamilyMetaData MetaData() const {
    rocksdb::ColumnFamilyMetaData all;
    for (size_t level = 0; level < kLevels; ++level) {
      std::vector<rocksdb::SstFileMetaData> files;
      for (const auto& [number, table] : levels_[level]) {
        rocksdb::SstFileMetaData file;
        file.relative_filename = std::to_string(number);
        file.size = table.bytes;
        file.smallestkey = KeyText(table.entries.begin()->first);
        file.largestkey = KeyText(table.entries.rbegin()->first);
        file.num_entries = table.entries.size();
        file.num_deletions = table.deletions;
        file.being_compacted = table.busy;
        files.push_back(std::move(file));
      }
      std::sort(files.begin(), files.end(),
                [](const auto& a, const auto& b) { return a.smallestkey < b.smallestkey; });
      all.levels.emplace_back(static_cast<int>(level), LevelBytes(level), std::move(files));
    }
    return all;
  }

  // What goes is not admitted: it has to go.
  bool KeeperEvicts() {
    if (payload_ <= plan_.payload_high || Stopped()) return false;
    for (int i = 0; i < 64 && payload_ > plan_.payload_low; ++i) {
      auto victim = live_.lower_bound(static_cast<uint32_t>(random_()));
      if (victim == live_.end()) victim = live_.begin();
      payload_ -= victim->second;
      Write(victim->first, {++sequence_, 0, true});
      live_.erase(victim);
      ++evicted_;
    }
    return true;
  }

  CapacityPlan plan_;
  std::mt19937_64 random_;
  const Weights weights_;
  const uint64_t entry_bytes_max_;

  std::map<uint32_t, uint64_t> live_;  // segments that are stored, with their bytes
  uint64_t payload_ = 0;
  uint64_t sequence_ = 0;

  uint64_t next_put_ = 0;
  bool waiting_ = false;
  std::vector<uint64_t> pending_;
  uint64_t pending_bytes_ = 0;

  std::deque<Entries> buffers_;  // the last one is written to
  std::deque<uint64_t> buffer_bytes_{0};
  std::deque<uint64_t> log_of_buffer_{0};
  uint64_t log_bytes_ = 0;

  std::vector<std::map<uint64_t, Table>> levels_;
  std::array<uint64_t, kLevels> level_bytes_ = {};
  uint64_t next_table_ = 0;
  Job flush_, auto_, own_;
  uint64_t upper_seen_ = 0;
  uint64_t flushed_since_ = 0;

  // Of Tick().
  uint64_t now_ms_ = 0;
  uint64_t auto_pause_ = 0;
  uint64_t own_pause_ = 0;
  bool refused_ = false;

  uint64_t compacted_ = 0;
  uint64_t admitted_ = 0;
  uint64_t waits_ = 0;
  uint64_t evicted_ = 0;
};

// Steps that a Put may wait in a row. A compaction of all of a small store takes some hundreds.
constexpr uint64_t kWaitStepsMax = 200000;

void RunModel(uint64_t capacity, uint64_t entry_bytes_max, const Model::Weights& weights,
              uint64_t seed, uint64_t steps) {
  Model model(capacity, entry_bytes_max, weights, seed);
  uint64_t admitted = 0;
  uint64_t since = 0;
  uint64_t peak = 0;
  for (uint64_t step = 0; step < steps; ++step) {
    ASSERT_TRUE(model.Step()) << "nothing can happen, at step " << step << ": " << model.Text();
    peak = std::max(peak, model.TableBytes());
    ASSERT_LE(model.TableBytes(), model.plan().tables_max)
        << "at step " << step << ": " << model.Text();
    since = model.admitted() == admitted ? since + 1 : 0;
    admitted = model.admitted();
    ASSERT_LT(since, kWaitStepsMax) << "no Put is admitted any more: " << model.Text();
  }
  EXPECT_GT(model.evicted(), 0);
  EXPECT_GT(model.waits(), 0);
  std::cout << model.admitted() << " puts, " << model.waits() << " waits, " << model.evicted()
            << " evicted, peak " << peak << " of " << model.plan().tables_max << "; "
            << model.Text() << "\n";
}

TEST(CapacityModelTest, WhateverTheOrder) {
  const uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  for (int round = 0; round < TestRounds(8); ++round) {
    SCOPED_TRACE(round);
    const auto weight = [&] { return 1 << (random() % 8); };
    const Model::Weights weights = {weight(), weight(), weight(), weight(),
                                    weight(), weight(), weight()};
    const uint64_t entry_bytes_max = uint64_t{1} << (13 + random() % 8);
    ASSERT_NO_FATAL_FAILURE(RunModel(64 * kMiB, entry_bytes_max, weights, random(), 20000));
  }
}

// Time in milliseconds: compactions write 120 MB/s each, and 240 together with flushes. Some 26
// MB/s of Puts are as many as fit beside them.
TEST(CapacityModelTest, NoPutWaitsAtThreeQuartersOfTheFullRate) {
  constexpr uint64_t kPutBytes = 448 << 10;
  constexpr uint64_t kFillMs = 40000, kEndMs = 120000;
  constexpr double kBytesPerMs = 20e3;
  Model model(1024 * kMiB, 160 << 10, {1, 1, 1, 1, 1, 1, 1}, /*seed=*/7);
  double due_ms = 0;
  uint64_t puts = 0, compacted_before = 0;
  std::vector<double> waits_ms;
  for (uint64_t ms = 0; ms < kEndMs; ++ms) {
    if (ms == kFillMs) compacted_before = model.compacted_bytes();
    model.Tick(120000, 240000);
    ASSERT_LE(model.TableBytes(), model.plan().tables_max) << model.Text();
    for (; due_ms <= static_cast<double>(ms); due_ms += kPutBytes / kBytesPerMs) {
      if (!model.TryPut(kPutBytes)) break;
      if (ms < kFillMs) continue;
      ++puts;
      waits_ms.push_back(static_cast<double>(ms) - due_ms);
    }
  }
  std::sort(waits_ms.begin(), waits_ms.end());
  ASSERT_GT(puts, 3000);
  EXPECT_GT(model.evicted(), 10000);
  EXPECT_LT(waits_ms[waits_ms.size() * 99 / 100], 10) << model.Text();
  std::cout << puts << " puts, the longest wait " << waits_ms.back() << " ms; compactions read "
            << static_cast<double>(model.compacted_bytes() - compacted_before) /
                   static_cast<double>(puts * kPutBytes)
            << " times what was put; " << model.Text() << "\n";
}

}  // namespace
}  // namespace kvstream

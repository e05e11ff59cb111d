#include "storage/rocksdb/log_check.h"

#include <rocksdb/slice.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "storage/rocksdb/log_mark.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

// RocksDB's log format (the same as LevelDB's): blocks of 32 KiB; in each, fragments of a header
// (masked CRC32C of type and payload, 4 bytes; payload length, 2 bytes; type, 1 byte) and payload;
// a block's last 6 bytes or fewer are filler.
constexpr size_t kBlockBytes = 32768;
constexpr size_t kHeaderBytes = 7;
enum FragmentType : uint8_t { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}

uint32_t MaskedCrc32c(absl::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = ~0u;
  for (char byte : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xff] ^ (crc >> 8);
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

// A record is a write batch, which begins with its sequence number (8 bytes) and its number of
// entries (4 bytes), each of which takes one sequence number. Then comes our mark.
uint64_t LittleEndian(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  }
  return value;
}

struct Fragment {
  uint8_t type;
  absl::string_view payload;

  bool starts_record() const { return type == kFull || type == kFirst; }
  bool ends_record() const { return type == kFull || type == kLast; }
};

// The intact fragment at the start of `rest`, if there is one.
absl::optional<Fragment> ParseFragment(absl::string_view rest) {
  if (rest.size() < kHeaderBytes) return absl::nullopt;
  const uint64_t crc = LittleEndian(rest.substr(0, 4));
  const size_t length = LittleEndian(rest.substr(4, 2));
  const auto type = static_cast<uint8_t>(rest[6]);
  if (type < kFull || type > kLast || length > rest.size() - kHeaderBytes) return absl::nullopt;
  // The type byte lies just before the payload, and the checksum covers both.
  if (MaskedCrc32c(rest.substr(6, 1 + length)) != crc) return absl::nullopt;
  return Fragment{type, rest.substr(kHeaderBytes, length)};
}

// Walks the blocks of one log after another.
class LogWalk {
 public:
  // Returns false once damage before the end is certain; then verdict() is final.
  bool Visit(absl::string_view block, const std::string& file, uint64_t block_offset) {
    size_t offset = 0;
    while (block.size() - offset >= kHeaderBytes) {
      const absl::optional<Fragment> fragment = ParseFragment(block.substr(offset));
      if (!fragment || fragment->starts_record() == in_record_) {
        // After damage no length can be trusted: looks for the beginning of a record everywhere,
        // except within fragments whose checksum vouches for their length.
        const bool look_again = in_record_;
        SetDamage(file, block_offset + offset);
        if (!look_again) offset += fragment ? kHeaderBytes + fragment->payload.size() : 1;
        continue;
      }
      if (damaged() && fragment->starts_record()) {
        const Meaning meaning = MeaningOf(*fragment);
        if (meaning == Meaning::kLoss) {
          verdict_.state = LogState::kDamagedBeforeEnd;
          return false;
        }
        if (meaning == Meaning::kNothing) {
          offset += kHeaderBytes + fragment->payload.size();
          continue;  // what belongs to it is passed over like the damage
        }
      }
      Take(*fragment);
      offset += kHeaderBytes + fragment->payload.size();
    }
    return true;
  }

  // Call after a log's last block.
  void EndLog(const std::string& file, uint64_t size) {
    if (in_record_) SetDamage(file, size);
  }

  const LogVerdict& verdict() const { return verdict_; }

 private:
  bool damaged() const { return verdict_.state != LogState::kIntact; }

  void SetDamage(const std::string& file, uint64_t offset) {
    in_record_ = false;
    if (damaged()) return;
    verdict_ = LogVerdict{LogState::kTornTail, file, offset};
  }

  // Of an intact record behind the damage.
  enum class Meaning {
    kSettled,  // an earlier recovery has cut the damage off
    kLoss,     // what is damaged had been synced
    kNothing,  // neither can be told
  };

  Meaning MeaningOf(const Fragment& first) {
    // The end of a block cut its head.
    if (first.type == kFirst && first.payload.size() < kMarkedHeadBytes) return Meaning::kNothing;
    if (first.payload.size() < kBatchHeaderBytes) return Meaning::kLoss;  // none of RocksDB's
    const uint64_t sequence = LittleEndian(first.payload.substr(0, 8));
    const uint64_t count = LittleEndian(first.payload.substr(8, 4));
    // It leaves out nothing after the last intact one: its numbers were given out again.
    if (next_sequence_.has_value() && sequence <= *next_sequence_) return Meaning::kSettled;
    // A recovery that cut off a damaged end writes an empty record.
    if (count == 0 && !next_sequence_.has_value()) return Meaning::kSettled;
    const absl::optional<LogMark> mark = DecodeLogMark(first.payload);
    // Of a version that wrote none, whose stores had synced all before this record.
    if (!mark.has_value()) return marked_ ? Meaning::kNothing : Meaning::kLoss;
    marked_ = true;
    if (sequence <= mark->settled + 1) return Meaning::kSettled;
    // What is missing ends before this record, and begins nobody knows where if nothing intact
    // precedes it.
    if (!missing_.has_value()) missing_ = next_sequence_.value_or(sequence - 1);
    return mark->synced >= std::max(*missing_, mark->settled + 1) ? Meaning::kLoss
                                                                  : Meaning::kNothing;
  }

  void Take(const Fragment& fragment) {
    if (fragment.starts_record()) {
      verdict_ = LogVerdict();
      missing_.reset();
      head_.clear();
    }
    const size_t missing = kMarkedHeadBytes - head_.size();
    head_.append(fragment.payload.data(), std::min(missing, fragment.payload.size()));
    in_record_ = !fragment.ends_record();
    if (!in_record_ && head_.size() >= kBatchHeaderBytes) {
      const absl::string_view head = head_;
      marked_ = marked_ || DecodeLogMark(head).has_value();
      next_sequence_ = LittleEndian(head.substr(0, 8)) + LittleEndian(head.substr(8, 4));
    }
  }

  bool in_record_ = false;
  std::string head_;  // first bytes of the record being read
  absl::optional<uint64_t> next_sequence_;
  bool marked_ = false;               // a record had a mark
  absl::optional<uint64_t> missing_;  // since the damage: the first number known to be missing
  LogVerdict verdict_;
};

// Numbers of the logs, oldest first.
absl::StatusOr<std::vector<std::pair<uint64_t, std::string>>> ListLogs(
    rocksdb::Env* env, const std::string& data_dir) {
  std::vector<std::string> names;
  if (const rocksdb::Status status = env->GetChildren(data_dir, &names); !status.ok()) {
    return FromRocksDb(status, absl::StrCat("listing ", data_dir));
  }
  std::vector<std::pair<uint64_t, std::string>> logs;
  for (const std::string& name : names) {
    absl::string_view stem = name;
    uint64_t number = 0;
    if (absl::ConsumeSuffix(&stem, ".log") && absl::SimpleAtoi(stem, &number)) {
      logs.emplace_back(number, name);
    }
  }
  std::sort(logs.begin(), logs.end());
  return logs;
}

}  // namespace

absl::StatusOr<LogVerdict> CheckLogs(rocksdb::Env* env, const std::string& data_dir,
                                     uint64_t first_log) {
  const auto logs = ListLogs(env, data_dir);
  if (!logs.ok()) return logs.status();
  LogWalk walk;
  std::string buffer(kBlockBytes, '\0');
  for (const auto& [number, name] : *logs) {
    if (number < first_log) continue;
    const std::string path = absl::StrCat(data_dir, "/", name);
    std::unique_ptr<rocksdb::SequentialFile> file;
    rocksdb::Status status = env->NewSequentialFile(path, &file, rocksdb::EnvOptions());
    uint64_t offset = 0;
    while (status.ok()) {
      rocksdb::Slice block;
      status = file->Read(kBlockBytes, &block, buffer.data());
      if (!status.ok() || block.empty()) break;
      if (!walk.Visit({block.data(), block.size()}, name, offset)) return walk.verdict();
      offset += block.size();
    }
    if (!status.ok()) return FromRocksDb(status, absl::StrCat("reading ", path));
    walk.EndLog(name, offset);
  }
  return walk.verdict();
}

}  // namespace kvstream

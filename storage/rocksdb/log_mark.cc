#include "storage/rocksdb/log_mark.h"

#include <rocksdb/slice.h>

#include <string>
#include <utility>

#include "absl/strings/match.h"

namespace kvstream {
namespace {

constexpr absl::string_view kMagic = "KVSM";
constexpr char kLogDataTag = 3;

void AppendLittleEndian(uint64_t value, std::string* bytes) {
  for (int i = 0; i < 8; ++i) bytes->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t ReadLittleEndian(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  }
  return value;
}

std::string Encode(const LogMark& mark) {
  std::string bytes(kMagic);
  AppendLittleEndian(mark.settled, &bytes);
  AppendLittleEndian(mark.synced, &bytes);
  return bytes;
}

}  // namespace

rocksdb::WriteBatch NewMarkedBatch(const LogMark& mark, size_t reserved_bytes) {
  rocksdb::WriteBatch batch(reserved_bytes + kMarkedHeadBytes);
  // Fails only for batches with a limit or more than 4 GiB.
  batch.PutLogData(Encode(mark)).PermitUncheckedError();
  return batch;
}

void MarkBatch(const LogMark& mark, rocksdb::WriteBatch* batch) {
  const std::string& bytes = batch->Data();
  if (DecodeLogMark(bytes).has_value()) return;
  std::string marked;
  marked.reserve(bytes.size() + 2 + kLogMarkBytes);
  marked.append(bytes, 0, kBatchHeaderBytes);
  marked.push_back(kLogDataTag);
  marked.push_back(static_cast<char>(kLogMarkBytes));
  marked.append(Encode(mark));
  marked.append(bytes, kBatchHeaderBytes, std::string::npos);
  *batch = rocksdb::WriteBatch(std::move(marked));
}

absl::optional<LogMark> DecodeLogMark(absl::string_view record) {
  if (record.size() < kMarkedHeadBytes) return absl::nullopt;
  absl::string_view entry = record.substr(kBatchHeaderBytes);
  if (entry[0] != kLogDataTag || entry[1] != static_cast<char>(kLogMarkBytes)) return absl::nullopt;
  entry.remove_prefix(2);
  if (!absl::StartsWith(entry, kMagic)) return absl::nullopt;
  entry.remove_prefix(kMagic.size());
  return LogMark{ReadLittleEndian(entry), ReadLittleEndian(entry.substr(8))};
}

uint64_t LastSequence(const rocksdb::WriteBatch& written) {
  return ReadLittleEndian(written.Data()) + static_cast<uint64_t>(written.Count()) - 1;
}

}  // namespace kvstream

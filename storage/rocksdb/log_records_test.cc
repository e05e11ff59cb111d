#include "storage/rocksdb/log_records.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace kvstream {
namespace {

// Appends a record as RocksDB writes it, but for its checksums, which nobody looks at here.
void AppendRecord(size_t bytes, std::string* log) {
  bool first = true;
  do {
    size_t left = 32768 - log->size() % 32768;
    if (left < 7) {
      log->append(left, '\0');
      left = 32768;
    }
    const size_t length = std::min(bytes, left - 7);
    const bool last = length == bytes;
    const char type = first ? (last ? 1 : 2) : (last ? 4 : 3);
    log->append("crc!");
    log->push_back(static_cast<char>(length & 0xff));
    log->push_back(static_cast<char>(length >> 8));
    log->push_back(type);
    log->append(length, 'x');
    bytes -= length;
    first = false;
  } while (bytes > 0);
}

TEST(LogRecordsTest, KnowsWhereTheLastRecordBeginsAndEndsHoweverItsBytesCome) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 50; ++trial) {
    std::string log;
    std::vector<uint64_t> ends = {0};
    for (int i = 0; i < 30; ++i) {
      // Also records that leave a block with less room than a header needs, and empty ones.
      const size_t room = 32768 - log.size() % 32768;
      const size_t sizes[] = {random() % 200, random() % 100000, 0,
                              room - std::min<size_t>(room, 7 + random() % 8)};
      AppendRecord(sizes[random() % 4], &log);
      ends.push_back(log.size());
    }
    LogRecords records;
    for (size_t begin = 0; begin < log.size();) {
      const size_t piece =
          std::min<size_t>(log.size() - begin, 1 + random() % (random() % 3 == 0 ? 50000 : 10));
      records.Append(absl::string_view(log).substr(begin, piece));
      begin += piece;
      const auto next = std::upper_bound(ends.begin(), ends.end(), begin);
      ASSERT_EQ(records.size(), begin);
      ASSERT_EQ(records.end(), *(next - 1));
      ASSERT_EQ(records.last_begin(), next - ends.begin() < 2 ? 0 : *(next - 2));
    }
    EXPECT_FALSE(records.lost());
  }
}

TEST(LogRecordsTest, SaysWhenBytesAreNoLog) {
  LogRecords records;
  std::string log;
  AppendRecord(100, &log);
  records.Append(log);
  records.Append("this is no header");
  EXPECT_TRUE(records.lost());
  EXPECT_EQ(records.end(), log.size());
  EXPECT_EQ(records.size(), log.size() + 17);
  records.Append(log);
  EXPECT_EQ(records.end(), log.size());
}

}  // namespace
}  // namespace kvstream

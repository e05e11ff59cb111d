#include "storage/rocksdb/compaction_pick.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace kvstream {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

rocksdb::SstFileMetaData Table(const std::string& name, const std::string& smallest,
                               const std::string& largest, uint64_t size, uint64_t entries,
                               uint64_t deletions) {
  rocksdb::SstFileMetaData table;
  table.relative_filename = name;
  table.smallestkey = smallest;
  table.largestkey = largest;
  table.size = size;
  table.num_entries = entries;
  table.num_deletions = deletions;
  return table;
}

// Levels 0 to 2, with one table of a MiB for each letter on the last.
rocksdb::ColumnFamilyMetaData Levels(std::vector<rocksdb::SstFileMetaData> upper) {
  std::vector<rocksdb::SstFileMetaData> last;
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    last.push_back(Table(std::string(1, letter), std::string(1, letter),
                         std::string(1, letter) + "z", kMiB, 10, 0));
  }
  rocksdb::ColumnFamilyMetaData tables;
  tables.levels.emplace_back(0, 0, std::vector<rocksdb::SstFileMetaData>());
  tables.levels.emplace_back(1, 0, std::move(upper));
  tables.levels.emplace_back(2, 0, std::move(last));
  return tables;
}

TEST(PickCompactionTest, TakesTheMostDeletionsForItsBytes) {
  const auto pick = PickCompaction(
      Levels({Table("few", "a", "b", kMiB, 10, 1), Table("many", "c", "d", kMiB, 10, 9)}), 8 * kMiB,
      kMiB);
  ASSERT_TRUE(pick.has_value());
  EXPECT_EQ(pick->files, (std::vector<std::string>{"many", "c", "d"}));
  EXPECT_EQ(pick->output_level, 2);
  EXPECT_EQ(pick->bytes, 3 * kMiB);
}

// Deletions over the whole id space lie in a table of a few KiB; it has to fall into many.
TEST(PickCompactionTest, CutsATableThatOverlapsTooMuch) {
  constexpr uint64_t kEntries = 64;
  constexpr uint64_t kEntryBytesMin = 33;  // a segment's key
  const auto pick =
      PickCompaction(Levels({Table("wide", "a", "z", 4195, kEntries, kEntries)}), 8 * kMiB, kMiB);
  ASSERT_TRUE(pick.has_value());
  EXPECT_EQ(pick->files, std::vector<std::string>{"wide"});
  EXPECT_EQ(pick->output_level, 1);
  EXPECT_GE(kEntries * kEntryBytesMin / pick->output_file_bytes, 8);
  const auto pair = PickCompaction(Levels({Table("two", "a", "z", 1200, 2, 2)}), 8 * kMiB, kMiB);
  ASSERT_TRUE(pair.has_value());
  EXPECT_LE(pair->output_file_bytes, kEntryBytesMin);
}

TEST(PickCompactionTest, HasNothingToDoWhereAllLieOnTheLastLevel) {
  EXPECT_FALSE(PickCompaction(Levels({}), 8 * kMiB, kMiB).has_value());
}

}  // namespace
}  // namespace kvstream

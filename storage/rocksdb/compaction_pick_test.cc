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
      Levels({Table("few", "a", "b", kMiB, 10, 1), Table("many", "c", "d", kMiB, 10, 9)}),
      8 * kMiB);
  ASSERT_TRUE(pick.has_value());
  EXPECT_EQ(pick->files, (std::vector<std::string>{"many", "c", "d"}));
  EXPECT_EQ(pick->output_level, 2);
  EXPECT_EQ(pick->bytes, 3 * kMiB);
}

// Deletions over the whole id space lie in a table of a few KiB; it has to fall into many.
TEST(PickCompactionTest, CutsATableThatOverlapsTooMuch) {
  const auto pick = PickCompaction(Levels({Table("wide", "a", "z", 4195, 64, 64)}), 8 * kMiB);
  ASSERT_TRUE(pick.has_value());
  EXPECT_EQ(pick->files, std::vector<std::string>{"wide"});
  EXPECT_EQ(pick->output_level, 1);
  EXPECT_EQ(pick->entries_per_table, 4);
  const auto pair = PickCompaction(Levels({Table("two", "a", "z", 1200, 2, 2)}), 8 * kMiB);
  ASSERT_TRUE(pair.has_value());
  EXPECT_EQ(pair->files, std::vector<std::string>{"two"});
  EXPECT_EQ(pair->entries_per_table, 1);
}

// A store that was larger has larger tables; what cannot be cut any more must not stop everything.
TEST(PickCompactionTest, TakesAnEntryThatOverlapsTooMuchIfNothingElseIsLeft) {
  const auto pick = PickCompaction(
      Levels({Table("more", "b", "b", 2 * kMiB, 1, 1), Table("less", "m", "m", 1200, 1, 1)}),
      kMiB / 2);
  ASSERT_TRUE(pick.has_value());
  EXPECT_EQ(pick->files, (std::vector<std::string>{"less", "m"}));
  EXPECT_EQ(pick->entries_per_table, 0);
  const auto cut = PickCompaction(
      Levels({Table("less", "m", "m", 1200, 1, 1), Table("two", "n", "o", 1200, 2, 2)}), kMiB / 2);
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(cut->files, std::vector<std::string>{"two"});
}

TEST(PickCompactionTest, HasNothingToDoWhereAllLieOnTheLastLevel) {
  EXPECT_FALSE(PickCompaction(Levels({}), 8 * kMiB).has_value());
}

}  // namespace
}  // namespace kvstream

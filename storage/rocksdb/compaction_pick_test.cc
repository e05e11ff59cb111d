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

// Levels 0 to 2, with one table of a MiB for each letter on the last, and `more`.
rocksdb::ColumnFamilyMetaData Levels(std::vector<rocksdb::SstFileMetaData> upper,
                                     const std::vector<rocksdb::SstFileMetaData>& more = {}) {
  std::vector<rocksdb::SstFileMetaData> last;
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    last.push_back(Table(std::string(1, letter), std::string(1, letter),
                         std::string(1, letter) + "z", kMiB, 10, 0));
  }
  last.insert(last.end(), more.begin(), more.end());
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

// What cannot be cut any more must not stop everything.
TEST(PickCompactionTest, TakesAnEntryThatOverlapsTooMuchIfNothingElseIsLeft) {
  const std::vector<rocksdb::SstFileMetaData> entries = {
      Table("last1", "zzb", "zzb", 5 * kMiB, 1, 0), Table("last2", "zzd", "zzd", 4 * kMiB, 1, 0)};
  const auto pick = PickCompaction(
      Levels({Table("more", "zzb", "zzb", 1200, 1, 1), Table("less", "zzd", "zzd", 1200, 1, 1)},
             entries),
      3 * kMiB);
  ASSERT_TRUE(pick.has_value());
  EXPECT_EQ(pick->files, (std::vector<std::string>{"less", "last2"}));
  EXPECT_EQ(pick->entries_per_table, 0);
  const auto cut = PickCompaction(
      Levels({Table("less", "zzb", "zzb", 1200, 1, 1), Table("two", "zzc", "zze", 1200, 2, 2)},
             entries),
      3 * kMiB);
  ASSERT_TRUE(cut.has_value());
  EXPECT_EQ(cut->files, std::vector<std::string>{"two"});
}

TEST(PickCompactionTest, HasNothingToDoWhereAllLieOnTheLastLevel) {
  EXPECT_FALSE(PickCompaction(Levels({}), 8 * kMiB).has_value());
}

// A store that was larger left them; whatever lies above one would have to be read with all of it.
TEST(PickCompactionTest, CutsWhatIsTooLargeOnTheLastLevelBeforeAnythingElse) {
  const auto few = Table("few", "a", "b", kMiB, 10, 1);
  EXPECT_FALSE(HasOversizedTable(Levels({few}), 8 * kMiB));
  const auto tables = Levels({few}, {Table("large", "zza", "zzb", 5 * kMiB, 40, 0)});
  EXPECT_TRUE(HasOversizedTable(tables, 8 * kMiB));
  const auto pick = PickCompaction(tables, 8 * kMiB);
  ASSERT_TRUE(pick.has_value());
  EXPECT_EQ(pick->files, std::vector<std::string>{"large"});
  EXPECT_EQ(pick->output_level, 2);
  EXPECT_EQ(pick->entries_per_table, 3);
  // A single entry is as small as it can be.
  const auto entry = Levels({few}, {Table("entry", "zza", "zza", 5 * kMiB, 1, 0)});
  EXPECT_FALSE(HasOversizedTable(entry, 8 * kMiB));
  EXPECT_EQ(PickCompaction(entry, 8 * kMiB)->files.front(), "few");
}

}  // namespace
}  // namespace kvstream

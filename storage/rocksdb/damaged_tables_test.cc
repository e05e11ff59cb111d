#include "storage/rocksdb/damaged_tables.h"

#include <gtest/gtest.h>

namespace kvstream {
namespace {

TEST(DamagedTablesTest, ReadsTheNumberOfATableOutOfAMessage) {
  EXPECT_EQ(DamagedTables::NumberIn("Corruption: block checksum mismatch: stored = 1, computed = "
                                    "2, type = 4  in /data/000017.sst offset 150226 size 100061"),
            17);
  EXPECT_EQ(DamagedTables::NumberIn("/var/1.sst/000123.sst"), 123);
  EXPECT_EQ(DamagedTables::NumberIn("Corruption: bad entry in block"), absl::nullopt);
  EXPECT_EQ(DamagedTables::NumberIn("a.sst"), absl::nullopt);
  EXPECT_EQ(DamagedTables::NumberIn(".sst"), absl::nullopt);
  EXPECT_EQ(DamagedTables::NumberIn("99999999999999999999.sst"), absl::nullopt);
}

TEST(DamagedTablesTest, WhatIsInTheWayStaysSoUntilItIsForgotten) {
  DamagedTables tables;
  tables.Note(3, true);
  tables.Note(3, false);
  tables.Note(5, false);
  EXPECT_EQ(tables.all(), (std::map<uint64_t, bool>{{3, true}, {5, false}}));
  tables.Forget(3);
  EXPECT_EQ(tables.size(), 1);
}

}  // namespace
}  // namespace kvstream

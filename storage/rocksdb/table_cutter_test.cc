// Tables of a real database, cut on their own level.
#include "storage/rocksdb/table_cutter.h"

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/metadata.h>

#include <memory>
#include <string>
#include <vector>

#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

class TableCutterTest : public testing::Test {
 protected:
  void SetUp() override {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.disable_auto_compactions = true;
    options.sst_partitioner_factory = cutter_;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, dir_.path() + "/db", &db).ok());
    db_.reset(db);
  }

  // One table of so many entries of 20 kB on level 1.
  void FillLevel1(int entries) {
    for (int i = 0; i < entries; ++i) {
      const std::string key = "key" + std::to_string(100 + i);
      ASSERT_TRUE(db_->Put({}, key, std::string(20000, 'v')).ok());
    }
    ASSERT_TRUE(db_->Flush({}).ok());
    Compact(0);
    ASSERT_EQ(Tables().size(), 1);
  }

  std::vector<rocksdb::SstFileMetaData> Tables() {
    rocksdb::ColumnFamilyMetaData tables;
    db_->GetColumnFamilyMetaData(&tables);
    EXPECT_TRUE(tables.levels[0].files.empty());
    return tables.levels[1].files;
  }

  void Compact(size_t level) {
    rocksdb::ColumnFamilyMetaData tables;
    db_->GetColumnFamilyMetaData(&tables);
    std::vector<std::string> files;
    for (const auto& table : tables.levels[level].files) files.push_back(table.relative_filename);
    rocksdb::CompactionOptions how;
    how.output_file_size_limit = uint64_t{64} << 20;
    const rocksdb::Status status = db_->CompactFiles(how, files, 1);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }

  TempDir dir_;
  const std::shared_ptr<TableCutter> cutter_ = std::make_shared<TableCutter>();
  std::unique_ptr<rocksdb::DB> db_;
};

TEST_F(TableCutterTest, CutsAPair) {
  FillLevel1(2);
  {
    const TableCutter::Scope scope(cutter_.get(), 1);
    Compact(1);
  }
  ASSERT_EQ(Tables().size(), 2);
  for (const rocksdb::SstFileMetaData& table : Tables()) {
    EXPECT_EQ(table.num_entries, 1);
    EXPECT_EQ(table.smallestkey, table.largestkey);
  }
}

TEST_F(TableCutterTest, CutsIntoTablesOfSoManyEntries) {
  FillLevel1(10);
  {
    const TableCutter::Scope scope(cutter_.get(), 4);
    Compact(1);
  }
  std::vector<uint64_t> entries;
  for (const rocksdb::SstFileMetaData& table : Tables()) entries.push_back(table.num_entries);
  EXPECT_EQ(entries, (std::vector<uint64_t>{4, 4, 2}));
}

TEST_F(TableCutterTest, CutsNothingOutsideAScopeOrByZero) {
  FillLevel1(10);
  Compact(1);
  EXPECT_EQ(Tables().size(), 1);
  const TableCutter::Scope scope(cutter_.get(), 0);
  Compact(1);
  EXPECT_EQ(Tables().size(), 1);
}

}  // namespace
}  // namespace kvstream

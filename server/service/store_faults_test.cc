// A disk that fails under a server: what is written is refused with a status that says why, and
// everything else is served.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/service/ids.h"
#include "server/service/testing/test_server.h"
#include "storage/rocksdb/fault_file_system.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

struct Fault {
  std::string name;
  rocksdb::IOStatus writes, syncs;
  grpc::StatusCode code;
};

class StoreFaultsTest : public testing::TestWithParam<Fault> {
 protected:
  StoreFaultsTest() : env_(rocksdb::NewCompositeEnv(fs_)) { Start(); }

  // By default the server itself does not try to write.
  void Start(absl::Duration expiry_interval = absl::Hours(24),
             absl::Duration resume_wait = absl::InfiniteDuration()) {
    server_.reset();
    RocksDbChunkStoreOptions options;
    options.data_dir = dir_.path();
    options.block_cache_bytes = 8 << 20;
    options.resume_interval = absl::ZeroDuration();
    options.resume_wait = resume_wait;
    options.env = env_.get();
    auto store = RocksDbChunkStore::Create(options);
    ASSERT_TRUE(store.ok()) << store.status();
    ServerOptions server = TestServer::Options();
    server.expiry_interval = expiry_interval;
    server_ = std::make_unique<TestServer>(server, nullptr, *std::move(store));
  }

  // Everything that reads, of a context that is stored.
  void ExpectServed(const TestContext& context) {
    v1::LoadStart start = StartOf(context);
    start.set_policy(v1::POLICY_FIXED);
    start.set_level(2);
    const TestLoad load = RunLoad(server_->stub(), start);
    ASSERT_TRUE(load.status.ok()) << load.status.error_message();
    EXPECT_EQ(load.violation, "");
    for (int chunk = 0; chunk < context.chunks; ++chunk) {
      std::string expected;
      for (int level = 0; level < 3; ++level) expected += context.segment(chunk, level);
      EXPECT_TRUE(load.chunks[chunk] == expected) << chunk;
    }
    v1::LookupRequest lookup;
    lookup.set_profile_id(IdBytes(context.profile_id()));
    for (const ChunkId& id : context.ids()) lookup.add_chunk_ids(IdBytes(id));
    v1::LookupResponse found;
    grpc::ClientContext clients[4];
    EXPECT_TRUE(server_->stub().Lookup(&clients[0], lookup, &found).ok());
    EXPECT_EQ(found.matched_chunks(), context.chunks);
    v1::ListResponse listed;
    EXPECT_TRUE(server_->stub().List(&clients[1], v1::ListRequest(), &listed).ok());
    EXPECT_GE(listed.chunks_size(), context.chunks);
    v1::StatsResponse stats;
    EXPECT_TRUE(server_->stub().Stats(&clients[2], v1::StatsRequest(), &stats).ok());
    EXPECT_GE(stats.chunks(), context.chunks);
    writes_ = stats.store_writes();
    v1::ScrubResponse scrubbed;
    EXPECT_TRUE(server_->stub().Scrub(&clients[3], v1::ScrubRequest(), &scrubbed).ok());
    EXPECT_EQ(scrubbed.damage_size(), 0);
  }

  grpc::Status Delete(const TestContext& context) {
    v1::DeleteRequest request;
    for (const ChunkId& id : context.ids()) request.add_chunk_ids(IdBytes(id));
    v1::DeleteResponse response;
    grpc::ClientContext client;
    return server_->stub().Delete(&client, request, &response);
  }

  TempDir dir_;
  const std::shared_ptr<FaultFileSystem> fs_ = std::make_shared<FaultFileSystem>(1);
  const std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<TestServer> server_;
  v1::StoreWrites writes_ = v1::STORE_WRITES_UNSPECIFIED;  // as Stats said last
};

TEST_P(StoreFaultsTest, WritesAreRefusedEverythingElseIsServed) {
  TestContext before, after;
  after.name = 'y';
  ASSERT_TRUE(server_->PutContext(before).ok());
  fs_->FailWrites(GetParam().writes);
  fs_->FailSyncs(GetParam().syncs);
  for (int i = 0; i < 2; ++i) {
    const grpc::Status put = server_->PutContext(after);
    EXPECT_EQ(put.error_code(), GetParam().code) << put.error_message();
    const grpc::Status deleted = Delete(before);
    EXPECT_EQ(deleted.error_code(), GetParam().code) << deleted.error_message();
    ExpectServed(before);
  }
  EXPECT_EQ(writes_, v1::STORE_WRITES_REFUSED);
  EXPECT_THAT(server_->server().MetricsText(), HasSubstr("kvstream_store_writable 0"));
  EXPECT_THAT(server_->server().MetricsText(), HasSubstr("kvstream_store_restart_needed 0"));
  fs_->FailWrites(rocksdb::IOStatus::OK());
  fs_->FailSyncs(rocksdb::IOStatus::OK());
  const grpc::Status put = server_->PutContext(after);
  ASSERT_TRUE(put.ok()) << put.error_message();
  ExpectServed(before);
  ExpectServed(after);
  EXPECT_EQ(writes_, v1::STORE_WRITES_TAKEN);
  EXPECT_THAT(server_->server().MetricsText(), HasSubstr("kvstream_store_writable 1"));
}

// Without anybody who writes.
TEST_P(StoreFaultsTest, AStoreWhoseDiskIsWellAgainSaysSoByItself) {
  ASSERT_NO_FATAL_FAILURE(Start(absl::Milliseconds(10)));
  TestContext before, after;
  after.name = 'y';
  ASSERT_TRUE(server_->PutContext(before).ok());
  fs_->FailWrites(GetParam().writes);
  fs_->FailSyncs(GetParam().syncs);
  EXPECT_FALSE(server_->PutContext(after).ok());
  const auto writable = [&](const char* state) {
    return absl::StrContains(server_->server().HealthText(), absl::StrCat("\"writable\":", state));
  };
  EXPECT_TRUE(Eventually([&] { return writable("false"); }));
  fs_->FailWrites(rocksdb::IOStatus::OK());
  fs_->FailSyncs(rocksdb::IOStatus::OK());
  EXPECT_TRUE(Eventually([&] { return writable("true"); }));
  ExpectServed(before);
}

// An attempt to take writes again that does not end.
TEST_P(StoreFaultsTest, WhileTheStoreRecoversWritesAreRefusedAtOnceEverythingElseIsServed) {
  ASSERT_NO_FATAL_FAILURE(Start(absl::Hours(24), absl::ZeroDuration()));
  TestContext before, after;
  after.name = 'y';
  ASSERT_TRUE(server_->PutContext(before).ok());
  fs_->FailWrites(GetParam().writes);
  fs_->FailSyncs(GetParam().syncs);
  EXPECT_FALSE(server_->PutContext(after).ok());
  fs_->FailWrites(rocksdb::IOStatus::OK());
  fs_->FailSyncs(rocksdb::IOStatus::OK());
  fs_->Hold(FaultFileSystem::Held::kNewTables);
  for (int i = 0; i < 2; ++i) {
    for (const grpc::Status& refused : {server_->PutContext(after), Delete(before)}) {
      EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
      EXPECT_THAT(refused.error_message(), HasSubstr("recovering"));
    }
    ExpectServed(before);
  }
  fs_->Hold(FaultFileSystem::Held::kNothing);
  EXPECT_TRUE(Eventually([&] { return server_->PutContext(after).ok(); }));
  ExpectServed(before);
  ExpectServed(after);
}

const rocksdb::IOStatus kFine = rocksdb::IOStatus::OK();

INSTANTIATE_TEST_SUITE_P(
    , StoreFaultsTest,
    testing::Values(Fault{"FullDisk", rocksdb::IOStatus::NoSpace("No space left on device"), kFine,
                          grpc::StatusCode::RESOURCE_EXHAUSTED},
                    Fault{"WriteError", rocksdb::IOStatus::IOError("Input/output error"), kFine,
                          grpc::StatusCode::UNAVAILABLE},
                    Fault{"ReadOnlyDisk", rocksdb::IOStatus::IOError("Read-only file system"),
                          kFine, grpc::StatusCode::UNAVAILABLE},
                    Fault{"SyncError", kFine, rocksdb::IOStatus::IOError("Input/output error"),
                          grpc::StatusCode::UNAVAILABLE}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace kvstream

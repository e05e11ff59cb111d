// Scrub and Backup over loopback, with a memory store that lies.
#include "server/service/scrub_rpc.h"

#include <gtest/gtest.h>

#include <string>

#include "server/service/ids.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

grpc::Status Scrub(TestServer& server, const v1::ScrubRequest& request,
                   v1::ScrubResponse* response) {
  grpc::ClientContext client;
  return server.stub().Scrub(&client, request, response);
}

// All pages together.
v1::ScrubResponse ScrubAll(TestServer& server, uint64_t max_bytes, bool delete_damaged = false) {
  v1::ScrubResponse all;
  v1::ScrubRequest request;
  request.set_max_bytes(max_bytes);
  request.set_delete_damaged(delete_damaged);
  do {
    v1::ScrubResponse page;
    const grpc::Status status = Scrub(server, request, &page);
    EXPECT_TRUE(status.ok()) << status.error_message();
    if (!status.ok()) break;
    request.set_page_token(page.next_page_token());
    page.set_chunks(page.chunks() + all.chunks());
    page.set_bytes(page.bytes() + all.bytes());
    all.mutable_damage()->MergeFrom(page.damage());
    all.set_chunks(page.chunks());
    all.set_bytes(page.bytes());
  } while (!request.page_token().empty());
  return all;
}

TEST(ScrubRpcTest, ReadsEveryByteOncePageByPage) {
  TestServer server;
  TestContext context;
  context.chunks = 10;
  ASSERT_TRUE(server.PutContext(context).ok());
  for (const uint64_t max_bytes : {1, 8000, 0}) {
    const v1::ScrubResponse found = ScrubAll(server, max_bytes);
    EXPECT_EQ(found.chunks(), 10u);
    EXPECT_EQ(found.bytes(), context.bytes_at(2));
    EXPECT_EQ(found.damage_size(), 0);
  }
}

TEST(ScrubRpcTest, NamesDamagedChunksAndDeletesThemIfAsked) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  server.faults().OnRead([&](const ChunkId& id, uint32_t level) {
    return id == context.id(1) && level == 2 ? absl::DataLossError("a bad \x01 checksum")
                                             : absl::OkStatus();
  });
  v1::ScrubResponse found = ScrubAll(server, 0);
  EXPECT_EQ(found.chunks(), 4u);
  ASSERT_EQ(found.damage_size(), 1);
  EXPECT_EQ(found.damage(0).chunk_id(), IdBytes(context.id(1)));
  EXPECT_EQ(found.damage(0).segment(), 3u);
  EXPECT_EQ(found.damage(0).what(), "a bad ? checksum");
  EXPECT_FALSE(found.damage(0).deleted());

  found = ScrubAll(server, 0, true);
  ASSERT_EQ(found.damage_size(), 1);
  EXPECT_TRUE(found.damage(0).deleted());
  found = ScrubAll(server, 0, true);
  EXPECT_EQ(found.chunks(), 3u);
  EXPECT_EQ(found.damage_size(), 0);
  server.faults().OnRead(nullptr);
  ASSERT_TRUE(server.PutContext(context).ok());
  EXPECT_EQ(ScrubAll(server, 0).chunks(), 4u);
}

TEST(ScrubRpcTest, OtherErrorsAreNoDamage) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  server.faults().OnRead(
      [](const ChunkId&, uint32_t) { return absl::UnavailableError("the disk is away"); });
  v1::ScrubRequest request;
  request.set_delete_damaged(true);
  v1::ScrubResponse response;
  EXPECT_EQ(Scrub(server, request, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  server.faults().OnRead(nullptr);
  EXPECT_EQ(ScrubAll(server, 0).chunks(), 4u);
}

TEST(ScrubRpcTest, AChunkThatIsDeletedMeanwhileIsNoDamage) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  server.faults().OnRead([&](const ChunkId& id, uint32_t level) {
    if (id != context.id(2) || level != 1) return absl::OkStatus();
    grpc::ClientContext client;
    v1::DeleteRequest request;
    request.add_chunk_ids(IdBytes(id));
    v1::DeleteResponse response;
    EXPECT_TRUE(server.stub().Delete(&client, request, &response).ok());
    return absl::OkStatus();
  });
  EXPECT_EQ(ScrubAll(server, 0).damage_size(), 0);
}

TEST(ScrubRpcTest, RefusesForeignPageTokens) {
  TestServer server;
  for (const std::string& token :
       {std::string("x"), std::string("c"), std::string("cshort"), std::string(40, 'c')}) {
    v1::ScrubRequest request;
    request.set_page_token(token);
    v1::ScrubResponse response;
    EXPECT_EQ(Scrub(server, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  // Any file may have been the last.
  v1::ScrubRequest request;
  request.set_page_token("f/../../etc/passwd");
  v1::ScrubResponse response;
  EXPECT_TRUE(Scrub(server, request, &response).ok());
}

TEST(BackupRpcTest, NeedsADirectoryAndAStoreOnADisk) {
  TestServer server;
  grpc::ClientContext client;
  v1::BackupRequest request;
  request.set_name("a");
  v1::BackupResponse response;
  EXPECT_EQ(server.stub().Backup(&client, request, &response).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace kvstream

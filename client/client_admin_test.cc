// The administrative calls and Client::Create.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "client/client.h"
#include "client/testing/scripted_server.h"

namespace kvstream {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ClientAdminTest : public testing::Test {
 protected:
  ClientAdminTest() {
    Client::Options options;
    options.server = server_.address();
    options.rpc_timeout = absl::Seconds(20);
    client_ = *Client::Create(options);
  }

  ScriptedServer server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientAdminTest, PingsTheHealthService) {
  const absl::StatusOr<PingResult> ping = client_->Ping();
  ASSERT_TRUE(ping.ok()) << ping.status();
  EXPECT_TRUE(ping->serving);
  EXPECT_GT(ping->round_trip, absl::ZeroDuration());
  server_.Kill();
  EXPECT_EQ(client_->Ping().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientAdminTest, ListsPagesOfChunks) {
  server_.service().list = [](const v1::ListRequest& request, v1::ListResponse* response) {
    EXPECT_EQ(request.page_size(), 7);
    EXPECT_EQ(request.page_token(), "token");
    EXPECT_EQ(request.profile_id(), std::string(32, 'p'));
    v1::StoredChunk* first = response->add_chunks();
    first->set_chunk_id(std::string(32, 'a'));
    first->set_profile_id(std::string(32, 'p'));
    first->set_model("m@1");
    first->set_tokens(256);
    first->add_segment_bytes(10);
    first->add_segment_bytes(20);
    first->mutable_created()->set_seconds(1700000000);
    v1::StoredChunk* second = response->add_chunks();
    second->set_chunk_id(std::string(32, 'b'));
    second->set_parent_id(std::string(32, 'a'));
    second->set_profile_id(std::string(32, 'p'));
    second->set_first_token(256);
    response->set_next_page_token("next");
    return grpc::Status::OK;
  };
  ProfileId profile;
  profile.fill('p');
  const absl::StatusOr<ListPage> page = client_->List(7, "token", profile);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->next_page_token, "next");
  ASSERT_EQ(page->chunks.size(), 2);
  EXPECT_EQ(page->chunks[0].id[31], 'a');
  EXPECT_FALSE(page->chunks[0].info.parent.has_value());
  EXPECT_EQ(page->chunks[0].info.model, "m@1");
  EXPECT_EQ(page->chunks[0].info.tokens, 256);
  EXPECT_THAT(page->chunks[0].info.segment_bytes, ElementsAre(10, 20));
  EXPECT_EQ(page->chunks[0].info.created, absl::FromUnixSeconds(1700000000));
  ASSERT_TRUE(page->chunks[1].info.parent.has_value());
  EXPECT_EQ(*page->chunks[1].info.parent, page->chunks[0].id);
  EXPECT_EQ(page->chunks[1].info.first_token, 256);
}

TEST_F(ClientAdminTest, AnIdOfTheWrongSizeIsAnError) {
  server_.service().list = [](const v1::ListRequest&, v1::ListResponse* response) {
    response->add_chunks()->set_chunk_id("short");
    return grpc::Status::OK;
  };
  EXPECT_EQ(client_->List(0, "", absl::nullopt).status().code(), absl::StatusCode::kInternal);
  server_.service().stats = [](const v1::StatsRequest&, v1::StatsResponse* response) {
    response->add_profile_ids("short");
    return grpc::Status::OK;
  };
  EXPECT_EQ(client_->Stats().status().code(), absl::StatusCode::kInternal);
}

TEST_F(ClientAdminTest, ReadsStats) {
  server_.service().stats = [](const v1::StatsRequest&, v1::StatsResponse* response) {
    response->set_version("0.1.0");
    response->mutable_uptime()->set_seconds(3);
    response->mutable_uptime()->set_nanos(500000000);
    response->set_store("memory");
    response->set_chunks(1);
    response->set_payload_bytes(2);
    response->set_disk_bytes(3);
    response->add_profile_ids(std::string(32, 'p'));
    response->set_loads_in_flight(4);
    response->set_loads_finished(5);
    response->set_loads_failed(6);
    response->set_load_bytes_sent(7);
    response->add_chunks_by_level(8);
    response->set_chunks_recomputed(9);
    response->set_store_writes(v1::STORE_WRITES_REFUSED_UNTIL_RESTART);
    response->set_damaged_files(10);
    return grpc::Status::OK;
  };
  const absl::StatusOr<ServerStats> stats = client_->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->version, "0.1.0");
  EXPECT_EQ(stats->uptime, absl::Milliseconds(3500));
  EXPECT_EQ(stats->store, "memory");
  EXPECT_EQ(stats->chunks, 1);
  EXPECT_EQ(stats->payload_bytes, 2);
  EXPECT_EQ(stats->disk_bytes, 3);
  EXPECT_EQ(stats->profile_ids[0][0], 'p');
  EXPECT_EQ(stats->loads_in_flight, 4);
  EXPECT_EQ(stats->loads_finished, 5);
  EXPECT_EQ(stats->loads_failed, 6);
  EXPECT_EQ(stats->load_bytes_sent, 7);
  EXPECT_THAT(stats->chunks_by_level, ElementsAre(8));
  EXPECT_EQ(stats->chunks_recomputed, 9);
  EXPECT_EQ(stats->store_writes, StoreWrites::kRefusedUntilRestart);
  EXPECT_EQ(StoreWritesName(stats->store_writes), "refused_until_restart");
  EXPECT_EQ(stats->damaged_files, 10);
}

TEST_F(ClientAdminTest, DeletesInPartsTheProtocolAllows) {
  std::vector<int> sizes;
  server_.service().remove = [&sizes](const v1::DeleteRequest& request,
                                      v1::DeleteResponse* response) {
    sizes.push_back(request.chunk_ids_size());
    response->set_chunks_deleted(request.chunk_ids_size() > 10 ? 3 : 1);
    return grpc::Status::OK;
  };
  const absl::StatusOr<uint64_t> deleted = client_->Delete(std::vector<ChunkId>(65536 + 2));
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(*deleted, 4);
  EXPECT_THAT(sizes, ElementsAre(65536, 2));
}

TEST_F(ClientAdminTest, ErrorsKeepTheirCodeAndNameServerAndCall) {
  const absl::Status status = client_->Stats().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr(server_.address() + ": stats: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("is that a kvstreamd"));
}

TEST(ClientCreateTest, RefusesOptionsOutOfRange) {
  const auto refused = [](Client::Options options, const std::string& what) {
    const absl::Status status = Client::Create(std::move(options)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  };
  for (const char* server : {"", "host", "host:", ":7411"}) {
    Client::Options options;
    options.server = server;
    refused(options, "is not host:port");
  }
  Client::Options options;
  options.server = "host:7411";
  EXPECT_TRUE(Client::Create(options).ok()) << "creating does not connect";
  options.decode_threads = 0;
  refused(options, "0 threads");
  options.decode_threads = 1;
  options.encode_threads = 65;
  refused(options, "65 threads");
  options.encode_threads = 1;
  options.rpc_timeout = absl::ZeroDuration();
  refused(options, "rpc_timeout");
}

}  // namespace
}  // namespace kvstream

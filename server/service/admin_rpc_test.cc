// Lookup, Delete, List and Stats over loopback.
#include "server/service/admin_rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/service/ids.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::LookupRequest LookupOf(const TestContext& context) {
  v1::LookupRequest request;
  request.set_profile_id(IdBytes(context.profile_id()));
  for (const ChunkId& id : context.ids()) request.add_chunk_ids(IdBytes(id));
  request.set_context_tokens(static_cast<uint64_t>(context.chunks) * context.tokens);
  return request;
}

grpc::Status Lookup(TestServer& server, const v1::LookupRequest& request,
                    v1::LookupResponse* response) {
  grpc::ClientContext client;
  return server.stub().Lookup(&client, request, response);
}

grpc::Status Delete(TestServer& server, const std::vector<std::string>& ids,
                    v1::DeleteResponse* response) {
  grpc::ClientContext client;
  v1::DeleteRequest request;
  for (const std::string& id : ids) request.add_chunk_ids(id);
  return server.stub().Delete(&client, request, response);
}

grpc::Status List(TestServer& server, const v1::ListRequest& request, v1::ListResponse* response) {
  grpc::ClientContext client;
  return server.stub().List(&client, request, response);
}

TEST(LookupTest, FindsTheLongestStoredPrefixWithTheBytesOfEachLevel) {
  TestServer server;
  TestContext stored;
  stored.chunks = 3;
  ASSERT_TRUE(server.PutContext(stored).ok());
  TestContext asked = stored;
  asked.chunks = 5;
  v1::LookupResponse response;
  ASSERT_TRUE(Lookup(server, LookupOf(asked), &response).ok());
  EXPECT_EQ(response.matched_chunks(), 3u);
  EXPECT_EQ(response.matched_tokens(), 48u);
  EXPECT_THAT(response.level_bytes(), ElementsAre(3000, 9000, 21000));
  const std::string metrics = server.server().MetricsText();
  EXPECT_EQ(MetricValue(metrics, R"(kvstream_lookup_tokens_total{result="hit"})"), 48);
  EXPECT_EQ(MetricValue(metrics, R"(kvstream_lookup_tokens_total{result="miss"})"), 32);
}

TEST(DegradedTest, AChunkThatLostLevelsIsLookedUpListedLoadedAndRestored) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ChunkStore& store = *server.server().environment().store;
  const auto chunks = store.List(absl::nullopt, 10);
  ASSERT_TRUE(chunks.ok()) << chunks.status();
  for (const auto& [id, info] : *chunks) {
    if (info.first_token != 16) continue;
    ASSERT_EQ(store.Trim({id}, 2).value_or(0), 1u);
  }
  v1::LookupResponse found;
  ASSERT_TRUE(Lookup(server, LookupOf(context), &found).ok());
  EXPECT_EQ(found.matched_chunks(), 4u);
  EXPECT_EQ(found.first_degraded(), 2u);
  v1::ListResponse list;
  ASSERT_TRUE(List(server, v1::ListRequest(), &list).ok());
  uint32_t lost = 0;
  for (const v1::StoredChunk& chunk : list.chunks()) lost += chunk.levels_lost();
  EXPECT_EQ(lost, 1u);

  // Each chunk comes at what it has.
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(2);
  TestLoad load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.violation, "");
  EXPECT_THAT(load.levels, ElementsAre(2, 1, 2, 2));
  for (int i = 0; i < context.chunks; ++i) {
    const std::string base = context.segment(i, 0) + context.segment(i, 1);
    EXPECT_EQ(load.chunks[i], i == 1 ? base : base + context.segment(i, 2));
  }
  // Whatever the policy; one that refines reads ahead of what it sends.
  for (v1::Policy policy : {v1::POLICY_DEADLINE, v1::POLICY_FASTEST, v1::POLICY_CACHEGEN}) {
    v1::LoadStart other = StartOf(context);
    other.set_policy(policy);
    other.mutable_deadline()->set_seconds(60);
    load = RunLoad(server.stub(), other);
    ASSERT_TRUE(load.status.ok()) << load.status.error_message();
    EXPECT_EQ(load.violation, "");
    for (int i = 0; i < context.chunks; ++i) {
      std::string expected;
      for (int level = 0; level <= load.levels[i]; ++level) expected += context.segment(i, level);
      EXPECT_LE(load.levels[i], i == 1 ? 1 : 2);
      EXPECT_EQ(load.chunks[i], expected);
    }
  }
  start.set_floor_level(2);
  EXPECT_EQ(RunLoad(server.stub(), start).status.error_code(), grpc::StatusCode::NOT_FOUND);
  start.set_floor_level(3);
  EXPECT_EQ(RunLoad(server.stub(), start).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);

  v1::PutResponse put;
  ASSERT_TRUE(server.PutContext(context, &put).ok());
  EXPECT_EQ(put.chunks_stored(), 1u);
  EXPECT_EQ(put.chunks_existing(), 3u);
  ASSERT_TRUE(Lookup(server, LookupOf(context), &found).ok());
  EXPECT_EQ(found.first_degraded(), 0u);
  start.set_floor_level(2);
  load = RunLoad(server.stub(), start);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.levels, std::vector<int>(4, 2));
}

TEST(LookupTest, AnUnknownProfileOrChainIsAMiss) {
  TestServer server;
  const TestContext context;
  v1::LookupResponse response;
  ASSERT_TRUE(Lookup(server, LookupOf(context), &response).ok());
  EXPECT_EQ(response.matched_chunks(), 0u);
  EXPECT_EQ(response.level_bytes_size(), 0);
  v1::LookupRequest empty;
  empty.set_profile_id(std::string(32, 'u'));
  EXPECT_TRUE(Lookup(server, empty, &response).ok());
}

TEST(LookupTest, HostileRequestsAreRefused) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LookupResponse response;
  v1::LookupRequest request = LookupOf(context);
  request.set_profile_id("short");
  EXPECT_EQ(Lookup(server, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request = LookupOf(context);
  request.set_chunk_ids(1, std::string(31, 'c'));
  const grpc::Status status = Lookup(server, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("chunk_ids[1]"));
  while (request.chunk_ids_size() <= 65536) request.add_chunk_ids(std::string(32, 'c'));
  EXPECT_EQ(Lookup(server, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request = LookupOf(context);
  request.set_profile_id(std::string(32, 'u'));
  EXPECT_EQ(Lookup(server, request, &response).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST(LookupTest, ALieAboutTokensCannotSpoilTheCounter) {
  TestServer server;
  v1::LookupRequest request = LookupOf(TestContext());
  request.set_context_tokens(~uint64_t{0});
  v1::LookupResponse response;
  ASSERT_TRUE(Lookup(server, request, &response).ok());
  EXPECT_LT(
      MetricValue(server.server().MetricsText(), R"(kvstream_lookup_tokens_total{result="miss"})"),
      1e9);
}

TEST(DeleteTest, DeletesWhatExistsAndCountsIt) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::DeleteResponse response;
  ASSERT_TRUE(Delete(server, {IdBytes(context.id(1)), IdBytes(context.id(1)), std::string(32, 'u')},
                     &response)
                  .ok());
  EXPECT_EQ(response.chunks_deleted(), 1u);
  v1::LookupResponse found;
  ASSERT_TRUE(Lookup(server, LookupOf(context), &found).ok());
  EXPECT_EQ(found.matched_chunks(), 1u);
  EXPECT_EQ(Delete(server, {"short"}, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  // And can be stored again.
  v1::PutResponse put;
  ASSERT_TRUE(server.PutContext(context, &put).ok());
  EXPECT_EQ(put.chunks_stored(), 1u);
}

TEST(DeleteTest, AChunkThatALoadUsesIsHiddenAndComesBackIfItIsStoredAgain) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(StartOf(context)));
  ASSERT_TRUE(load.Receive().has_value());
  v1::DeleteResponse response;
  ASSERT_TRUE(Delete(server, {IdBytes(context.id(2))}, &response).ok());
  EXPECT_EQ(response.chunks_deleted(), 1u);
  v1::LookupResponse found;
  ASSERT_TRUE(Lookup(server, LookupOf(context), &found).ok());
  EXPECT_EQ(found.matched_chunks(), 2u);
  v1::ListResponse listed;
  ASSERT_TRUE(List(server, v1::ListRequest(), &listed).ok());
  EXPECT_EQ(listed.chunks_size(), 3);
  v1::PutResponse put;
  ASSERT_TRUE(server.PutContext(context, &put).ok());
  EXPECT_EQ(put.chunks_existing(), 4u);
  load.Cancel();
  load.Finish();
  ASSERT_TRUE(Eventually([&] { return server.server().environment().loads->in_flight() == 0; }));
  ASSERT_TRUE(Lookup(server, LookupOf(context), &found).ok());
  EXPECT_EQ(found.matched_chunks(), 4u);
}

TEST(ListTest, PagesCoverEverythingOnceInOrderOfIds) {
  TestServer server;
  TestContext context;
  context.chunks = 23;
  ASSERT_TRUE(server.PutContext(context).ok());
  for (const uint32_t page_size : {1u, 5u, 23u, 24u, 0u}) {
    v1::ListRequest request;
    request.set_page_size(page_size);
    std::vector<std::string> ids;
    int pages = 0;
    while (true) {
      v1::ListResponse response;
      ASSERT_TRUE(List(server, request, &response).ok());
      ++pages;
      for (const v1::StoredChunk& chunk : response.chunks()) ids.push_back(chunk.chunk_id());
      if (response.next_page_token().empty()) break;
      request.set_page_token(response.next_page_token());
    }
    ASSERT_EQ(ids.size(), 23u) << page_size;
    for (int i = 0; i < 23; ++i) EXPECT_EQ(ids[i], IdBytes(context.id(i)));
    if (page_size == 5) {
      EXPECT_EQ(pages, 5);
    }
    if (page_size == 23) {
      EXPECT_EQ(pages, 1);
    }
  }
}

TEST(ListTest, OfNamedChunksInTheOrderOfTheQuestion) {
  TestServer server;
  TestContext context;
  context.chunks = 7;
  ASSERT_TRUE(server.PutContext(context).ok());
  TestContext absent = context;
  absent.name = 'z';
  const std::vector<ChunkId> ids = {context.id(5), absent.id(0),  context.id(2),
                                    context.id(5), context.id(6), absent.id(1)};
  for (const uint32_t page_size : {1u, 2u, 3u, 4u, 5u, 0u}) {
    v1::ListRequest request;
    request.set_page_size(page_size);
    for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
    std::vector<std::string> listed;
    while (true) {
      v1::ListResponse response;
      ASSERT_TRUE(List(server, request, &response).ok());
      if (page_size > 0) {
        EXPECT_LE(response.chunks_size(), static_cast<int>(page_size));
      }
      for (const v1::StoredChunk& chunk : response.chunks()) listed.push_back(chunk.chunk_id());
      if (response.next_page_token().empty()) break;
      request.set_page_token(response.next_page_token());
    }
    EXPECT_THAT(listed,
                ElementsAre(IdBytes(ids[0]), IdBytes(ids[2]), IdBytes(ids[3]), IdBytes(ids[4])));
  }
  v1::ListRequest request;
  v1::ListResponse response;
  request.add_chunk_ids(IdBytes(ids[0]));
  request.set_model("another model");
  ASSERT_TRUE(List(server, request, &response).ok());
  EXPECT_EQ(response.chunks_size(), 0);
  for (const std::string& token : {std::string("2"), std::string("-1"), std::string("x"),
                                   std::string("99999999999999999999"), IdBytes(ids[0])}) {
    request.set_page_token(token);
    EXPECT_EQ(List(server, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << token;
  }
  request.clear_page_token();
  request.add_chunk_ids("short");
  EXPECT_EQ(List(server, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(ListTest, TellsWhatIsKnownOfAChunk) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::ListResponse response;
  ASSERT_TRUE(List(server, v1::ListRequest(), &response).ok());
  const v1::StoredChunk& chunk = response.chunks(1);
  EXPECT_EQ(chunk.parent_id(), IdBytes(context.id(0)));
  EXPECT_EQ(chunk.profile_id(), IdBytes(context.profile_id()));
  EXPECT_EQ(chunk.model(), "test model");
  EXPECT_EQ(chunk.first_token(), 16u);
  EXPECT_EQ(chunk.tokens(), 16u);
  EXPECT_THAT(chunk.segment_bytes(), ElementsAre(1000, 2000, 4000));
  EXPECT_GT(chunk.created().seconds(), 1600000000);
}

TEST(ListTest, FiltersByProfileAndRefusesBadTokens) {
  TestServer server;
  const TestContext context;
  TestContext other;
  other.name = 'y';
  other.profile_name = 'b';
  ASSERT_TRUE(server.PutContext(context).ok());
  ASSERT_TRUE(server.PutContext(other).ok());
  v1::ListRequest request;
  request.set_profile_id(IdBytes(other.profile_id()));
  request.set_page_size(3);
  v1::ListResponse response;
  ASSERT_TRUE(List(server, request, &response).ok());
  EXPECT_EQ(response.chunks_size(), 3);
  request.set_page_token(response.next_page_token());
  ASSERT_TRUE(List(server, request, &response).ok());
  EXPECT_EQ(response.chunks_size(), 1);
  EXPECT_EQ(response.next_page_token(), "");
  request.set_page_token("bad");
  EXPECT_EQ(List(server, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request.clear_page_token();
  request.set_profile_id("bad");
  EXPECT_EQ(List(server, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(ListTest, APageOfLongModelNamesFitsADefaultClient) {
  TestServer server;
  TestContext context;
  context.chunks = 9000;
  context.segment_bytes = {40, 40, 40};
  ASSERT_TRUE(server.PutProfile(context.profile_bytes()).ok());
  auto messages = TestServer::PutMessages(context);
  messages[0].mutable_start()->set_model(std::string(512, 'm'));
  v1::PutResponse put;
  ASSERT_TRUE(server.SendPut(messages, &put).ok());
  v1::ListRequest request;
  request.set_page_size(10000);
  size_t listed = 0;
  int pages = 0;
  while (true) {
    v1::ListResponse response;
    ASSERT_TRUE(List(server, request, &response).ok());
    listed += static_cast<size_t>(response.chunks_size());
    ++pages;
    if (response.next_page_token().empty()) break;
    request.set_page_token(response.next_page_token());
  }
  EXPECT_EQ(listed, 9000u);
  EXPECT_GT(pages, 1);
}

TEST(StatsTest, CountsWhatIsStoredAndWhatLoadsDid) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(1);
  ASSERT_TRUE(RunLoad(server.stub(), start).status.ok());
  start.set_chunk_ids(0, std::string(32, 'u'));
  ASSERT_FALSE(RunLoad(server.stub(), start).status.ok());
  const RpcEnvironment& environment = server.server().environment();
  ASSERT_TRUE(Eventually([&] { return environment.loads->in_flight() == 0; }));
  grpc::ClientContext client;
  v1::StatsResponse stats;
  ASSERT_TRUE(server.stub().Stats(&client, v1::StatsRequest(), &stats).ok());
  EXPECT_EQ(stats.chunks(), 4u);
  EXPECT_EQ(stats.payload_bytes(), context.bytes_at(2));
  EXPECT_EQ(stats.store(), "memory");
  EXPECT_FALSE(stats.version().empty());
  EXPECT_THAT(stats.profile_ids(), ElementsAre(IdBytes(context.profile_id())));
  EXPECT_EQ(stats.loads_finished(), 1u);
  EXPECT_EQ(stats.loads_failed(), 1u);
  EXPECT_EQ(stats.load_bytes_sent(), context.bytes_at(1));
  EXPECT_THAT(stats.chunks_by_level(), ElementsAre(0, 4));
  EXPECT_EQ(stats.store_writes(), v1::STORE_WRITES_TAKEN);
  EXPECT_EQ(stats.damaged_files(), 0u);
}

TEST(RequestLimitTest, RequestsBeyondTheLimitAreRefused) {
  ServerOptions options = TestServer::Options();
  options.max_requests = 1;
  TestServer server(options);
  const RpcEnvironment& environment = server.server().environment();
  auto ticket = environment.requests->Enter();
  ASSERT_TRUE(ticket.ok());
  v1::DeleteResponse response;
  const grpc::Status status = Delete(server, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("--max-requests"));
  ticket->Release();
  EXPECT_TRUE(Delete(server, {}, &response).ok());
}

}  // namespace
}  // namespace kvstream

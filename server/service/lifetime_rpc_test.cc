// Expiry, pins and deletions over loopback.
#include "server/service/lifetime_rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/service/ids.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

// Puts, with a ttl for each chunk of it; 0: none is named.
grpc::Status PutWithTtl(TestServer& server, const TestContext& context, int64_t ttl_seconds,
                        v1::PutResponse* response) {
  grpc::Status status = server.PutProfile(context.profile_bytes());
  if (!status.ok()) return status;
  std::vector<v1::PutRequest> messages = TestServer::PutMessages(context);
  messages[0].mutable_start()->mutable_ttl()->set_seconds(ttl_seconds);
  return server.SendPut(messages, response);
}

std::vector<v1::StoredChunk> List(TestServer& server, const std::string& model = "") {
  grpc::ClientContext client;
  v1::ListRequest request;
  request.set_model(model);
  v1::ListResponse response;
  EXPECT_TRUE(server.stub().List(&client, request, &response).ok());
  return {response.chunks().begin(), response.chunks().end()};
}

// Seconds from a chunk's creation to its expiry; none: it does not expire.
absl::optional<int64_t> TtlOf(const v1::StoredChunk& chunk) {
  if (!chunk.has_expires()) return absl::nullopt;
  return chunk.expires().seconds() - chunk.created().seconds();
}

grpc::Status Pin(TestServer& server, const std::vector<ChunkId>& ids, const std::string& owner,
                 int64_t seconds, v1::PinResponse* response) {
  grpc::ClientContext client;
  v1::PinRequest request;
  for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
  request.set_owner(owner);
  request.mutable_ttl()->set_seconds(seconds);
  return server.stub().Pin(&client, request, response);
}

grpc::Status Delete(TestServer& server, const std::vector<ChunkId>& ids, bool force,
                    v1::DeleteResponse* response) {
  grpc::ClientContext client;
  v1::DeleteRequest request;
  for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
  request.set_force(force);
  return server.stub().Delete(&client, request, response);
}

// All steps of a request; the sums, and how many steps it took.
struct Matched {
  grpc::Status status;
  uint64_t chunks = 0;
  uint64_t payload_bytes = 0;
  uint64_t pinned = 0;
  int steps = 0;
};
Matched DeleteMatching(TestServer& server, v1::DeleteMatchingRequest request) {
  Matched sum;
  do {
    grpc::ClientContext client;
    v1::DeleteMatchingResponse response;
    sum.status = server.stub().DeleteMatching(&client, request, &response);
    if (!sum.status.ok()) return sum;
    sum.chunks += response.chunks();
    sum.payload_bytes += response.payload_bytes();
    sum.pinned += response.chunks_pinned();
    ++sum.steps;
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  return sum;
}

v1::DeleteMatchingRequest ContextUpTo(const ChunkId& last) {
  v1::DeleteMatchingRequest request;
  request.set_context_end(IdBytes(last));
  return request;
}

TEST(TtlTest, AnUploadsChunksExpireWhenItSays) {
  TestServer server;
  v1::PutResponse put;
  ASSERT_TRUE(PutWithTtl(server, TestContext(), 3600, &put).ok());
  for (const v1::StoredChunk& chunk : List(server)) EXPECT_EQ(TtlOf(chunk), 3600);
  // Never shorter.
  ASSERT_TRUE(PutWithTtl(server, TestContext(), 60, &put).ok());
  EXPECT_EQ(put.chunks_existing(), 4);
  for (const v1::StoredChunk& chunk : List(server)) EXPECT_EQ(TtlOf(chunk), 3600);
  // Without the server's default none is for ever, which is longer.
  ASSERT_TRUE(PutWithTtl(server, TestContext(), 0, &put).ok());
  for (const v1::StoredChunk& chunk : List(server)) EXPECT_EQ(TtlOf(chunk), absl::nullopt);
}

TEST(TtlTest, TheServersDefaultIsForUploadsThatSayNothing) {
  ServerOptions options = TestServer::Options();
  options.default_ttl = absl::Hours(2);
  TestServer server(options);
  v1::PutResponse put;
  ASSERT_TRUE(PutWithTtl(server, TestContext(), 0, &put).ok());
  for (const v1::StoredChunk& chunk : List(server)) EXPECT_EQ(TtlOf(chunk), 7200);
}

TEST(TtlTest, RefusesTtlsOutOfRange) {
  TestServer server;
  v1::PutResponse put;
  for (const int64_t seconds : {int64_t{-1}, int64_t{4000000000}, INT64_MAX, INT64_MIN}) {
    const grpc::Status status = PutWithTtl(server, TestContext(), seconds, &put);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("ttl"));
  }
}

TEST(TtlTest, TheServerSweepsAndCounts) {
  ServerOptions options = TestServer::Options();
  options.expiry_interval = absl::Milliseconds(10);
  TestServer server(options);
  TestContext stays;
  stays.name = 'y';
  ASSERT_TRUE(server.PutContext(stays).ok());
  v1::PutResponse put;
  ASSERT_TRUE(server.PutProfile(TestContext().profile_bytes()).ok());
  std::vector<v1::PutRequest> messages = TestServer::PutMessages(TestContext());
  messages[0].mutable_start()->mutable_ttl()->set_nanos(1);
  ASSERT_TRUE(server.SendPut(messages, &put).ok());
  ASSERT_TRUE(Eventually([&] { return List(server).size() == 4; }));
  EXPECT_EQ(MetricValue(server.server().MetricsText(), "kvstream_store_expired_chunks_total"), 4);
}

TEST(TtlTest, ALoadKeepsWhatItUsesFromExpiring) {
  ServerOptions options = TestServer::Options();
  options.expiry_interval = absl::Milliseconds(10);
  TestServer server(options);
  const TestContext context;
  server.StoreContext(context);
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(StartOf(context)));
  ASSERT_TRUE(load.Receive().has_value());
  // As if their time had come meanwhile.
  ChunkStore& store = *server.server().environment().store;
  EXPECT_EQ(store.Expire(absl::InfiniteFuture(), 100).value_or(9), 0);
  load.Cancel();
  load.Finish();
}

TEST(RenewTest, ExtendsWhatIsStored) {
  TestServer server;
  const TestContext context;
  v1::PutResponse put;
  ASSERT_TRUE(PutWithTtl(server, context, 60, &put).ok());
  v1::RenewRequest request;
  request.add_chunk_ids(IdBytes(context.id(0)));
  request.add_chunk_ids(std::string(32, 'u'));
  request.mutable_ttl()->set_seconds(100000);
  v1::RenewResponse response;
  grpc::ClientContext client;
  ASSERT_TRUE(server.stub().Renew(&client, request, &response).ok());
  EXPECT_EQ(response.chunks(), 1);
  int longer = 0;
  for (const v1::StoredChunk& chunk : List(server)) longer += *TtlOf(chunk) >= 100000 ? 1 : 0;
  EXPECT_EQ(longer, 1);
}

TEST(PinTest, APinnedChunkIsOnlyDeletedByForce) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::PinResponse pinned;
  ASSERT_TRUE(
      Pin(server, {context.id(1), TestContext{'a', 'z'}.id(0)}, "job 7", 3600, &pinned).ok());
  EXPECT_EQ(pinned.chunks(), 1);
  v1::DeleteResponse deleted;
  const grpc::Status refused = Delete(server, context.ids(), false, &deleted);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("job 7"));
  EXPECT_THAT(refused.error_message(), HasSubstr(IdHex(context.id(1))));
  EXPECT_EQ(List(server).size(), 4) << "nothing was deleted";
  EXPECT_EQ(MetricValue(server.server().MetricsText(), "kvstream_store_pins"), 1);
  EXPECT_EQ(MetricValue(server.server().MetricsText(), "kvstream_store_pinned_bytes"), 7000);
  ASSERT_TRUE(Delete(server, context.ids(), true, &deleted).ok());
  EXPECT_EQ(deleted.chunks_deleted(), 4);
}

TEST(PinTest, PinsAreListedByOwnerAndEnded) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::PinResponse pinned;
  ASSERT_TRUE(Pin(server, context.ids(), "a", 3600, &pinned).ok());
  ASSERT_TRUE(Pin(server, {context.id(0)}, "b", 3600, &pinned).ok());
  const auto list = [&](const std::string& owner, uint32_t page) {
    std::vector<v1::ChunkPin> pins;
    v1::ListPinsRequest request;
    request.set_owner(owner);
    request.set_page_size(page);
    v1::ListPinsResponse response;
    do {
      grpc::ClientContext client;
      EXPECT_TRUE(server.stub().ListPins(&client, request, &response).ok());
      EXPECT_LE(response.pins_size(), static_cast<int>(page));
      pins.insert(pins.end(), response.pins().begin(), response.pins().end());
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return pins;
  };
  EXPECT_EQ(list("", 2).size(), 5);
  EXPECT_EQ(list("a", 3).size(), 4);
  ASSERT_EQ(list("b", 10).size(), 1);
  EXPECT_EQ(list("b", 10)[0].chunk_id(), IdBytes(context.id(0)));
  EXPECT_GT(list("b", 10)[0].until().seconds(), absl::ToUnixSeconds(absl::Now()));

  const auto unpin = [&](const std::string& owner, bool all) {
    grpc::ClientContext client;
    v1::UnpinRequest request;
    for (const ChunkId& id : context.ids()) request.add_chunk_ids(IdBytes(id));
    request.set_owner(owner);
    request.set_all_owners(all);
    v1::UnpinResponse response;
    const grpc::Status status = server.stub().Unpin(&client, request, &response);
    return status.ok() ? static_cast<int>(response.pins()) : -status.error_code();
  };
  EXPECT_EQ(unpin("", false), -grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(unpin("a", true), -grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(unpin("a", false), 4);
  EXPECT_EQ(unpin("", true), 1);
  EXPECT_TRUE(list("", 10).empty());
}

TEST(PinTest, RefusesWhatIsOutOfRange) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::PinResponse pinned;
  for (const grpc::Status& status :
       {Pin(server, context.ids(), "", 60, &pinned), Pin(server, context.ids(), "a", 0, &pinned),
        Pin(server, context.ids(), std::string(65, 'a'), 60, &pinned),
        Pin(server, context.ids(), "a", -5, &pinned)}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  }
  for (const size_t bytes : {1, 31, 97}) {
    grpc::ClientContext client;
    v1::ListPinsRequest request;
    request.set_page_token(std::string(bytes, 't'));
    v1::ListPinsResponse response;
    EXPECT_EQ(server.stub().ListPins(&client, request, &response).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST(DeleteMatchingTest, AContextGoesBackToWhereItIsShared) {
  TestServer server;
  TestContext context;
  context.chunks = 6;
  ASSERT_TRUE(server.PutContext(context).ok());
  // Another context branches off after chunk 2.
  ChunkStore& store = *server.server().environment().store;
  ChunkInfo info = *store.GetInfos({context.id(3)})->front();
  const ChunkId branch = TestContext{'a', 'b'}.id(3);
  const std::string bytes(7000, 'x');
  info.segment_bytes = {7000};
  ASSERT_TRUE(store.Put(branch, info, {bytes}).value_or(false));

  v1::DeleteMatchingRequest request = ContextUpTo(context.id(5));
  request.set_dry_run(true);
  Matched matched = DeleteMatching(server, request);
  ASSERT_TRUE(matched.status.ok()) << matched.status.error_message();
  EXPECT_EQ(matched.chunks, 3);
  EXPECT_EQ(matched.payload_bytes, 3 * 7000);
  EXPECT_EQ(List(server).size(), 7);
  EXPECT_EQ(DeleteMatching(server, ContextUpTo(context.id(2))).chunks, 0) << "others follow it";
  EXPECT_EQ(DeleteMatching(server, ContextUpTo(context.id(5))).chunks, 3);
  EXPECT_EQ(List(server).size(), 4);
  EXPECT_EQ(DeleteMatching(server, ContextUpTo(context.id(5))).chunks, 0) << "again is harmless";
  EXPECT_EQ(DeleteMatching(server, ContextUpTo(branch)).chunks, 4) << "nobody shares it any more";
  EXPECT_TRUE(List(server).empty());
}

TEST(DeleteMatchingTest, ALongContextGoesInSteps) {
  TestServer server;
  TestContext context;
  context.chunks = 600;
  context.segment_bytes = {50, 50, 50};
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::DeleteMatchingRequest request = ContextUpTo(context.id(599));
  request.set_dry_run(true);
  EXPECT_EQ(DeleteMatching(server, request).chunks, 600);
  const Matched matched = DeleteMatching(server, ContextUpTo(context.id(599)));
  EXPECT_EQ(matched.chunks, 600);
  EXPECT_EQ(matched.steps, 3);
  EXPECT_TRUE(List(server).empty());
}

TEST(DeleteMatchingTest, APinnedChunkKeepsWhatComesBeforeIt) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  v1::PinResponse pinned;
  ASSERT_TRUE(Pin(server, {context.id(1)}, "a", 3600, &pinned).ok());
  Matched matched = DeleteMatching(server, ContextUpTo(context.id(3)));
  EXPECT_EQ(matched.chunks, 2);
  EXPECT_EQ(matched.pinned, 1);
  v1::DeleteMatchingRequest request = ContextUpTo(context.id(1));
  request.set_force(true);
  EXPECT_EQ(DeleteMatching(server, request).chunks, 2);
}

TEST(DeleteMatchingTest, WhatALoadUsesIsHiddenAndGoesWithIt) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  ManualLoad load(server.stub());
  ASSERT_TRUE(load.SendStart(StartOf(context)));
  ASSERT_TRUE(load.Receive().has_value());
  EXPECT_EQ(DeleteMatching(server, ContextUpTo(context.id(3))).chunks, 4);
  EXPECT_TRUE(List(server).empty());
  EXPECT_EQ(server.server().environment().store->Stats()->chunks, 4);
  EXPECT_EQ(DeleteMatching(server, ContextUpTo(context.id(3))).chunks, 0);
  load.Cancel();
  load.Finish();
  ASSERT_TRUE(
      Eventually([&] { return server.server().environment().store->Stats()->chunks == 0; }));
}

TEST(DeleteMatchingTest, AModelGoesWhole) {
  TestServer server;
  TestContext context, other;
  other.name = 'o';
  for (const TestContext* of : {&context, &other}) {
    ASSERT_TRUE(server.PutProfile(of->profile_bytes()).ok());
    std::vector<v1::PutRequest> messages = TestServer::PutMessages(*of);
    messages[0].mutable_start()->set_model(of == &context ? "llama@1" : "llama@2");
    v1::PutResponse put;
    ASSERT_TRUE(server.SendPut(messages, &put).ok());
  }
  EXPECT_EQ(List(server, "llama@1").size(), 4);
  EXPECT_TRUE(List(server, "llama").empty());
  v1::PinResponse pinned;
  ASSERT_TRUE(Pin(server, {context.id(0)}, "a", 3600, &pinned).ok());
  v1::DeleteMatchingRequest request;
  request.set_model("llama@1");
  request.set_dry_run(true);
  Matched matched = DeleteMatching(server, request);
  EXPECT_EQ(matched.chunks, 3);
  EXPECT_EQ(matched.payload_bytes, 3 * 7000);
  EXPECT_EQ(matched.pinned, 1);
  request.set_dry_run(false);
  EXPECT_EQ(DeleteMatching(server, request).chunks, 3);
  EXPECT_EQ(List(server).size(), 5);
  request.set_force(true);
  EXPECT_EQ(DeleteMatching(server, request).chunks, 1);
  EXPECT_EQ(List(server, "llama@2").size(), 4);
}

TEST(DeleteMatchingTest, RefusesMalformedRequests) {
  TestServer server;
  v1::DeleteMatchingRequest nothing, short_id, bad_token = ContextUpTo(TestContext().id(0)), model;
  short_id.set_context_end("short");
  bad_token.set_page_token(std::string(32, 't'));
  model.set_model("m");
  model.set_page_token(std::string(64, 't'));
  for (const auto& request : {nothing, short_id, bad_token, model}) {
    EXPECT_EQ(DeleteMatching(server, request).status.error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
}

}  // namespace
}  // namespace kvstream

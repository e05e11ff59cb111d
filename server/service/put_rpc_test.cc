// Put, PutProfile and GetProfile over loopback.
#include "server/service/put_rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "absl/synchronization/notification.h"
#include "server/service/ids.h"
#include "server/service/testing/test_server.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;
using Messages = std::vector<v1::PutRequest>;

TEST(PutRpcTest, StoresChunksOnceAndReportsThem) {
  TestServer server;
  const TestContext context;
  v1::PutResponse response;
  ASSERT_TRUE(server.PutContext(context, &response).ok());
  EXPECT_EQ(response.chunks_stored(), 4u);
  EXPECT_EQ(response.chunks_existing(), 0u);
  EXPECT_EQ(response.bytes_stored(), context.bytes_at(2));
  v1::PutResponse again;
  ASSERT_TRUE(server.PutContext(context, &again).ok());
  EXPECT_EQ(again.chunks_stored(), 0u);
  EXPECT_EQ(again.chunks_existing(), 4u);
  EXPECT_EQ(again.bytes_stored(), 0u);
  const auto infos = server.server().environment().store->GetInfos(context.ids());
  ASSERT_TRUE(infos.ok());
  for (int i = 0; i < context.chunks; ++i) {
    const ChunkInfo& info = (*infos)[i].value();
    EXPECT_EQ(info.profile_id, context.profile_id());
    EXPECT_EQ(info.model, "test model");
    EXPECT_EQ(info.first_token, static_cast<uint64_t>(i) * context.tokens);
    EXPECT_EQ(info.parent.has_value(), i > 0);
  }
  EXPECT_EQ(MetricValue(server.server().MetricsText(), "kvstream_put_bytes_total"),
            static_cast<double>(context.bytes_at(2)));
}

TEST(PutRpcTest, SegmentsLargerThanAMessageArriveInPieces) {
  TestServer server;
  TestContext context;
  context.chunks = 2;
  context.segment_bytes = {3 << 20, 100, (1 << 20) + 1};
  ASSERT_TRUE(server.PutContext(context).ok());
  const auto pinned = server.server().environment().store->ReadSegment(context.id(1), 0);
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(std::string(pinned->bytes()), context.segment(1, 0));
}

TEST(PutRpcTest, AnEmptyUploadStoresNothing) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutProfile(context.profile_bytes()).ok());
  v1::PutResponse response;
  Messages messages = TestServer::PutMessages(context);
  messages.resize(1);
  EXPECT_TRUE(server.SendPut(messages, &response).ok());
  EXPECT_EQ(response.chunks_stored(), 0u);
}

struct BadUpload {
  const char* name;
  std::function<void(Messages&)> change;
  grpc::StatusCode code;
  std::string message;
};

// Messages: 0 start, 1 chunk 0, 2..4 its segments, 5 chunk 1, ...
TEST(PutRpcTest, HostileUploadsAreRefusedByNameAndLeaveNothing) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutProfile(context.profile_bytes()).ok());
  constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  constexpr auto kDataLoss = grpc::StatusCode::DATA_LOSS;
  const std::vector<BadUpload> cases = {
      {"nothing", [](auto& m) { m.clear(); }, kInvalid, "before its start"},
      {"no start", [](auto& m) { m.erase(m.begin()); }, kInvalid, "before the start"},
      {"two starts", [](auto& m) { m.insert(m.begin(), m[0]); }, kInvalid, "second start"},
      {"empty message", [](auto& m) { m[1].Clear(); }, kInvalid, "empty"},
      {"short profile id", [](auto& m) { m[0].mutable_start()->set_profile_id("p"); }, kInvalid,
       "profile_id"},
      {"unknown profile",
       [](auto& m) { m[0].mutable_start()->set_profile_id(std::string(32, 'u')); },
       grpc::StatusCode::NOT_FOUND, "PutProfile"},
      {"long model", [](auto& m) { m[0].mutable_start()->set_model(std::string(513, 'm')); },
       kInvalid, "model has 513"},
      {"long chunk id", [](auto& m) { m[1].mutable_chunk()->mutable_chunk_id()->append("x"); },
       kInvalid, "chunk_id has 33"},
      {"short parent", [](auto& m) { m[5].mutable_chunk()->set_parent_id("p"); }, kInvalid,
       "parent_id"},
      {"first chunk with parent",
       [](auto& m) { m[1].mutable_chunk()->set_parent_id(std::string(32, 'p')); }, kInvalid,
       "first_token 0"},
      {"later chunk without parent", [](auto& m) { m[1].mutable_chunk()->set_first_token(16); },
       kInvalid, "parent_id"},
      {"far first token", [](auto& m) { m[5].mutable_chunk()->set_first_token(~uint64_t{0}); },
       kInvalid, "first_token"},
      {"no tokens", [](auto& m) { m[1].mutable_chunk()->set_tokens(0); }, kInvalid, "0 tokens"},
      {"too many tokens", [](auto& m) { m[1].mutable_chunk()->set_tokens(17); }, kInvalid,
       "17 tokens"},
      {"too few segments",
       [](auto& m) { m[1].mutable_chunk()->mutable_segment_bytes()->RemoveLast(); }, kInvalid,
       "2 segments"},
      {"too many segments", [](auto& m) { m[1].mutable_chunk()->add_segment_bytes(1); }, kInvalid,
       "4 segments"},
      {"empty segment", [](auto& m) { m[1].mutable_chunk()->set_segment_bytes(1, 0); }, kInvalid,
       "0 bytes"},
      {"huge segment", [](auto& m) { m[1].mutable_chunk()->set_segment_bytes(1, ~uint64_t{0}); },
       kInvalid, "--max-chunk-bytes"},
      {"sum that overflows",
       [](auto& m) {
         for (int i = 0; i < 3; ++i) {
           m[1].mutable_chunk()->set_segment_bytes(i, uint64_t{1} << 63);
         }
       },
       kInvalid, "--max-chunk-bytes"},
      {"data before chunk", [](auto& m) { m.erase(m.begin() + 1); }, kInvalid, "before the chunk"},
      {"chunk amid chunk", [](auto& m) { m.erase(m.begin() + 3, m.begin() + 5); }, kInvalid,
       "amid chunk"},
      {"end amid chunk", [](auto& m) { m.resize(4); }, kInvalid, "ended amid"},
      {"levels swapped", [](auto& m) { std::swap(m[2], m[3]); }, kInvalid, "was due"},
      {"offset with a gap", [](auto& m) { m[2].mutable_data()->set_offset(1); }, kInvalid,
       "was due"},
      {"too long data", [](auto& m) { m[2].mutable_data()->mutable_data()->append("x"); }, kInvalid,
       "1001 bytes"},
      {"empty data", [](auto& m) { m[2].mutable_data()->clear_data(); }, kInvalid, "0 bytes"},
      {"flipped bit", [](auto& m) { (*m[3].mutable_data()->mutable_data())[777] ^= 4; }, kDataLoss,
       "level 1"},
      {"segment of another level",
       [&](auto& m) { m[2].mutable_data()->set_data(FakeSegment('a', 1, 16, 0, 1000)); }, kInvalid,
       "says level 1"},
      {"segment of another length",
       [&](auto& m) { m[2].mutable_data()->set_data(FakeSegment('a', 0, 15, 0, 1000)); }, kInvalid,
       "says tokens 15"},
      {"segment of another place",
       [&](auto& m) { m[2].mutable_data()->set_data(FakeSegment('a', 0, 16, 16, 1000)); }, kInvalid,
       "says first position 16"},
      {"segment of another profile",
       [&](auto& m) { m[2].mutable_data()->set_data(FakeSegment('b', 0, 16, 0, 1000)); },
       grpc::StatusCode::FAILED_PRECONDITION, "chunk 78"},
      {"data larger than a message may be",
       [](auto& m) {
         m[1].mutable_chunk()->set_segment_bytes(0, 3 << 20);
         m[2].mutable_data()->set_data(std::string((1 << 20) + 1, 'd'));
       },
       kInvalid, "1048576"},
  };
  for (const BadUpload& bad : cases) {
    TestContext fresh = context;
    Messages messages = TestServer::PutMessages(fresh);
    bad.change(messages);
    v1::PutResponse response;
    const grpc::Status status = server.SendPut(messages, &response);
    EXPECT_EQ(status.error_code(), bad.code) << bad.name << ": " << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(bad.message)) << bad.name;
    // Chunks before the bad message may be stored; chunk 0 of these never is unless the fault comes
    // after it.
    const RpcEnvironment& environment = server.server().environment();
    const auto ids = context.ids();
    ASSERT_TRUE(environment.store->Delete(ids).ok());
    EXPECT_TRUE(Eventually([&] { return environment.upload_bytes->used() == 0; })) << bad.name;
  }
}

TEST(PutRpcTest, WhatWasCompleteBeforeAnErrorStaysWholeAndTheRestIsAbsent) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutProfile(context.profile_bytes()).ok());
  Messages messages = TestServer::PutMessages(context);
  (*messages[7].mutable_data()->mutable_data())[500] ^= 1;  // chunk 1, level 1
  v1::PutResponse response;
  EXPECT_EQ(server.SendPut(messages, &response).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(*server.server().environment().store->LongestPrefix(context.ids()), 1u);
  EXPECT_EQ(server.server().environment().store->Stats()->chunks, 1u);
}

TEST(PutRpcTest, AChunkOfAnotherProfileIsNotOverwritten) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());
  TestContext other = context;
  other.profile_name = 'b';
  const grpc::Status status = server.PutContext(other);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST(PutRpcTest, UploadsTogetherStayWithinTheBufferAndGiveItBack) {
  ServerOptions options = TestServer::Options();
  options.max_chunk_bytes = 10000;
  options.put_buffer_bytes = 10000;
  TestServer server(options);
  TestContext context;  // 7,000 bytes a chunk
  ASSERT_TRUE(server.PutProfile(context.profile_bytes()).ok());
  const Messages messages = TestServer::PutMessages(context);
  grpc::ClientContext client;
  v1::PutResponse ignored;
  auto first = server.stub().Put(&client, &ignored);
  ASSERT_TRUE(first->Write(messages[0]));
  ASSERT_TRUE(first->Write(messages[1]));
  const RpcEnvironment& environment = server.server().environment();
  ASSERT_TRUE(Eventually([&] { return environment.upload_bytes->used() == 7000; }));
  TestContext other = context;
  other.name = 'y';
  v1::PutResponse response;
  const grpc::Status refused = server.SendPut(TestServer::PutMessages(other), &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("--put-buffer-bytes"));
  EXPECT_EQ(MetricValue(server.server().MetricsText(), "kvstream_put_buffer_bytes"), 7000);
  client.TryCancel();
  first->Finish();
  EXPECT_TRUE(Eventually([&] { return environment.upload_bytes->used() == 0; }));
  EXPECT_TRUE(server.SendPut(TestServer::PutMessages(other), &response).ok());
}

TEST(PutRpcTest, AClientThatStallsLosesItsUploadAndItsBuffer) {
  ServerOptions options = TestServer::Options();
  options.client_idle_timeout = absl::Milliseconds(50);
  TestServer server(options);
  const TestContext context;
  server.StoreContext(context);
  grpc::ClientContext client;
  v1::PutResponse ignored;
  auto writer = server.stub().Put(&client, &ignored);
  const Messages messages = TestServer::PutMessages(context);
  writer->Write(messages[0]);
  writer->Write(messages[1]);
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Eventually([&] { return server.server().environment().upload_bytes->used() == 0; }));
}

TEST(PutRpcTest, UploadsBeyondTheLimitAreRefused) {
  ServerOptions options = TestServer::Options();
  options.max_puts = 1;
  TestServer server(options);
  const TestContext context;
  ASSERT_TRUE(server.PutContext(context).ok());  // two uploads, one after the other
  const RpcEnvironment& environment = server.server().environment();
  grpc::ClientContext client;
  v1::PutResponse ignored;
  auto writer = server.stub().Put(&client, &ignored);
  writer->Write(TestServer::PutMessages(context)[0]);
  ASSERT_TRUE(Eventually([&] { return environment.puts->in_flight() == 1; }));
  v1::PutResponse response;
  EXPECT_EQ(server.SendPut(TestServer::PutMessages(context), &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  writer->WritesDone();
  EXPECT_TRUE(writer->Finish().ok());
}

TEST(PutRpcTest, AFullStoreIsReportedToTheClient) {
  TestServer server;
  const TestContext context;
  server.faults().OnPut([](const ChunkId&) { return absl::ResourceExhaustedError("disk full"); });
  const grpc::Status status = server.PutContext(context);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("disk full"));
}

TEST(PutRpcTest, AClientThatVanishesWhileItsChunkIsWrittenLeavesAWholeChunkOrNone) {
  TestServer server;
  const TestContext context;
  ASSERT_TRUE(server.PutProfile(context.profile_bytes()).ok());
  absl::Notification writing, gone;
  server.faults().OnPut([&](const ChunkId& id) {
    if (id == context.id(0)) {
      writing.Notify();
      gone.WaitForNotification();
    }
    return absl::OkStatus();
  });
  grpc::ClientContext client;
  v1::PutResponse response;
  auto writer = server.stub().Put(&client, &response);
  for (const v1::PutRequest& message : TestServer::PutMessages(context)) writer->Write(message);
  writing.WaitForNotification();
  client.TryCancel();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  gone.Notify();
  const RpcEnvironment& environment = server.server().environment();
  EXPECT_TRUE(Eventually([&] { return environment.puts->in_flight() == 0; }));
  const auto infos = environment.store->GetInfos(context.ids());
  ASSERT_TRUE(infos.ok());
  EXPECT_TRUE((*infos)[0].has_value());
  for (uint32_t level = 0; level < 3; ++level) {
    EXPECT_TRUE(environment.store->ReadSegment(context.id(0), level).ok());
  }
}

TEST(PutRpcTest, ManyUploadsOfTheSameChunksStoreThemOnce) {
  TestServer server;
  TestContext context;
  context.chunks = 20;
  ASSERT_TRUE(server.PutProfile(context.profile_bytes()).ok());
  std::vector<std::thread> threads;
  std::atomic<uint64_t> stored{0};
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      v1::PutResponse response;
      EXPECT_TRUE(server.SendPut(TestServer::PutMessages(context), &response).ok());
      stored += response.chunks_stored();
      EXPECT_EQ(response.chunks_stored() + response.chunks_existing(), 20u);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(stored, 20u);
}

std::string GetProfile(v1::KVStream::Stub& stub, const std::string& id, grpc::Status* status) {
  grpc::ClientContext client;
  v1::GetProfileRequest request;
  request.set_profile_id(id);
  auto reader = stub.GetProfile(&client, request);
  std::string bytes;
  v1::GetProfileResponse response;
  while (reader->Read(&response)) {
    EXPECT_LE(response.data().size(), size_t{1} << 20);
    bytes += response.data();
  }
  *status = reader->Finish();
  return bytes;
}

TEST(ProfileRpcTest, AProfileComesBackAsItWent) {
  TestServer server;
  const std::string bytes = FakeProfileBytes(3, 16) + "#" + std::string((3 << 20) + 17, 'p');
  v1::PutProfileResponse response;
  ASSERT_TRUE(server.PutProfile(bytes, &response).ok());
  EXPECT_TRUE(response.created());
  EXPECT_EQ(response.profile_id(), IdBytes(FakeProfileId(bytes)));
  grpc::Status status;
  EXPECT_EQ(GetProfile(server.stub(), response.profile_id(), &status), bytes);
  EXPECT_TRUE(status.ok());
  ASSERT_TRUE(server.PutProfile(bytes, &response).ok());
  EXPECT_FALSE(response.created());
}

TEST(ProfileRpcTest, BadProfilesAndIdsAreRefused) {
  ServerOptions options = TestServer::Options();
  options.max_profile_bytes = 1000;
  TestServer server(options);
  EXPECT_EQ(server.PutProfile("garbage").error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(server.PutProfile("").error_code(), grpc::StatusCode::DATA_LOSS);
  const grpc::Status large = server.PutProfile(std::string(1001, 'x'));
  EXPECT_EQ(large.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(large.error_message(), HasSubstr("--max-profile-bytes"));
  grpc::Status status;
  GetProfile(server.stub(), "short", &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  GetProfile(server.stub(), std::string(32, 'u'), &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(Eventually([&] { return server.server().environment().upload_bytes->used() == 0; }));
}

TEST(ProfileRpcTest, AProfileUploadThatIsCancelledIsNotStored) {
  TestServer server;
  grpc::ClientContext client;
  v1::PutProfileResponse ignored;
  auto writer = server.stub().PutProfile(&client, &ignored);
  v1::PutProfileRequest request;
  request.set_data(FakeProfileBytes(3, 16));  // complete, but never half-closed
  writer->Write(request);
  ASSERT_TRUE(Eventually([&] { return server.server().environment().upload_bytes->used() > 0; }));
  client.TryCancel();
  writer->Finish();
  EXPECT_TRUE(Eventually([&] { return server.server().environment().puts->in_flight() == 0; }));
  EXPECT_TRUE(server.server().environment().store->ListProfiles()->empty());
}

TEST(ProfileRpcTest, AClientThatTakesNothingIsCutOff) {
  ServerOptions options = TestServer::Options();
  options.client_idle_timeout = absl::Milliseconds(50);
  TestServer server(options);
  const std::string bytes = FakeProfileBytes(3, 16) + "#" + std::string(32 << 20, 'p');
  ASSERT_TRUE(server.server().environment().profiles->Put(bytes).ok());
  auto stub = v1::KVStream::NewStub(server.NewChannel());
  grpc::ClientContext client;
  v1::GetProfileRequest request;
  request.set_profile_id(IdBytes(FakeProfileId(bytes)));
  auto reader = stub->GetProfile(&client, request);
  const RpcEnvironment& environment = server.server().environment();
  EXPECT_TRUE(Eventually([&] { return environment.requests->in_flight() == 1; }));
  EXPECT_TRUE(Eventually([&] { return environment.requests->in_flight() == 0; }));
  v1::GetProfileResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace kvstream

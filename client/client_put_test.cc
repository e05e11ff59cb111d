// Client::Put, Lookup and the profile calls against a server in memory that records what it gets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "client/client.h"
#include "client/put_rpc.h"
#include "client/testing/scripted_server.h"
#include "client/testing/synthetic_context.h"

namespace kvstream {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string AsBytes(const std::array<uint8_t, 32>& id) { return std::string(id.begin(), id.end()); }

// What a server keeps of a stored chunk.
struct Stored {
  v1::PutChunk header;
  std::vector<std::string> segments;
};

class ClientPutTest : public testing::Test {
 protected:
  void SetUp() override {
    Client::Options options;
    options.server = server_.address();
    options.rpc_timeout = absl::Seconds(20);
    options.encode_threads = 2;
    Connect(options);
    ScriptedService& service = server_.service();
    service.put = [this](grpc::ServerReader<v1::PutRequest>* reader, v1::PutResponse* response) {
      return Put(reader, response);
    };
    service.put_profile = [this](grpc::ServerReader<v1::PutProfileRequest>* reader,
                                 v1::PutProfileResponse* response) {
      std::string bytes;
      v1::PutProfileRequest request;
      while (reader->Read(&request)) {
        EXPECT_LE(request.data().size(), 1 << 20);
        bytes += request.data();
      }
      const auto profile = Profile::Parse(bytes);
      if (!profile.ok()) return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no profile");
      response->set_profile_id(AsBytes((*profile)->id()));
      response->set_created(profiles_.emplace(AsBytes((*profile)->id()), bytes).second);
      return grpc::Status::OK;
    };
    service.lookup = [this](const v1::LookupRequest& request, v1::LookupResponse* response) {
      lookup_sizes_.push_back(request.chunk_ids_size());
      if (refuse_unknown_profile_ && profiles_.count(request.profile_id()) == 0) {
        return grpc::Status(grpc::StatusCode::NOT_FOUND, "profile");
      }
      for (const std::string& id : request.chunk_ids()) {
        const auto found = chunks_.find(id);
        if (found == chunks_.end()) break;
        response->set_matched_chunks(response->matched_chunks() + 1);
        response->set_matched_tokens(response->matched_tokens() + found->second.header.tokens());
      }
      for (int level = 0; level < 4; ++level) response->add_level_bytes(10 * (level + 1));
      return grpc::Status::OK;
    };
    service.stats = [this](const v1::StatsRequest&, v1::StatsResponse* response) {
      for (const auto& [id, bytes] : profiles_) response->add_profile_ids(id);
      return grpc::Status::OK;
    };
  }

  void Connect(const Client::Options& options) {
    absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  grpc::Status Put(grpc::ServerReader<v1::PutRequest>* reader, v1::PutResponse* response) {
    if (put_calls_++ == failing_put_) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "the disk is full"};
    }
    v1::PutRequest request;
    if (!reader->Read(&request)) return grpc::Status::CANCELLED;  // the client gave up
    EXPECT_TRUE(request.has_start());
    model_ = request.start().model();
    if (profiles_.count(request.start().profile_id()) == 0) {
      return {grpc::StatusCode::NOT_FOUND, "profile"};
    }
    std::vector<Stored> chunks;
    while (reader->Read(&request)) {
      if (request.has_chunk()) {
        chunks.push_back({request.chunk(), std::vector<std::string>(4)});
        continue;
      }
      EXPECT_TRUE(request.has_data());
      if (!request.has_data() || chunks.empty() || request.data().level() >= 4) continue;
      std::string& segment = chunks.back().segments[request.data().level()];
      EXPECT_EQ(segment.size(), request.data().offset());
      EXPECT_LE(request.data().data().size(), 1 << 20);
      segment += request.data().data();
    }
    chunks_per_call_.push_back(static_cast<int>(chunks.size()));
    for (Stored& chunk : chunks) {
      const std::string id = chunk.header.chunk_id();
      for (int level = 0; level < 4; ++level) {
        if (chunk.segments[level].size() != chunk.header.segment_bytes(level)) {
          return {grpc::StatusCode::CANCELLED, "the stream broke off amid a chunk"};
        }
        response->set_bytes_stored(response->bytes_stored() + chunk.segments[level].size());
      }
      const bool created = chunks_.emplace(id, std::move(chunk)).second;
      response->set_chunks_stored(response->chunks_stored() + created);
      response->set_chunks_existing(response->chunks_existing() + !created);
    }
    return grpc::Status::OK;
  }

  absl::StatusOr<PutResult> PutContext(const SyntheticContext& context,
                                       const std::function<void(int64_t)>& progress = nullptr) {
    return client_->Put(context.profile, context.identity, context.tokens, context.kv.view(),
                        progress);
  }

  std::map<std::string, std::string> profiles_;
  std::map<std::string, Stored> chunks_;
  std::string model_;
  std::vector<int> lookup_sizes_;
  std::vector<int> chunks_per_call_;
  bool refuse_unknown_profile_ = false;
  int put_calls_ = 0;
  int failing_put_ = -1;
  // Last, so that it is gone first: its handlers, of which a cancelled call leaves one running, use
  // what stands above.
  ScriptedServer server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientPutTest, StoresTheProfileAndEveryChunkAsEncoded) {
  SyntheticContext context(40);
  context.identity.adapter = "lora";
  context.chunk_ids = ContextChunkIds(context.identity, context.profile->id(), 16, context.tokens);
  for (const bool refuse : {false, true}) {
    refuse_unknown_profile_ = refuse;
    chunks_.clear();
    profiles_.clear();
    std::vector<int64_t> progress;
    const absl::StatusOr<PutResult> result =
        PutContext(context, [&progress](int64_t tokens) { progress.push_back(tokens); });
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->chunks_stored, 3);
    EXPECT_EQ(result->chunks_existing, 0);
    EXPECT_THAT(progress, ElementsAre(0, 40));
    EXPECT_EQ(model_, "synthetic@1+lora");
    EXPECT_EQ(profiles_[AsBytes(context.profile->id())], context.profile->serialized());

    const std::vector<EncodedChunk> encoded = context.Encode();
    ASSERT_EQ(chunks_.size(), 3);
    uint64_t bytes = 0;
    for (uint32_t chunk = 0; chunk < 3; ++chunk) {
      const Stored& stored = chunks_.at(AsBytes(context.chunk_ids[chunk]));
      EXPECT_EQ(stored.segments, encoded[chunk].segments);
      EXPECT_EQ(stored.header.parent_id(), chunk == 0 ? "" : AsBytes(context.chunk_ids[chunk - 1]));
      EXPECT_EQ(stored.header.first_token(), 16 * chunk);
      EXPECT_EQ(stored.header.tokens(), chunk == 2 ? 8 : 16);
      for (const std::string& segment : stored.segments) bytes += segment.size();
    }
    EXPECT_EQ(result->bytes_stored, bytes);
  }
}

TEST_F(ClientPutTest, LeavesOutWhatTheServerHas) {
  const SyntheticContext context(40);
  ASSERT_TRUE(PutContext(context).ok());
  const int calls = put_calls_;
  absl::StatusOr<PutResult> again = PutContext(context);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->chunks_stored, 0);
  EXPECT_EQ(again->chunks_existing, 3);
  EXPECT_EQ(again->bytes_stored, 0);
  EXPECT_EQ(put_calls_, calls) << "nothing to send";

  chunks_.erase(AsBytes(context.chunk_ids[2]));
  again = PutContext(context);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->chunks_stored, 1);
  EXPECT_EQ(again->chunks_existing, 2);
  EXPECT_EQ(chunks_per_call_.back(), 1) << "the stored prefix is not sent";

  chunks_.erase(AsBytes(context.chunk_ids[1]));
  again = PutContext(context);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->chunks_stored, 1);
  EXPECT_EQ(again->chunks_existing, 2);
}

TEST_F(ClientPutTest, SendsALongContextInDurableSteps) {
  const SyntheticContext context(16 * 70);
  std::vector<int64_t> progress;
  const absl::StatusOr<PutResult> result =
      PutContext(context, [&progress](int64_t tokens) { progress.push_back(tokens); });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->chunks_stored, 70);
  EXPECT_THAT(chunks_per_call_, ElementsAre(32, 32, 6));
  EXPECT_THAT(progress, ElementsAre(0, 512, 1024, 1120));
}

TEST_F(ClientPutTest, AnErrorKeepsWhatWasAcknowledgedAndTheNextPutGoesOn) {
  const SyntheticContext context(16 * 40);
  failing_put_ = 1;
  const absl::StatusOr<PutResult> failed = PutContext(context);
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kResourceExhausted) << failed.status();
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("the disk is full"));
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("32 of 40 chunks were stored"));
  EXPECT_EQ(chunks_.size(), 32);
  const absl::StatusOr<PutResult> rest = PutContext(context);
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_EQ(rest->chunks_stored, 8);
  EXPECT_EQ(rest->chunks_existing, 32);
}

TEST_F(ClientPutTest, KvThatIsNotFiniteIsRefusedNamingTheChunk) {
  SyntheticContext context(40);
  context.kv.mutable_view().keys[1].at(20, 0)[3] = 0x7e00;  // NaN
  const absl::StatusOr<PutResult> result = PutContext(context);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("encoding chunk 1"));
  // Chunk 0 was on its way; whether it is stored, whole, is the server's affair.
}

TEST_F(ClientPutTest, KvOfAnotherLengthThanTheTokensIsRefused) {
  const SyntheticContext context(40);
  const absl::StatusOr<PutResult> result =
      client_->Put(context.profile, context.identity, absl::MakeConstSpan(context.tokens).first(39),
                   context.kv.view());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientPutTest, AServerThatNeverAcknowledgesIsDeadlineExceeded) {
  Client::Options options;
  options.server = server_.address();
  options.rpc_timeout = absl::Seconds(1);
  Connect(options);
  // The handler may begin when this body is over.
  const auto give_up = std::make_shared<absl::Notification>();
  server_.service().put = [give_up](grpc::ServerReader<v1::PutRequest>*, v1::PutResponse*) {
    give_up->WaitForNotification();
    return grpc::Status::OK;
  };
  const SyntheticContext context(40);
  const absl::StatusOr<PutResult> result = PutContext(context);
  give_up->Notify();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("no progress for 1s"));
}

TEST_F(ClientPutTest, AnAcknowledgementOfOtherChunksThanWereSentIsAnError) {
  server_.service().put = [](grpc::ServerReader<v1::PutRequest>* reader,
                             v1::PutResponse* response) {
    v1::PutRequest request;
    while (reader->Read(&request)) {
    }
    response->set_chunks_stored(2);
    return grpc::Status::OK;
  };
  const SyntheticContext context(40);
  EXPECT_EQ(PutContext(context).status().code(), absl::StatusCode::kInternal);
}

// ------------------------------------------------------------------ lookup

TEST_F(ClientPutTest, LookupFindsThePrefixAndTreatsAnUnknownProfileAsNoMatch) {
  const SyntheticContext context(40);
  refuse_unknown_profile_ = true;
  absl::StatusOr<LookupResult> result =
      client_->Lookup(*context.profile, context.identity, context.tokens);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->matched_chunks, 0);
  EXPECT_THAT(result->level_bytes, ElementsAre(0, 0, 0, 0));
  ASSERT_TRUE(PutContext(context).ok());
  result = client_->Lookup(*context.profile, context.identity, context.tokens);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->matched_chunks, 3);
  EXPECT_EQ(result->matched_tokens, 40);
  EXPECT_THAT(result->level_bytes, ElementsAre(10, 20, 30, 40));
  std::vector<int32_t> other = context.tokens;
  other[20] += 1;
  result = client_->Lookup(*context.profile, context.identity, other);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->matched_tokens, 16);
}

TEST_F(ClientPutTest, LookupOfAVeryLongChainAsksInPartsTheProtocolAllows) {
  const SyntheticContext context(16);
  server_.service().lookup = [this](const v1::LookupRequest& request,
                                    v1::LookupResponse* response) {
    lookup_sizes_.push_back(request.chunk_ids_size());
    response->set_matched_chunks(static_cast<uint32_t>(request.chunk_ids_size()));
    response->set_matched_tokens(request.context_tokens());
    return grpc::Status::OK;
  };
  const std::vector<int32_t> tokens(16 * 65536 + 5, 7);
  const absl::StatusOr<LookupResult> result =
      client_->Lookup(*context.profile, context.identity, tokens);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(lookup_sizes_, ElementsAre(65536, 1));
  EXPECT_EQ(result->matched_chunks, 65537);
  EXPECT_EQ(result->matched_tokens, tokens.size());
}

TEST_F(ClientPutTest, ALookupThatMatchesMoreThanWasAskedIsAnError) {
  const SyntheticContext context(40);
  server_.service().lookup = [](const v1::LookupRequest&, v1::LookupResponse* response) {
    response->set_matched_chunks(4);
    return grpc::Status::OK;
  };
  EXPECT_EQ(client_->Lookup(*context.profile, context.identity, context.tokens).status().code(),
            absl::StatusCode::kInternal);
}

// ------------------------------------------------------------------ profiles

TEST_F(ClientPutTest, AProfileComesBackAsItWasStored) {
  const SyntheticContext context(40);
  ASSERT_TRUE(client_->PutProfile(*context.profile).ok());
  server_.service().get_profile = [this](const v1::GetProfileRequest& request,
                                         grpc::ServerWriter<v1::GetProfileResponse>* writer) {
    const std::string& bytes = profiles_.at(request.profile_id());
    for (size_t offset = 0; offset < bytes.size(); offset += 1000) {
      v1::GetProfileResponse response;
      response.set_data(bytes.substr(offset, 1000));
      writer->Write(response);
    }
    return grpc::Status::OK;
  };
  const auto profile = client_->GetProfile(context.profile->id());
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ((*profile)->serialized(), context.profile->serialized());
}

TEST_F(ClientPutTest, AProfileThatIsNotTheOneAskedForIsDataLoss) {
  const SyntheticContext context(40), other(40, 2);
  server_.service().get_profile = [&other](const v1::GetProfileRequest&,
                                           grpc::ServerWriter<v1::GetProfileResponse>* writer) {
    v1::GetProfileResponse response;
    response.set_data(other.profile->serialized());
    writer->Write(response);
    return grpc::Status::OK;
  };
  const auto profile = client_->GetProfile(context.profile->id());
  EXPECT_EQ(profile.status().code(), absl::StatusCode::kDataLoss) << profile.status();
}

TEST(ModelLabelTest, IsPrintableAndBounded) {
  EXPECT_EQ(ModelLabel({"m@1", "", "secret", {}}), "m@1");
  EXPECT_EQ(ModelLabel({"m@1", "a", "", {}}), "m@1+a");
  EXPECT_EQ(ModelLabel({"\xff\n", "", "", {}}), "\\xff\\n");
  EXPECT_EQ(ModelLabel({std::string(600, 'x'), "", "", {}}).size(), 512);
}

}  // namespace
}  // namespace kvstream

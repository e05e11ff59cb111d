// Client::PutFromDevice against a scripted server: the kernels' code runs on the host, on host
// memory that plays the device's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/client.h"
#include "client/client_factory.h"
#include "client/cuda_chunk_decoder.h"
#include "client/device_encode.h"
#include "client/testing/fake_device.h"
#include "client/testing/scripted_server.h"
#include "client/testing/synthetic_context.h"
#include "codec/cuda/testing/host_device.h"

namespace kvstream {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kTokens = 7 * 16 + 3;

class ClientDevicePutTest : public testing::Test {
 protected:
  ClientDevicePutTest() : context_(kTokens), memory_(context_.kv) {}

  void SetUp() override {
    Client::Options options;
    options.server = server_.address();
    options.rpc_timeout = absl::Seconds(20);
    const auto encoders = [this](std::shared_ptr<const Profile> profile,
                                 int device_ordinal) -> absl::StatusOr<DeviceEncodeFn> {
      ordinals_.push_back(device_ordinal);
      if (!create_status_.ok()) return create_status_;
      auto encoder = CreateHostDeviceEncoder(std::move(profile));
      if (!encoder.ok()) return encoder.status();
      return [this, encode = WrapDeviceEncoder(*std::move(encoder))](
                 const DeviceKv& kv, int64_t tokens, int64_t first_position, void* stream) {
        EXPECT_EQ(stream, &stream_);
        calls_.emplace_back(first_position, tokens);
        if (first_position == fails_at_) {
          return absl::StatusOr<std::vector<EncodedChunk>>(absl::InternalError("CUDA failed"));
        }
        return encode(kv, tokens, first_position, stream);
      };
    };
    client_ = *CreateClient(options, CreateCudaChunkDecoder, encoders);
    ScriptedService& service = server_.service();
    service.lookup = [this](const v1::LookupRequest& request, v1::LookupResponse* response) {
      ++lookups_;
      for (const std::string& id : request.chunk_ids()) {
        if (stored_.count(id) == 0) break;
        response->set_matched_chunks(response->matched_chunks() + 1);
      }
      return grpc::Status::OK;
    };
    service.stats = [this](const v1::StatsRequest&, v1::StatsResponse* response) {
      response->add_profile_ids(
          std::string(context_.profile->id().begin(), context_.profile->id().end()));
      return grpc::Status::OK;
    };
    service.put = [this](grpc::ServerReader<v1::PutRequest>* reader, v1::PutResponse* response) {
      v1::PutRequest request;
      std::vector<std::string>* segments = nullptr;
      while (reader->Read(&request)) {
        if (request.has_chunk()) {
          segments = &stored_[request.chunk().chunk_id()];
          segments->assign(4, "");
          response->set_chunks_stored(response->chunks_stored() + 1);
        } else if (request.has_data() && segments != nullptr) {
          (*segments)[request.data().level()] += request.data().data();
        }
      }
      return grpc::Status::OK;
    };
  }

  DeviceTarget Source() {
    DeviceTarget source;
    source.kv = DeviceViewOf(&memory_, context_.profile->geometry(), kTokens);
    source.stream = &stream_;
    return source;
  }
  absl::StatusOr<PutResult> Put(const DeviceTarget& source,
                                const std::function<void(int64_t)>& progress = nullptr) {
    return client_->PutFromDevice(context_.profile, context_.identity, context_.tokens, source,
                                  progress);
  }
  // What is stored must be chunk after chunk what an encoder on the device makes of the context.
  void ExpectStored() {
    const auto encoder = *CreateHostDeviceEncoder(context_.profile);
    const auto expected =
        *encoder->Encode(DeviceViewOf(&memory_, context_.profile->geometry(), kTokens), 0, nullptr);
    ASSERT_EQ(expected.size(), context_.chunk_ids.size());
    for (size_t chunk = 0; chunk < expected.size(); ++chunk) {
      const ChunkId& id = context_.chunk_ids[chunk];
      EXPECT_EQ(stored_[std::string(id.begin(), id.end())], expected[chunk].segments) << chunk;
    }
  }

  const SyntheticContext context_;
  KvBlock memory_;
  int stream_ = 0;
  ScriptedServer server_;
  std::unique_ptr<Client> client_;
  absl::Status create_status_;
  int64_t fails_at_ = -1;
  std::vector<int> ordinals_;
  std::vector<std::pair<int64_t, int64_t>> calls_;
  int lookups_ = 0;
  std::map<std::string, std::vector<std::string>> stored_;
};

TEST_F(ClientDevicePutTest, StoresWhatTheDeviceEncodesInBatches) {
  std::vector<int64_t> progress;
  DeviceTarget source = Source();
  source.device_ordinal = 3;
  const auto result = Put(source, [&](int64_t tokens) { progress.push_back(tokens); });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->chunks_stored, 8);
  ExpectStored();
  EXPECT_THAT(ordinals_, ElementsAre(3));
  EXPECT_THAT(calls_, ElementsAre(std::make_pair(0, 64), std::make_pair(64, 51)));
  EXPECT_THAT(progress, ElementsAre(0, kTokens));
  calls_.clear();
  EXPECT_EQ(Put(Source())->chunks_existing, 8);
  EXPECT_TRUE(calls_.empty()) << "chunks that the server has are not encoded";
}

TEST_F(ClientDevicePutTest, ReadsThePagesOfACache) {
  PagedMemory paged(context_.profile->geometry(), kTokens, 8);
  const PagedKvView view = paged.view();
  const KvView kv = context_.kv.view();
  for (int layer = 0; layer < 2; ++layer) {
    for (int64_t token = 0; token < kTokens; ++token) {
      const int64_t at =
          paged.table()[token / 8] * view.block_stride + token % 8 * view.token_stride;
      for (int head = 0; head < 2; ++head) {
        for (int i = 0; i < 8; ++i) {
          const int64_t to = at + head * view.head_stride + i;
          static_cast<uint16_t*>(view.layers[layer].keys_dev)[to] =
              kv.keys[layer].at(token, head)[i];
          static_cast<uint16_t*>(view.layers[layer].values_dev)[to] =
              kv.values[layer].at(token, head)[i];
        }
      }
    }
  }
  DeviceTarget source = Source();
  source.kv = view;
  ASSERT_TRUE(Put(source).ok());
  ExpectStored();
}

TEST_F(ClientDevicePutTest, AnErrorOfTheDeviceNamesTheChunk) {
  fails_at_ = 64;
  const auto result = Put(Source());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("encoding chunk 4: CUDA failed"));
}

TEST_F(ClientDevicePutTest, RefusesSourcesBeforeTheServerIsAsked) {
  create_status_ = absl::UnavailableError("no GPU");
  EXPECT_EQ(Put(Source()).status(), create_status_);
  const auto refused = [&](const DeviceTarget& source, const std::string& what) {
    const absl::Status status = Put(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  };
  DeviceTarget source = Source();
  source.shard = {0, 1, 0, 0};
  source.kv = DeviceViewOf(&memory_, context_.profile->geometry(), kTokens, source.shard);
  refused(source, "a part of the model");
  source = Source();
  absl::get<DeviceKvView>(source.kv).tokens = 5;
  refused(source, "for 5 tokens");
  PagedMemory paged(context_.profile->geometry(), kTokens, 5);
  source.kv = paged.view();
  refused(source, "not whole blocks of 5");
  EXPECT_EQ(lookups_, 0);
}

}  // namespace
}  // namespace kvstream

#include "client/device_decode_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "client/device_decoder_pool.h"
#include "client/testing/fake_device.h"
#include "client/testing/synthetic_context.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

constexpr int kChunks = 20;

class DeviceDecodeExecutorTest : public testing::Test {
 protected:
  DeviceDecodeExecutorTest()
      : context_(kChunks * 16),
        chunks_(context_.Encode()),
        memory_(context_.profile->geometry(), kChunks * 16),
        pool_(device_.Factory()) {
    key_.profile = context_.profile->id();
    key_.shard = {0, 2, 0, 2};
  }

  std::unique_ptr<DeviceDecodeExecutor> Executor() {
    return std::make_unique<DeviceDecodeExecutor>(
        &pool_, key_, *pool_.Acquire(context_.profile, key_), context_.profile,
        DeviceViewOf(&memory_, context_.profile->geometry(), kChunks * 16), &stream_, [this] {
          absl::MutexLock lock(&mutex_);
          ++notified_;
        });
  }

  DecodeJob Job(uint32_t chunk, int level = 0) const {
    DecodeJob job;
    job.chunk = chunk;
    job.level = level;
    job.first_token = chunk * 16;
    job.tokens = 16;
    for (int i = 0; i <= level; ++i) job.segments.emplace_back(chunks_[chunk].segments[i]);
    return job;
  }

  // Results of so many jobs, by chunk.
  std::map<uint32_t, absl::Status> Take(DeviceDecodeExecutor* executor, size_t count) {
    std::map<uint32_t, absl::Status> results;
    for (int seen = 0; results.size() < count;) {
      for (const DecodeResult& result : executor->TakeResults()) {
        EXPECT_TRUE(results.emplace(result.chunk, result.status).second);
      }
      if (results.size() >= count) break;
      absl::MutexLock lock(&mutex_);
      const auto more = [&] { return notified_ > seen; };
      mutex_.Await(absl::Condition(&more));
      seen = notified_;
    }
    return results;
  }

  std::vector<uint16_t> Written(uint32_t chunk) const { return memory_.Tokens(chunk * 16, 16); }
  std::vector<uint16_t> Expected(uint32_t chunk, int level) const {
    return context_.Expected(std::vector<int>(kChunks, level)).Tokens(chunk * 16, 16);
  }

  const SyntheticContext context_;
  std::vector<EncodedChunk> chunks_;
  KvBlock memory_;
  FakeDevice device_;
  DeviceDecoderPool pool_;
  DeviceDecoderKey key_;
  int stream_ = 0;
  absl::Mutex mutex_;
  int notified_ = 0;
};

TEST_F(DeviceDecodeExecutorTest, PreparesABatchWhileTheDeviceIsBusyWithTheOneBefore) {
  device_.Pause();
  const auto executor = Executor();
  executor->Submit(Job(0, 2));
  device_.WaitForCalls(1);  // a lone chunk does not wait for company
  uint32_t next = 1;
  while (executor->has_room()) {
    executor->Submit(Job(next, 2));
    ++next;
  }
  device_.WaitForCalls(2);
  EXPECT_EQ(device_.chunks_written(), 0);
  device_.Resume();
  for (const auto& [chunk, status] : Take(executor.get(), next)) {
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(Written(chunk), Expected(chunk, 2)) << chunk;
  }
  EXPECT_EQ(device_.most_calls_under_way(), 2);
  EXPECT_EQ(device_.calls()[0].first_tokens, (std::vector<int64_t>{0}));
  for (const FakeDevice::Call& call : device_.calls()) {
    EXPECT_LE(call.first_tokens.size(), 4);
    EXPECT_EQ(call.stream, &stream_);
  }
  EXPECT_TRUE(executor->has_room());
  EXPECT_GT(executor->seconds_per_token(), 0);
}

TEST_F(DeviceDecodeExecutorTest, AChunkDecodedAgainIsOverwritten) {
  const auto executor = Executor();
  executor->Submit(Job(3, 0));
  EXPECT_TRUE(Take(executor.get(), 1)[3].ok());
  EXPECT_EQ(Written(3), Expected(3, 0));
  DecodeJob finer = Job(3, 3);
  finer.first_unchecked_level = 1;
  executor->Submit(finer);
  EXPECT_TRUE(Take(executor.get(), 1)[3].ok());
  EXPECT_EQ(Written(3), Expected(3, 3));
}

// ------------------------------------------------------------------ damage

TEST_F(DeviceDecodeExecutorTest, ADamagedSegmentNeverReachesTheDevice) {
  chunks_[1].segments[0].back() ^= 1;
  std::swap(chunks_[2].segments[0], chunks_[5].segments[0]);
  const auto executor = Executor();
  for (uint32_t chunk : {0, 1, 2, 3}) executor->Submit(Job(chunk));
  auto results = Take(executor.get(), 4);
  EXPECT_TRUE(results[0].ok());
  EXPECT_TRUE(results[3].ok());
  EXPECT_TRUE(absl::IsDataLoss(results[1])) << results[1];
  EXPECT_TRUE(absl::IsDataLoss(results[2])) << results[2];
  EXPECT_THAT(std::string(results[2].message()), HasSubstr("at position 80 in place of"));
  EXPECT_EQ(device_.chunks_written(), 2);
}

TEST_F(DeviceDecodeExecutorTest, AChunkThatTheDecoderRefusesCostsNoOther) {
  device_.refuse = [](int64_t first_token) {
    return first_token == 32 ? absl::InvalidArgumentError("class table") : absl::OkStatus();
  };
  device_.Pause();
  {
    const auto executor = Executor();
    executor->Submit(Job(0));
    device_.WaitForCalls(1);
    for (uint32_t chunk : {1, 2, 3, 4}) executor->Submit(Job(chunk));
    device_.Resume();
    auto results = Take(executor.get(), 5);
    for (uint32_t chunk : {0, 1, 3, 4}) {
      EXPECT_TRUE(results[chunk].ok()) << results[chunk];
      EXPECT_EQ(Written(chunk), Expected(chunk, 0));
    }
    EXPECT_TRUE(absl::IsDataLoss(results[2])) << results[2];
    EXPECT_THAT(std::string(results[2].message()), HasSubstr("class table"));
  }
  EXPECT_EQ(device_.decoders_alive(), 0) << "a decoder that refused is not lent again";
}

TEST_F(DeviceDecodeExecutorTest, DamageThatTheDeviceFindsCostsNoOtherChunk) {
  device_.find = [](int64_t first_token) {
    return first_token == 16 ? absl::DataLossError("block 7") : absl::OkStatus();
  };
  {
    const auto executor = Executor();
    for (uint32_t chunk : {0, 1, 2}) executor->Submit(Job(chunk, 1));
    auto results = Take(executor.get(), 3);
    EXPECT_TRUE(results[0].ok());
    EXPECT_TRUE(results[2].ok());
    EXPECT_TRUE(absl::IsDataLoss(results[1]));
  }
  EXPECT_EQ(device_.decoders_alive(), 1) << "the decoder is sound";
}

// ------------------------------------------------------------------ failures

TEST_F(DeviceDecodeExecutorTest, AfterAnErrorOfTheDeviceNothingMoreIsWritten) {
  device_.Pause();
  std::vector<uint16_t> before;
  {
    const auto executor = Executor();
    uint32_t jobs = 0;
    for (; executor->has_room(); ++jobs) executor->Submit(Job(jobs));
    device_.WaitForCalls(2);
    device_.Break(absl::InternalError("CUDA: an illegal address"));
    device_.Resume();
    for (const auto& [chunk, status] : Take(executor.get(), jobs)) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << chunk;
      EXPECT_THAT(std::string(status.message()), HasSubstr("an illegal address"));
    }
    before = memory_.values();
    const size_t calls = device_.calls().size();
    executor->Submit(Job(jobs));
    EXPECT_EQ(Take(executor.get(), 1)[jobs].code(), absl::StatusCode::kInternal);
    EXPECT_EQ(device_.calls().size(), calls) << "a failed device is asked for nothing more";
  }
  EXPECT_EQ(memory_.values(), before);
  EXPECT_EQ(device_.chunks_written(), 0);
  EXPECT_EQ(device_.decoders_alive(), 0) << "its decoder is not lent again";
}

TEST_F(DeviceDecodeExecutorTest, ABlockTableOutsideOfTheCacheIsNoDamage) {
  PagedMemory paged(context_.profile->geometry(), kChunks * 16, 16);
  paged.table()[1] = 10000;
  DeviceDecodeExecutor executor(&pool_, key_, *pool_.Acquire(context_.profile, key_),
                                context_.profile, paged.view(), nullptr, [this] {
                                  absl::MutexLock lock(&mutex_);
                                  ++notified_;
                                });
  executor.Submit(Job(1));
  EXPECT_EQ(Take(&executor, 1)[1].code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DeviceDecodeExecutorTest, TheDestructorWaitsForWhatIsUnderWay) {
  device_.Pause();
  {
    auto executor = Executor();
    for (uint32_t chunk : {0, 1, 2}) executor->Submit(Job(chunk));
    device_.WaitForCalls(1);
    std::thread device([this] { device_.Resume(); });
    executor.reset();
    device.join();
  }
  const std::vector<uint16_t> after = memory_.values();
  EXPECT_EQ(Written(0), Expected(0, 0));
  const int64_t written = device_.chunks_written();
  EXPECT_GE(written, 1);
  pool_.Release(key_, *pool_.Acquire(context_.profile, key_));
  EXPECT_EQ(memory_.values(), after);
  EXPECT_EQ(device_.chunks_written(), written);
}

// ------------------------------------------------------------------ the pool

TEST_F(DeviceDecodeExecutorTest, TablesGoToTheDeviceOncePerPartOfAModel) {
  { const auto executor = Executor(); }
  { const auto executor = Executor(); }
  EXPECT_EQ(device_.roots_created(), 1);
  EXPECT_EQ(device_.siblings_created(), 0);
  {
    const auto one = Executor();
    const auto two = Executor();
    const auto three = Executor();
    EXPECT_EQ(device_.decoders_alive(), 3);
  }
  EXPECT_EQ(device_.roots_created(), 1);
  EXPECT_EQ(device_.siblings_created(), 2);
  EXPECT_EQ(device_.decoders_alive(), 2) << "idle ones are few";

  DeviceDecoderKey half = key_;
  half.shard.heads = 1;
  half.device_ordinal = 3;
  pool_.Release(half, *pool_.Acquire(context_.profile, half));
  ASSERT_EQ(device_.options().size(), 2);
  EXPECT_EQ(device_.options()[1].shard.heads, 1);
  EXPECT_EQ(device_.options()[1].device_ordinal, 3);
  EXPECT_EQ(device_.decoders_alive(), 3);
}

TEST_F(DeviceDecodeExecutorTest, AnotherProfileTakesTheDevicesMemory) {
  { const auto executor = Executor(); }
  const SyntheticContext other(16, 2);
  DeviceDecoderKey key = key_;
  key.profile = other.profile->id();
  auto decoder = pool_.Acquire(other.profile, key);
  ASSERT_TRUE(decoder.ok());
  EXPECT_EQ(device_.decoders_alive(), 1);
  auto first = pool_.Acquire(context_.profile, key_);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(device_.roots_created(), 3) << "profiles share no tables";
  pool_.Release(key, *std::move(decoder));
  pool_.Release(key_, *std::move(first));
  EXPECT_EQ(device_.decoders_alive(), 1) << "idle ones are of one profile";
}

TEST_F(DeviceDecodeExecutorTest, WithoutADeviceThePoolSaysSo) {
  device_.create_status = absl::UnavailableError("no CUDA driver on this machine");
  EXPECT_EQ(pool_.Acquire(context_.profile, key_).status(), device_.create_status);
}

}  // namespace
}  // namespace kvstream

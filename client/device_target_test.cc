#include "client/device_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace kvstream {
namespace {

using ::testing::HasSubstr;

KvGeometry Geometry() {
  KvGeometry geometry;
  geometry.layers = 4;
  geometry.kv_heads = 8;
  geometry.head_size = 16;
  return geometry;
}

uint16_t memory[8];
int32_t table[4];

DeviceKvView Contiguous(size_t layers) {
  DeviceKvView view;
  view.tokens = 100;
  view.keys.assign(layers, {memory, 128, 16});
  view.values = view.keys;
  return view;
}

PagedKvView Paged(size_t layers) {
  PagedKvView view;
  view.layers.assign(layers, {memory, memory});
  view.num_blocks = 10;
  view.block_size = 32;
  view.block_table_dev = table;
  view.block_table_entries = 4;
  return view;
}

DeviceTarget Target(DeviceKv kv, int device_ordinal = 0, const DeviceShard& shard = {}) {
  return {std::move(kv), nullptr, device_ordinal, shard};
}

void ExpectRefused(const DeviceTarget& target, const std::string& what) {
  const absl::Status status = ValidateDeviceTarget(Geometry(), 100, target);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << what;
  EXPECT_THAT(std::string(status.message()), HasSubstr(what));
}

TEST(DeviceTargetTest, AcceptsWholeModelsAndShards) {
  DeviceTarget target = Target(Contiguous(4));
  EXPECT_TRUE(ValidateDeviceTarget(Geometry(), 100, target).ok());
  target.kv = Paged(4);
  EXPECT_TRUE(ValidateDeviceTarget(Geometry(), 100, target).ok());
  target.shard = {1, 2, 4, 4};
  target.kv = Paged(2);
  EXPECT_TRUE(ValidateDeviceTarget(Geometry(), 100, target).ok());
  target.shard = {3, 0, 0, 0};
  target.kv = Contiguous(1);
  EXPECT_TRUE(ValidateDeviceTarget(Geometry(), 100, target).ok());
}

TEST(DeviceTargetTest, ResolvesCountsThatAreLeftOut) {
  DeviceShard shard{1, 0, 6, 0};
  ASSERT_TRUE(ResolveShard(Geometry(), &shard).ok());
  EXPECT_EQ(shard.layers, 3);
  EXPECT_EQ(shard.heads, 2);
}

TEST(DeviceTargetTest, RefusesShardsOutsideOfTheModel) {
  for (const DeviceShard& shard :
       {DeviceShard{-1, 1, 0, 0}, DeviceShard{4, 0, 0, 0}, DeviceShard{2, 3, 0, 0},
        DeviceShard{0, -1, 0, 0}, DeviceShard{2147483647, 2147483647, 0, 0}}) {
    ExpectRefused(Target(Contiguous(4), 0, shard), "the model has 4");
  }
  for (const DeviceShard& shard : {DeviceShard{0, 0, -1, 0}, DeviceShard{0, 0, 8, 0},
                                   DeviceShard{0, 0, 7, 2}, DeviceShard{0, 0, 0, 9}}) {
    ExpectRefused(Target(Contiguous(4), 0, shard), "the model has 8");
  }
}

TEST(DeviceTargetTest, RefusesMemoryThatDoesNotFit) {
  ExpectRefused(Target(Contiguous(3)), "3 layers of keys (or latents)");
  DeviceKvView view = Contiguous(4);
  view.values.pop_back();
  ExpectRefused(Target(view), "3 of values");
  view = Contiguous(4);
  view.tokens = 99;
  ExpectRefused(Target(view), "for 99 tokens of 100");
  view = Contiguous(4);
  view.keys[2].data_dev = nullptr;
  ExpectRefused(Target(view), "null or odd");
  view.keys[2].data_dev = reinterpret_cast<char*>(memory) + 1;
  ExpectRefused(Target(view), "null or odd");
  ExpectRefused(Target(Contiguous(4), -1), "no device -1");
  DeviceTarget target = Target(Contiguous(4));
  target.stream = reinterpret_cast<void*>(2);  // cudaStreamPerThread
  ExpectRefused(target, "per-thread default stream");
}

TEST(DeviceTargetTest, RefusesPagedCachesThatDoNotFit) {
  ExpectRefused(Target(Paged(5)), "5 layers");
  PagedKvView view = Paged(4);
  view.layers[1].values_dev = nullptr;
  ExpectRefused(Target(view), "null or odd");
  view = Paged(4);
  view.block_size = 0;
  ExpectRefused(Target(view), "10 blocks of 0");
  view = Paged(4);
  view.num_blocks = 0;
  ExpectRefused(Target(view), "0 blocks of 32");
  view = Paged(4);
  view.block_table_dev = nullptr;
  ExpectRefused(Target(view), "without a block table");
  view = Paged(4);
  view.block_table_entries = 3;
  ExpectRefused(Target(view), "3 entries for 100 tokens");
}

TEST(DeviceTargetTest, LatentsStandInTheKeysPlace) {
  KvGeometry latent = Geometry();
  latent.planes = 1;
  latent.kv_heads = 1;
  DeviceKvView view = Contiguous(4);
  EXPECT_FALSE(ValidateDeviceTarget(latent, 100, Target(view)).ok());
  view.values.clear();
  EXPECT_TRUE(ValidateDeviceTarget(latent, 100, Target(view)).ok());
  ExpectRefused(Target(view), "0 of values");
  PagedKvView paged = Paged(4);
  EXPECT_FALSE(ValidateDeviceTarget(latent, 100, Target(paged)).ok());
  for (PagedKvLayer& layer : paged.layers) layer.values_dev = nullptr;
  EXPECT_TRUE(ValidateDeviceTarget(latent, 100, Target(paged)).ok());
}

}  // namespace
}  // namespace kvstream

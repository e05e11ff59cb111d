#include "server/service/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/service/measured_store.h"
#include "storage/memory/memory_chunk_store.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LoadRecord FinishedLoad() {
  LoadRecord record;
  record.policy = LoadPolicy::kDeadline;
  record.outcome = LoadOutcome::kOk;
  record.delay = absl::Milliseconds(300);
  record.chunks = {{2, {}}, {2, {}}, {0, {}}, {absl::nullopt, RecomputeReason::kFaster}};
  record.bytes_by_level = {100, 0, 50};
  record.deadline_missed = false;
  record.bandwidth_estimate_bytes_per_second = 1.5e6;
  record.goodput_bytes_per_second = 1e6;
  return record;
}

TEST(MetricsTest, AFinishedLoadIsCountedEverywhere) {
  Metrics metrics("9.9", "memory");
  metrics.ObserveLoad(FinishedLoad());
  const std::string text = metrics.Text();
  EXPECT_THAT(text,
              HasSubstr(R"(kvstream_load_delay_seconds_count{outcome="ok",policy="deadline"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(kvstream_load_chunks_total{level="2"} 2)"));
  EXPECT_THAT(text, HasSubstr(R"(kvstream_load_chunks_total{level="0"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(kvstream_load_bytes_total{level="2"} 50)"));
  EXPECT_THAT(text, Not(HasSubstr(R"(kvstream_load_bytes_total{level="1"})")));
  EXPECT_THAT(text, HasSubstr(R"(kvstream_recompute_chunks_total{reason="faster"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(kvstream_deadline_total{result="hit"} 1)"));
  EXPECT_THAT(text, HasSubstr("kvstream_load_goodput_bytes_per_second_count 1"));
  EXPECT_THAT(text, HasSubstr("kvstream_load_bandwidth_estimate_bytes_per_second_count 1"));
  EXPECT_THAT(text, HasSubstr("kvstream_bandwidth_estimator_error_ratio_sum 0.5"));
  EXPECT_THAT(text, HasSubstr(R"(kvstream_build_info{store="memory",version="9.9"} 1)"));
  const LoadTotals totals = metrics.load_totals();
  EXPECT_EQ(totals.finished, 1u);
  EXPECT_EQ(totals.bytes_sent, 150u);
  EXPECT_EQ(totals.chunks_by_level, (std::vector<uint64_t>{1, 0, 2}));
  EXPECT_EQ(totals.chunks_recomputed, 1u);
}

TEST(MetricsTest, AnUnfinishedLoadCountsItsBytesAndNoDeadline) {
  Metrics metrics("9.9", "memory");
  LoadRecord record;
  record.outcome = LoadOutcome::kClientGone;
  record.bytes_by_level = {7};
  metrics.ObserveLoad(record);
  const std::string text = metrics.Text();
  EXPECT_THAT(
      text,
      HasSubstr(R"(kvstream_load_delay_seconds_count{outcome="client_gone",policy="none"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(kvstream_deadline_total{result="hit"} 0)"));
  EXPECT_EQ(metrics.load_totals().failed, 1u);
  EXPECT_EQ(metrics.load_totals().bytes_sent, 7u);
}

TEST(MetricsTest, LevelLabelsAreBounded) {
  Metrics metrics("9.9", "memory");
  LoadRecord record = FinishedLoad();
  record.bytes_by_level.assign(256, 1);
  metrics.ObserveLoad(record);
  EXPECT_THAT(metrics.Text(), HasSubstr(R"(kvstream_load_bytes_total{level="16+"} 240)"));
  EXPECT_THAT(metrics.Text(), Not(HasSubstr(R"(level="17")")));
}

TEST(MetricsTest, ErrorsAreCountedByMethodAndCodeButNotOk) {
  Metrics metrics("9.9", "memory");
  metrics.CountError("Put", absl::StatusCode::kDataLoss);
  metrics.CountError("Put", absl::StatusCode::kOk);
  EXPECT_THAT(metrics.Text(),
              HasSubstr(R"(kvstream_rpc_errors_total{code="DATA_LOSS",method="Put"} 1)"));
  EXPECT_THAT(metrics.Text(), Not(HasSubstr(R"(code="OK")")));
}

TEST(MetricsTest, WhatTheStoreHasEvictedOnlyGrows) {
  Metrics metrics("9.9", "memory");
  EXPECT_THAT(metrics.Text(), HasSubstr("kvstream_store_evicted_bytes_total 0"));
  GaugeValues values;
  values.store_capacity_bytes = 1000;
  values.evicted_segments = 3;
  values.evicted_bytes = 70;
  values.evicted_chunks = 1;
  metrics.SetGauges(values);
  metrics.SetGauges(values);  // a scrape counts nothing again
  values.evicted_bytes = 20;  // nor does one that is late
  metrics.SetGauges(values);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("kvstream_store_capacity_bytes 1000"));
  EXPECT_THAT(text, HasSubstr("kvstream_store_evicted_segments_total 3"));
  EXPECT_THAT(text, HasSubstr("kvstream_store_evicted_bytes_total 70"));
  EXPECT_THAT(text, HasSubstr("kvstream_store_evicted_chunks_total 1"));
}

TEST(MeasuredStoreTest, TimesCallsAndWaitsForPins) {
  Metrics metrics("9.9", "memory");
  MeasuredStore store(*MemoryChunkStore::Create(), &metrics);
  ChunkInfo info;
  info.tokens = 1;
  info.segment_bytes = {3};
  info.created = absl::UnixEpoch();
  ASSERT_TRUE(store.Put(ChunkId{}, info, {"abc"}).ok());
  absl::StatusOr<PinnedBytes> pinned = store.ReadSegment(ChunkId{}, 0);
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(pinned->bytes(), "abc");
  EXPECT_FALSE(store.AwaitUnpinned(absl::ZeroDuration()));
  *pinned = PinnedBytes();
  EXPECT_TRUE(store.AwaitUnpinned(absl::ZeroDuration()));
  EXPECT_FALSE(store.ReadSegment(ChunkId{}, 9).ok());
  EXPECT_TRUE(store.AwaitUnpinned(absl::ZeroDuration()));
  EXPECT_THAT(metrics.Text(),
              HasSubstr(R"(kvstream_store_operation_seconds_count{operation="read_segment"} 2)"));
  EXPECT_THAT(metrics.Text(),
              HasSubstr(R"(kvstream_store_operation_seconds_count{operation="put"} 1)"));
}

}  // namespace
}  // namespace kvstream

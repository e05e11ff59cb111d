#include "storage/conformance/chunk_store_conformance.h"

#include <algorithm>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"

namespace kvstream {

void ChunkStoreConformance::SetUp() {
  target_ = GetParam().make();
  auto opened = target_->Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  store_ = *std::move(opened);
}

void ChunkStoreConformance::Reopen() {
  if (!target_->persistent()) return;
  store_.reset();
  auto opened = target_->Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  store_ = *std::move(opened);
}

bool ChunkStoreConformance::Put(const TestChunk& chunk) {
  const auto created = store().Put(chunk.id, chunk.info, chunk.views());
  EXPECT_TRUE(created.ok()) << created.status();
  return created.ok() && *created;
}

bool ChunkStoreConformance::Same(const ChunkInfo& told, const ChunkInfo& put) const {
  ChunkInfo compared = told;
  if (target().over_protocol()) compared.created = put.created;
  return SameInfo(compared, put);
}

TestChunk ChunkStoreConformance::Under(uint64_t number, TestChunk content) const {
  content.id = TestId(number);
  if (!target().over_protocol()) return content;
  const TestChunk own = MakeTestChunk(number);
  content.info.profile_id = own.info.profile_id;
  while (content.segments.size() < own.segments.size()) {
    content.segments.push_back("another level");
    content.info.segment_bytes.push_back(content.segments.back().size());
  }
  content.segments.resize(own.segments.size());
  content.info.segment_bytes.resize(own.segments.size());
  return content;
}

void ChunkStoreConformance::ExpectStored(const TestChunk& chunk) {
  SCOPED_TRACE(ShortHex(chunk.id));
  const auto infos = store().GetInfos({chunk.id});
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_EQ(infos->size(), 1);
  ASSERT_TRUE(infos->front().has_value());
  EXPECT_TRUE(Same(*infos->front(), chunk.info));
  const auto prefix = store().LongestPrefix({chunk.id});
  ASSERT_TRUE(prefix.ok()) << prefix.status();
  EXPECT_EQ(*prefix, 1);
  for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
    const auto segment = store().ReadSegment(chunk.id, level);
    ASSERT_TRUE(segment.ok()) << segment.status();
    EXPECT_TRUE(segment->bytes() == chunk.segments[level]) << "level " << level;
    const auto at_hand = store().TryReadSegment(chunk.id, level);
    if (!at_hand.has_value()) continue;
    ASSERT_TRUE(at_hand->ok()) << at_hand->status();
    EXPECT_TRUE((*at_hand)->bytes() == chunk.segments[level]) << "level " << level;
  }
  const auto beyond = store().ReadSegment(chunk.id, static_cast<uint32_t>(chunk.segments.size()));
  EXPECT_TRUE(absl::IsNotFound(beyond.status())) << beyond.status();
}

void ChunkStoreConformance::ExpectAbsent(const TestChunk& chunk) {
  SCOPED_TRACE(ShortHex(chunk.id));
  const auto infos = store().GetInfos({chunk.id});
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_EQ(infos->size(), 1);
  EXPECT_FALSE(infos->front().has_value());
  const auto prefix = store().LongestPrefix({chunk.id});
  ASSERT_TRUE(prefix.ok()) << prefix.status();
  EXPECT_EQ(*prefix, 0);
  for (uint32_t level = 0; level < chunk.segments.size(); ++level) {
    const auto segment = store().ReadSegment(chunk.id, level);
    EXPECT_TRUE(absl::IsNotFound(segment.status())) << segment.status();
  }
}

namespace {

TEST_P(ChunkStoreConformance, NamesItsDriver) { EXPECT_EQ(store().driver(), GetParam().name); }

TEST_P(ChunkStoreConformance, StartsEmpty) {
  ExpectAbsent(MakeTestChunk(1));
  const auto listed = store().List(absl::nullopt, 10);
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_TRUE(listed->empty());
  const auto profiles = store().ListProfiles();
  ASSERT_TRUE(profiles.ok()) << profiles.status();
  EXPECT_TRUE(profiles->empty());
  const auto stats = store().Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->chunks, 0);
  EXPECT_EQ(stats->payload_bytes, 0);
}

TEST_P(ChunkStoreConformance, GivesBackEveryFieldAndByte) {
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i < 20; ++i) chunks.push_back(MakeTestChunk(i));
  for (const TestChunk& chunk : chunks) EXPECT_TRUE(Put(chunk));
  for (const TestChunk& chunk : chunks) ExpectStored(chunk);
}

TEST_P(ChunkStoreConformance, KeepsInfosAtTheirLimits) {
  TestChunk chunk = MakeTestChunk(1);
  chunk.info.parent = ChunkId{};  // all zeros is an id like any other
  chunk.info.model = std::string(kMaxModelBytes, '\0');
  chunk.info.first_token = std::numeric_limits<uint64_t>::max();
  chunk.info.tokens = std::numeric_limits<uint32_t>::max();
  size_t levels = kMaxChunkLevels;
  if (target().over_protocol()) {
    chunk.info.first_token = uint64_t{1} << 40;
    chunk.info.tokens = uint32_t{1} << 24;
    levels = 64;  // of a load
  }
  chunk.info.created = absl::FromUnixNanos(std::numeric_limits<int64_t>::min() + 1);
  chunk.segments.assign(levels, "");
  chunk.segments.back() = "finest";
  chunk.info.segment_bytes.assign(levels, 0);
  chunk.info.segment_bytes.back() = 6;
  EXPECT_TRUE(Put(chunk));
  ExpectStored(chunk);
  Reopen();
  ExpectStored(chunk);
}

TEST_P(ChunkStoreConformance, KeepsTimesToTheNanosecond) {
  if (target().over_protocol()) return;  // the server says when a chunk was created
  TestChunk chunk = MakeTestChunk(1);
  const absl::Time whole = absl::FromUnixNanos(-1234567890123456789);
  chunk.info.created = whole + absl::Nanoseconds(1) / 4;
  EXPECT_TRUE(Put(chunk));
  chunk.info.created = whole;
  ExpectStored(chunk);
}

TEST_P(ChunkStoreConformance, KeepsLargeSegments) {
  TestChunk chunk = MakeTestChunk(1);
  chunk.segments = {TestBytes(1, 9 << 20), "", TestBytes(2, 1), TestBytes(3, 3 << 20)};
  chunk.info.segment_bytes = {9 << 20, 0, 1, 3 << 20};
  EXPECT_TRUE(Put(chunk));
  ExpectStored(chunk);
  Reopen();
  ExpectStored(chunk);
}

TEST_P(ChunkStoreConformance, PutOfAStoredChunkChangesNothing) {
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_TRUE(Put(chunk));
  const TestChunk other = Under(1, MakeTestChunk(2));
  EXPECT_FALSE(Put(chunk));
  EXPECT_FALSE(Put(other));
  ExpectStored(chunk);
  const auto stats = store().Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  if (target().exact_stats()) {
    EXPECT_EQ(stats->chunks, 1);
    EXPECT_EQ(stats->payload_bytes, PayloadBytes(chunk.info));
  }
}

TEST_P(ChunkStoreConformance, DoesNotKeepTheCallersBytes) {
  const TestChunk chunk = MakeTestChunk(1);
  TestChunk borrowed = chunk;
  EXPECT_TRUE(Put(borrowed));
  for (std::string& segment : borrowed.segments) std::fill(segment.begin(), segment.end(), 'x');
  ExpectStored(chunk);
}

TEST_P(ChunkStoreConformance, RefusesChunksThatDoNotFitTheirInfo) {
  if (target().over_protocol()) return;  // see put_rpc_test
  const TestChunk good = MakeTestChunk(3);
  const auto expect_refused = [&](const TestChunk& bad) {
    const auto put = store().Put(bad.id, bad.info, bad.views());
    EXPECT_TRUE(absl::IsInvalidArgument(put.status())) << put.status();
    EXPECT_TRUE(absl::StrContains(put.status().message(), ShortHex(bad.id))) << put.status();
    ExpectAbsent(good);
  };
  TestChunk bad = good;
  bad.segments.push_back("more");
  expect_refused(bad);
  bad = good;
  bad.info.segment_bytes.push_back(0);
  expect_refused(bad);
  bad = good;
  bad.segments[0].push_back('x');
  expect_refused(bad);
  bad = good;
  bad.info.segment_bytes[0] += 1;
  expect_refused(bad);
  bad = good;
  bad.segments.clear();
  bad.info.segment_bytes.clear();
  expect_refused(bad);
  bad = good;
  bad.segments.assign(kMaxChunkLevels + 1, "");
  bad.info.segment_bytes.assign(kMaxChunkLevels + 1, 0);
  expect_refused(bad);
  bad = good;
  bad.info.model = std::string(kMaxModelBytes + 1, 'm');
  expect_refused(bad);
  for (absl::Time time :
       {absl::InfiniteFuture(), absl::InfinitePast(), absl::FromUnixSeconds(int64_t{1} << 40)}) {
    bad = good;
    bad.info.created = time;
    expect_refused(bad);
  }
  EXPECT_TRUE(Put(good));
  ExpectStored(good);
}

TEST_P(ChunkStoreConformance, AnswersInfosInTheOrderOfTheQuestion) {
  const TestChunk a = MakeTestChunk(1), b = MakeTestChunk(2);
  EXPECT_TRUE(Put(a));
  EXPECT_TRUE(Put(b));
  const auto infos = store().GetInfos({b.id, TestId(99), a.id, b.id});
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_EQ(infos->size(), 4);
  ASSERT_TRUE((*infos)[0] && (*infos)[2] && (*infos)[3]);
  EXPECT_TRUE(Same(*(*infos)[0], b.info));
  EXPECT_FALSE((*infos)[1].has_value());
  EXPECT_TRUE(Same(*(*infos)[2], a.info));
  EXPECT_TRUE(Same(*(*infos)[3], b.info));
  const auto none = store().GetInfos({});
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->empty());
}

TEST_P(ChunkStoreConformance, PrefixEndsAtTheFirstHole) {
  constexpr size_t kChain = 1000;
  std::vector<ChunkId> chain;
  for (uint64_t i = 0; i < kChain; ++i) chain.push_back(TestId(i));
  // Holes on both sides of any batch's or bisection's borders; the rest of the chain stays stored.
  TestChunk chunk = MakeTestChunk(0, 10);
  for (const ChunkId& id : chain) {
    chunk.id = id;
    ASSERT_TRUE(Put(chunk));
  }
  const auto length = [&] {
    const auto prefix = store().LongestPrefix(chain);
    EXPECT_TRUE(prefix.ok()) << prefix.status();
    return prefix.value_or(kChain + 1);
  };
  EXPECT_EQ(length(), kChain);
  for (size_t hole : {999, 961, 960, 959, 512, 448, 192, 128, 65, 64, 63, 1, 0}) {
    const auto deleted = store().Delete({chain[hole]});
    ASSERT_TRUE(deleted.ok()) << deleted.status();
    EXPECT_EQ(*deleted, 1);
    EXPECT_EQ(length(), hole);
  }
  EXPECT_EQ(store().LongestPrefix({}).value_or(1), 0);
}

TEST_P(ChunkStoreConformance, TakesTheLongestChainOfTheProtocol) {
  constexpr size_t kChain = 65536;
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_TRUE(Put(chunk));
  // Ids of a chain may repeat as far as the store is concerned.
  std::vector<ChunkId> chain(kChain, chunk.id);
  EXPECT_EQ(store().LongestPrefix(chain).value_or(0), kChain);
  chain[kChain - 1] = TestId(2);
  EXPECT_EQ(store().LongestPrefix(chain).value_or(0), kChain - 1);
  // Over the protocol infos come some hundred bytes a chunk in many messages: minutes under TSan.
  const auto asked = absl::MakeConstSpan(chain).last(target().over_protocol() ? 1000 : kChain);
  const auto infos = store().GetInfos(asked);
  ASSERT_TRUE(infos.ok()) << infos.status();
  ASSERT_EQ(infos->size(), asked.size());
  EXPECT_TRUE(infos->front().has_value());
  EXPECT_FALSE(infos->back().has_value());
  const auto deleted = store().Delete(chain);
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(*deleted, 1);
  ExpectAbsent(chunk);
}

TEST_P(ChunkStoreConformance, AbsentLevelsAreNotFound) {
  const TestChunk chunk = MakeTestChunk(1);
  EXPECT_TRUE(Put(chunk));
  for (uint32_t level : {uint32_t(chunk.segments.size()), 255u, 256u, 512u, ~0u}) {
    const auto segment = store().ReadSegment(chunk.id, level);
    EXPECT_TRUE(absl::IsNotFound(segment.status())) << level << ": " << segment.status();
    EXPECT_TRUE(absl::StrContains(segment.status().message(), ShortHex(chunk.id)));
  }
}

TEST_P(ChunkStoreConformance, PinsOutliveDeleteAndNewPut) {
  TestChunk chunk = MakeTestChunk(1);
  chunk.segments = {TestBytes(1, 300000)};
  chunk.info.segment_bytes = {300000};
  EXPECT_TRUE(Put(chunk));
  Reopen();  // a store with a disk has flushed it by now, and reads it from a table
  auto pin = store().ReadSegment(chunk.id, 0);
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_EQ(store().Delete({chunk.id}).value_or(0), 1);
  TestChunk other = chunk;
  other.segments = {TestBytes(2, 300000)};
  EXPECT_TRUE(Put(other));
  EXPECT_TRUE(pin->bytes() == chunk.segments[0]);
  ExpectStored(other);

  // Released elsewhere than it was taken.
  PinnedBytes moved = *std::move(pin);
  EXPECT_TRUE(moved.bytes() == chunk.segments[0]);
  std::thread([pin = std::move(moved)] {}).join();
}

TEST_P(ChunkStoreConformance, DeleteCountsWhatExistedOnce) {
  const TestChunk a = MakeTestChunk(1), b = MakeTestChunk(2), c = MakeTestChunk(3);
  for (const TestChunk& chunk : {a, b, c}) EXPECT_TRUE(Put(chunk));
  const auto deleted = store().Delete({b.id, TestId(99), a.id, b.id, a.id});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(*deleted, 2);
  ExpectAbsent(a);
  ExpectAbsent(b);
  ExpectStored(c);
  EXPECT_EQ(store().Delete({a.id}).value_or(1), 0);
  EXPECT_EQ(store().Delete({}).value_or(1), 0);
  Reopen();
  ExpectAbsent(a);
  ExpectStored(c);
  EXPECT_TRUE(Put(a));
  ExpectStored(a);
}

TEST_P(ChunkStoreConformance, ListsPagesInIdOrder) {
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i < 25; ++i) chunks.push_back(MakeTestChunk(i, 10));
  // The borders of the id space.
  chunks[0].id.fill(0);
  chunks[1].id.fill(0xff);
  for (const TestChunk& chunk : chunks) ASSERT_TRUE(Put(chunk));
  std::sort(chunks.begin(), chunks.end(),
            [](const TestChunk& a, const TestChunk& b) { return a.id < b.id; });
  const auto by_id = [](const auto& a, const auto& b) { return a.first < b.first; };
  for (size_t page : {1, 7, 24, 25, 1000}) {
    SCOPED_TRACE(page);
    std::vector<std::pair<ChunkId, ChunkInfo>> all;
    absl::optional<ChunkId> after;
    for (;;) {
      const auto listed = store().List(after, page);
      ASSERT_TRUE(listed.ok()) << listed.status();
      ASSERT_LE(listed->size(), page);
      if (listed->empty()) break;
      all.insert(all.end(), listed->begin(), listed->end());
      after = all.back().first;
    }
    ASSERT_EQ(all.size(), chunks.size());
    if (target().of_tenant()) std::sort(all.begin(), all.end(), by_id);
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(all[i].first, chunks[i].id);
      EXPECT_TRUE(Same(all[i].second, chunks[i].info));
    }
  }
  const auto none = store().List(absl::nullopt, 0);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->empty());
  // A cursor need not be a stored chunk.
  ChunkId between = chunks[10].id;
  for (size_t i = between.size(); i-- > 0 && ++between[i] == 0;) {
  }
  const auto rest = store().List(between, 1);
  ASSERT_TRUE(rest.ok()) << rest.status();
  if (target().of_tenant()) return;
  ASSERT_EQ(rest->size(), 1);
  EXPECT_EQ(rest->front().first, chunks[11].id);
}

TEST_P(ChunkStoreConformance, KeepsProfiles) {
  const TestProfile a = target().MakeProfile(1, 5 << 20), b = target().MakeProfile(2, 1);
  EXPECT_TRUE(absl::IsNotFound(store().GetProfile(a.id).status()));
  EXPECT_TRUE(store().PutProfile(a.id, a.bytes).value_or(false));
  EXPECT_TRUE(store().PutProfile(b.id, b.bytes).value_or(false));
  EXPECT_FALSE(store().PutProfile(a.id, a.bytes).value_or(true));
  Reopen();
  EXPECT_FALSE(store().PutProfile(b.id, b.bytes).value_or(true));
  EXPECT_TRUE(store().GetProfile(a.id).value_or("") == a.bytes);
  EXPECT_EQ(store().GetProfile(b.id).value_or(""), b.bytes);
  auto ids = store().ListProfiles();
  ASSERT_TRUE(ids.ok()) << ids.status();
  std::sort(ids->begin(), ids->end());
  std::vector<StoredProfileId> expected = {a.id, b.id};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(*ids, expected);
}

TEST_P(ChunkStoreConformance, ProfilesNeverChangeAndMayBeEmpty) {
  if (target().over_protocol()) return;  // the id of a profile is the hash of its bytes
  const StoredProfileId a = TestId(1), empty = TestId(3);
  EXPECT_TRUE(store().PutProfile(a, "bytes").value_or(false));
  EXPECT_TRUE(store().PutProfile(empty, "").value_or(false));
  EXPECT_FALSE(store().PutProfile(a, "other").value_or(true));
  EXPECT_FALSE(store().PutProfile(empty, "other").value_or(true));
  Reopen();
  EXPECT_FALSE(store().PutProfile(a, "other").value_or(true));
  EXPECT_EQ(store().GetProfile(a).value_or(""), "bytes");
  EXPECT_EQ(store().GetProfile(empty).value_or("none"), "");
}

TEST_P(ChunkStoreConformance, ProfilesAndChunksOfOneIdAreDifferentThings) {
  const TestProfile profile = target().MakeProfile(1, 100);
  TestChunk chunk = MakeTestChunk(1);
  chunk.id = profile.id;
  EXPECT_TRUE(store().PutProfile(profile.id, profile.bytes).value_or(false));
  ExpectAbsent(chunk);
  EXPECT_TRUE(Put(chunk));
  EXPECT_EQ(store().Delete({chunk.id}).value_or(0), 1);
  EXPECT_EQ(store().GetProfile(profile.id).value_or(""), profile.bytes);
}

TEST_P(ChunkStoreConformance, EverythingIsThereAfterReopening) {
  std::vector<TestChunk> chunks;
  for (uint64_t i = 0; i < 50; ++i) chunks.push_back(MakeTestChunk(i, 20000));
  for (const TestChunk& chunk : chunks) ASSERT_TRUE(Put(chunk));
  const auto before = store().Stats();
  ASSERT_TRUE(before.ok()) << before.status();
  for (int i = 0; i < 3; ++i) {
    Reopen();
    for (const TestChunk& chunk : chunks) ExpectStored(chunk);
    EXPECT_FALSE(Put(chunks[7]));
    const auto after = store().Stats();
    ASSERT_TRUE(after.ok()) << after.status();
    if (target().exact_stats()) {
      EXPECT_EQ(after->chunks, before->chunks);
      EXPECT_EQ(after->payload_bytes, before->payload_bytes);
    }
  }
}

}  // namespace
}  // namespace kvstream

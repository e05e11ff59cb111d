#include "client/moved_load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace kvstream {
namespace {

constexpr int kLevels = 4;
constexpr absl::Duration kBegan = absl::Seconds(100);
constexpr absl::Duration kDeadline = absl::Seconds(10);
constexpr absl::Duration kNow = absl::Seconds(101);

using Ability = ClientRecomputeAbility;

HeldChunk Held(int levels) {
  HeldChunk held;
  held.levels = levels;
  held.decoded_level = levels - 1;
  held.segment_bytes.assign(static_cast<size_t>(levels), 10);
  held.stored_levels = kLevels;
  for (int i = 0; i < levels && levels < kLevels; ++i) held.segments.emplace_back(new char[10]);
  return held;
}

// A daemon's load of the range has left this: a digit, the level at which a chunk stands; 'r',
// recomputed; '.', not in place.
void Leave(MovedLoad* load, LoadRange range, const std::string& state, absl::Duration now = kNow) {
  ASSERT_EQ(state.size(), range.end_chunk - range.first_chunk);
  range.held.clear();
  for (const char c : state) {
    range.held.emplace_back();
    range.kept.emplace_back();
    if (c == '.') continue;
    range.kept.back().emplace();
    range.kept.back()->tokens = 16;
    range.kept.back()->bytes = 5;
    if (c == 'r') continue;
    range.kept.back()->level = c - '0';
    range.held.back() = Held(c - '0' + 1);
  }
  load->OnLeft(std::move(range), now);
}

// "2-7: 1..1.": the range, and per chunk the levels held.
std::string Text(const LoadRange& range) {
  std::string text =
      std::to_string(range.first_chunk) + "-" + std::to_string(range.end_chunk) + ":";
  for (const HeldChunk& held : range.held) {
    text += held.levels == 0 ? "." : std::to_string(held.levels);
  }
  return text;
}

// What is asked of the second daemon after the first has left this.
std::string Asked(const std::string& state, Ability ability, bool hold = true) {
  MovedLoad load(static_cast<uint32_t>(state.size()), ability, kBegan, kDeadline);
  LoadRange range = load.Next(true, kBegan);
  EXPECT_TRUE(range.held.empty());
  Leave(&load, std::move(range), state);
  return Text(load.Next(hold, kNow));
}

TEST(MovedLoadTest, AsksForWhatIsMissingWithWhatCanBeRefined) {
  EXPECT_EQ(Asked("......", Ability::kNone), "0-6:");
  EXPECT_EQ(Asked("000...", Ability::kNone), "0-6:111...");
  EXPECT_EQ(Asked("01..20", Ability::kNone), "0-6:12..31");
  // What is finest is of no use at an end, and goes along amid others.
  EXPECT_EQ(Asked("3303..", Ability::kNone), "2-6:14..");
  EXPECT_EQ(Asked("3333..", Ability::kNone), "4-6:");
  EXPECT_EQ(Asked("..1333", Ability::kNone), "0-3:..2");
  // All is in place.
  EXPECT_EQ(Asked("310113", Ability::kNone), "1-5:2122");
  EXPECT_EQ(Asked("333333", Ability::kNone), "6-6:");
  // Between missing chunks nothing is held.
  EXPECT_EQ(Asked("0.1.00", Ability::kNone), "0-6:1...11");
}

TEST(MovedLoadTest, LeavesAnOrderThatTheAbilityHas) {
  // A suffix was recomputed up to some chunk: nothing in front of it is refined.
  EXPECT_EQ(Asked("11rr..", Ability::kSuffix), "4-6:");
  EXPECT_EQ(Asked("111...", Ability::kSuffix), "0-6:222...");
  EXPECT_EQ(Asked("111.11", Ability::kSuffix), "0-6:222...");
  EXPECT_EQ(Asked("111rrr", Ability::kSuffix), "0-3:222");
  // Recomputed from the front on, streamed from the end.
  for (const Ability ability : {Ability::kFront, Ability::kAny}) {
    EXPECT_EQ(Asked("rr..10", ability), "2-6:..21");
    EXPECT_EQ(Asked("rrrr10", ability), "4-6:21");
    EXPECT_EQ(Asked("11..11", ability), "2-6:..22");
    EXPECT_EQ(Asked("r..1r1", ability), "1-4:..2");
    EXPECT_EQ(Asked("rr0r00", ability), "4-6:11");
  }
}

TEST(MovedLoadTest, HoldsNothingUnlessAskedAndInTime) {
  EXPECT_EQ(Asked("000...", Ability::kNone, /*hold=*/false), "3-6:");
  EXPECT_EQ(Asked("000000", Ability::kNone, /*hold=*/false), "6-6:");
  MovedLoad load(3, Ability::kNone, kBegan, kDeadline);
  Leave(&load, load.Next(true, kBegan), "00.");
  EXPECT_EQ(Text(load.Next(true, kBegan + kDeadline)), "2-3:");
  MovedLoad other(3, Ability::kNone, kBegan, absl::ZeroDuration());
  Leave(&other, other.Next(true, kBegan), "00.");
  EXPECT_EQ(Text(other.Next(true, kNow)), "2-3:");
}

TEST(MovedLoadTest, ADaemonThatWillNotHoldIsAskedAgainWithoutAndTheNextOneWith) {
  MovedLoad load(4, Ability::kNone, kBegan, kDeadline);
  Leave(&load, load.Next(true, kBegan), "00..");
  Leave(&load, load.Next(true, kNow), "00..");
  LoadRange range = load.Next(false, kNow);
  EXPECT_EQ(Text(range), "2-4:");
  Leave(&load, std::move(range), "1.");
  EXPECT_EQ(Text(load.Next(true, kNow)), "0-4:112.");
}

TEST(MovedLoadTest, AHeldChunkThatIsLostIsMissing) {
  MovedLoad load(3, Ability::kNone, kBegan, kDeadline);
  Leave(&load, load.Next(true, kBegan), "000");
  EXPECT_TRUE(load.complete());
  Leave(&load, load.Next(true, kNow), "1.0");
  EXPECT_FALSE(load.complete());
  EXPECT_EQ(Text(load.Next(true, kNow)), "0-3:2.1");
}

TEST(MovedLoadTest, AddsUpWhatAllPartsBrought) {
  MovedLoad load(4, Ability::kFront, kBegan, kDeadline);
  Leave(&load, load.Next(true, kBegan), "r.00");
  const LoadRange range = load.Next(true, kNow);
  ASSERT_EQ(Text(range), "1-4:.11");
  LoadResult part;
  part.load_delay = absl::Seconds(2);
  part.bytes = 60;
  part.recomputed_tokens = 16;
  part.chunks.resize(3);
  part.chunks[1] = {2, 16, 40};
  part.chunks[2] = {1, 16, 20};
  const LoadResult result = load.OnLoaded(range, part);
  EXPECT_EQ(result.bytes, 75u);
  EXPECT_EQ(result.recomputed_tokens, 32u);
  ASSERT_EQ(result.chunks.size(), 4u);
  EXPECT_EQ(result.chunks[0].level, absl::nullopt);
  EXPECT_EQ(result.chunks[2].level, 2);
  EXPECT_EQ(result.chunks[2].bytes, 45u);
  EXPECT_EQ(result.chunks[3].bytes, 25u);
  EXPECT_EQ(result.goodput_bytes_per_second, 37.5);
}

TEST(MovedLoadTest, WithNobodyLeftTheDelayIsThatOfTheLastChunkOrTheDeadline) {
  MovedLoad load(2, Ability::kNone, kBegan, kDeadline);
  Leave(&load, load.Next(true, kBegan), "00", kNow);
  EXPECT_EQ(load.AsItIs(kNow + absl::Seconds(1)).load_delay, absl::Seconds(2));
  // It waited for quality, not for chunks.
  EXPECT_EQ(load.AsItIs(kNow + absl::Seconds(60)).load_delay, kDeadline);
  Leave(&load, load.Next(true, kNow), "0.", kNow);
  Leave(&load, load.Next(true, kNow), "00", kNow + absl::Seconds(20));
  EXPECT_EQ(load.AsItIs(kNow + absl::Seconds(60)).load_delay, absl::Seconds(21));
}

}  // namespace
}  // namespace kvstream

// Cells that the warp code decodes, byte for byte against codec/level_decoder, from good and from
// hostile segments.
#include "codec/cuda/internal/entropy_warp.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "codec/calibration.h"
#include "codec/cuda/internal/decode_batch.h"
#include "codec/cuda/internal/device_tables.h"
#include "codec/cuda/internal/staging.h"
#include "codec/encoder.h"
#include "codec/level_coder.h"
#include "codec/rans.h"
#include "codec/segment.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace cuda {
namespace {

using Views = std::vector<absl::string_view>;

struct Outcome {
  absl::Status status;
  std::vector<int32_t> cells;  // [coordinate][token]
  bool wide = false;
  size_t exceptions = 0;
  bool overridden = false;
};

Outcome OracleCells(const ProfileData& data, const Views& segments) {
  Outcome out;
  LevelDecoder decoder(data);
  std::vector<uint8_t> classes = data.classes;
  for (absl::string_view bytes : segments) {
    const absl::StatusOr<SegmentView> view = ParseSegment(data, bytes);
    out.status = view.status();
    if (!view.ok()) return out;
    const int tokens = view->header.tokens - view->header.sinks;
    out.cells.resize(static_cast<size_t>(data.coordinates) * tokens);
    out.status = decoder.Decode(*view, tokens, &classes, out.cells.data());
    if (!out.status.ok()) return out;
    out.overridden |= !view->class_override.empty();
  }
  return out;
}

class WarpDecoder {
 public:
  explicit WarpDecoder(const std::shared_ptr<const Profile>& profile)
      : tables_(*DeviceTables::Create(CreateHostBackend(), profile, {})), batch_(*tables_) {
    EXPECT_TRUE(staging_.Create(tables_->shared_backend(), 1).ok());
  }

  Outcome Decode(const Views& segments) {
    const ProfileData& data = tables_->data();
    Outcome out;
    ParsedChunk chunk;
    out.status = ParseChunk(data, segments, &chunk);
    if (!out.status.ok()) return out;
    EXPECT_TRUE(staging_.Begin(tables_->shared_backend(), batch_.StagingBytes({&chunk, 1})).ok());
    BatchDev batch = {};
    std::vector<LevelDev> levels;
    int failed = -1;
    out.status = batch_.Prepare({&chunk, 1}, &staging_, &batch, &levels, &failed);
    if (!out.status.ok()) {
      EXPECT_EQ(failed, 0);
      return out;
    }
    EXPECT_TRUE(staging_.Upload(tables_->backend(), nullptr).ok());
    // Exactly as large as the code may use, so that a sanitizer sees what it writes beyond.
    const int tokens = batch.tokens_max;
    batch.stride = tokens;
    out.wide = batch.wide != 0;
    std::vector<int16_t> narrow(out.wide ? 0 : static_cast<size_t>(data.coordinates) * tokens);
    out.cells.resize(static_cast<size_t>(data.coordinates) * tokens);
    std::vector<uint32_t> row_max(data.coordinates);
    uint32_t status = 0;
    batch.cells = out.wide ? static_cast<void*>(out.cells.data()) : narrow.data();
    batch.row_max = row_max.data();
    batch.status = &status;
    for (const LevelDev& level : levels) {
      EXPECT_TRUE(tables_->backend().DecodeLevel(batch, level, nullptr).ok());
      out.exceptions += level.exception_count;
    }
    if (!out.wide) out.cells.assign(narrow.begin(), narrow.end());
    if (status != 0) out.status = absl::DataLossError("flagged");
    if (!out.status.ok()) return out;
    for (int32_t i = 0; i < data.coordinates; ++i) {
      uint32_t max = 0;
      for (int t = 0; t < tokens; ++t)
        max = std::max(max, Magnitude(out.cells[static_cast<size_t>(i) * tokens + t]));
      EXPECT_GE(row_max[i], max) << "coordinate " << i;
      if (max == 0) {
        EXPECT_LE(row_max[i], 1u) << "coordinate " << i;
      }
    }
    return out;
  }

 private:
  const std::shared_ptr<const DeviceTables> tables_;
  DecodeBatch batch_;
  Staging staging_;
};

Views ViewsOf(const EncodedChunk& chunk, int levels) {
  return Views(chunk.segments.begin(), chunk.segments.begin() + levels);
}

CalibrationOptions ModelOptions() {
  CalibrationOptions options;
  options.group = CalibrationOptions::Group::kModel;
  return options;
}

TEST(EntropyWarpTest, CellsAreTheOraclesAtEveryLevelAndLength) {
  for (const bool calibrated : {true, false}) {
    const KvGeometry geometry = TestGeometry(2, 2, 32);
    const std::shared_ptr<const Profile> profile =
        calibrated ? MakeTestProfile(geometry, 3, ModelOptions())
                   : *BuildProfile(geometry, {}, {}, {});
    auto encoder = *ChunkEncoder::Create(profile);
    WarpDecoder warp(profile);
    for (const int tokens : {1, 4, 5, 31, 36, 37, 68, 255, 256}) {
      const TestKv kv = MakeTestKv(geometry, tokens, 3, 78);
      const EncodedChunk chunk = *encoder->Encode(kv.view(), 0);
      for (int levels = 1; levels <= 4; ++levels) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, " << levels << " levels");
        const Outcome expected = OracleCells(profile->data(), ViewsOf(chunk, levels));
        const Outcome actual = warp.Decode(ViewsOf(chunk, levels));
        ASSERT_TRUE(expected.status.ok()) << expected.status;
        ASSERT_TRUE(actual.status.ok()) << actual.status;
        EXPECT_TRUE(actual.cells == expected.cells);
      }
    }
  }
}

// Rows of the most frequent symbol are guessed whole; a guess must leave no trace where it is
// wrong.
TEST(WarpStreamTest, RunsAreTakenWholeOrNotAtAll) {
  constexpr uint32_t kFrequency = 4080;
  constexpr uint32_t kStart = 7;
  for (const int tokens : {256, 252, 20}) {
    for (const int odd : {-1, 0, 19, tokens - 1}) {  // token with another symbol
      RansEncoder rans;
      // A second row follows, so that states differ.
      for (int row = 1; row >= 0; --row) {
        for (int t = tokens - 1; t >= 0; --t) {
          const bool other = row == 1 ? t % 3 == 0 : t == odd;
          rans.Put(t % 32, other ? 0 : kStart, other ? kStart : kFrequency);
        }
      }
      const int lanes = std::min(32, tokens);
      std::string bytes;
      rans.Finish(lanes, &bytes);
      std::vector<uint16_t> words(bytes.size() / 2);
      std::memcpy(words.data(), bytes.data(), words.size() * 2);
      const HostWarp warp;
      const auto symbol_by_symbol = [&](WarpStream<HostWarp>& stream) {
        for (int step = 0; step < tokens; step += 32) {
          for (int lane = 0; lane < std::min(32, tokens - step); ++lane) {
            const uint32_t x = stream.state[lane];
            const uint32_t slot = x & 4095;
            const bool other = slot < kStart;
            stream.state[lane] =
                (other ? kStart : kFrequency) * (x >> 12) + slot - (other ? 0 : kStart);
          }
          stream.Renormalise();
        }
      };
      WarpStream<HostWarp> expected(warp, words.data(), words.size() - 2 * lanes, lanes);
      WarpStream<HostWarp> actual(warp, words.data(), words.size() - 2 * lanes, lanes);
      const WarpStream<HostWarp>::Lanes<uint32_t> before = actual.state;
      const bool taken = actual.TakeRun(tokens, kFrequency, kStart);
      if (odd >= 0) {
        EXPECT_FALSE(taken);
      }
      if (!taken) {
        for (int lane = 0; lane < 32; ++lane) EXPECT_EQ(actual.state[lane], before[lane]);
        symbol_by_symbol(actual);
      }
      symbol_by_symbol(expected);
      for (int lane = 0; lane < 32; ++lane) EXPECT_EQ(actual.state[lane], expected.state[lane]);
      symbol_by_symbol(actual);
      EXPECT_TRUE(actual.Finished()) << tokens << ", " << odd;
    }
  }
  // Far from the limits, a run is taken.
  const std::vector<uint16_t> words(64, 0x8001);
  const HostWarp warp;
  WarpStream<HostWarp> stream(warp, words.data(), 0, 32);
  EXPECT_TRUE(stream.TakeRun(256, 4095, 0));
}

TEST(EntropyWarpTest, OverridesExceptionsAndWideCellsAreTheOracles) {
  const KvGeometry geometry = TestGeometry(2, 2, 32, KvDtype::kBF16);
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, ModelOptions());
  auto encoder = *ChunkEncoder::Create(profile);
  WarpDecoder warp(profile);
  // Another model's KV, and values far beyond what was calibrated.
  TestKv kv = MakeTestKv(geometry, 200, 4, 5);
  TestRandom random(1);
  for (int i = 0; i < 40; ++i) kv.keys(1)[random.Below(kv.keys(1).size())] = 0x4700;  // 32768
  const EncodedChunk chunk = *encoder->Encode(kv.view(), 500);
  for (int levels = 1; levels <= 4; ++levels) {
    const Outcome expected = OracleCells(profile->data(), ViewsOf(chunk, levels));
    const Outcome actual = warp.Decode(ViewsOf(chunk, levels));
    ASSERT_TRUE(expected.status.ok());
    ASSERT_TRUE(actual.status.ok()) << actual.status;
    EXPECT_TRUE(expected.overridden);
    EXPECT_GT(actual.exceptions, 100u);
    if (levels == 4) {
      EXPECT_TRUE(actual.wide);
    }
    EXPECT_TRUE(actual.cells == expected.cells) << levels << " levels";
  }
}

TEST(EntropyWarpTest, OrdinaryChunksHaveNarrowCells) {
  const KvGeometry geometry = TestGeometry(2, 2, 32);
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, ModelOptions());
  const TestKv kv = MakeTestKv(geometry, 256, 3, 78);
  const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(kv.view(), 0);
  EXPECT_FALSE(WarpDecoder(profile).Decode(ViewsOf(chunk, 2)).wide);
}

// Damages one level's segment and seals it again, so that only its contents are wrong.
TEST(EntropyWarpTest, HostileSegmentsGiveTheOraclesCellsOrAnError) {
  const KvGeometry geometry = TestGeometry(1, 2, 32);
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, ModelOptions());
  auto encoder = *ChunkEncoder::Create(profile);
  WarpDecoder warp(profile);
  TestRandom random(7);
  int refused = 0;
  int accepted = 0;
  for (const int tokens : {20, 77}) {
    const TestKv kv = MakeTestKv(geometry, tokens, 4, 78);
    const EncodedChunk chunk = *encoder->Encode(kv.view(), 3);
    for (int round = 0; round < 400; ++round) {
      const int levels = 1 + static_cast<int>(random.Below(4));
      std::string damaged = chunk.segments[levels - 1];
      const size_t body = damaged.size() - 80;
      for (uint64_t i = 0; i <= random.Below(3); ++i) {
        // Sections only: what the header says is the parser's matter (segment_test).
        damaged[72 + random.Below(body)] ^= static_cast<char>(1 + random.Below(255));
      }
      Reseal(&damaged);
      Views views = ViewsOf(chunk, levels);
      views.back() = damaged;
      const Outcome expected = OracleCells(profile->data(), views);
      const Outcome actual = warp.Decode(views);
      ASSERT_EQ(expected.status.ok(), actual.status.ok())
          << "round " << round << ": " << expected.status << " against " << actual.status;
      if (expected.status.ok()) {
        ASSERT_TRUE(expected.cells == actual.cells) << "round " << round;
        ++accepted;
      } else {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 300);
  EXPECT_GT(accepted, 0);
}

// Blocks whose sizes are moved between neighbours, or cut.
TEST(EntropyWarpTest, WrongBlockTablesAreErrors) {
  const KvGeometry geometry = TestGeometry(2, 4, 64);
  const std::shared_ptr<const Profile> profile = MakeTestProfile(geometry, 3, ModelOptions());
  const TestKv kv = MakeTestKv(geometry, 256, 3, 78);
  const EncodedChunk chunk = *(*ChunkEncoder::Create(profile))->Encode(kv.view(), 0);
  WarpDecoder warp(profile);
  const SegmentView view = *ParseSegment(profile->data(), chunk.segments[3]);
  ASSERT_GT(view.blocks.size(), 2u);
  SegmentSections sections;
  sections.class_override = std::string(view.class_override);
  sections.exceptions = std::string(view.exceptions);
  sections.payload = std::string(view.payload);
  for (int kind = 0; kind < 6; ++kind) {
    sections.blocks = view.blocks;
    switch (kind) {
      case 0:
        break;  // as it was
      case 1:
        sections.blocks[0].bytes -= 2;
        sections.blocks[1].bytes += 2;
        break;
      case 2:
        sections.blocks[0].bytes += sections.blocks[1].bytes;
        sections.blocks[1].bytes = 0;
        break;
      case 3:
        --sections.blocks[0].coordinates;
        ++sections.blocks[1].coordinates;
        break;
      case 4:
        --sections.blocks.back().coordinates;
        break;
      case 5:
        sections.blocks[0].bytes -= 1;
        sections.blocks[1].bytes += 1;
        break;
    }
    const std::string bytes = WriteSegment(profile->data(), view.header, sections);
    Views views = ViewsOf(chunk, 4);
    views.back() = bytes;
    EXPECT_EQ(warp.Decode(views).status.code(),
              kind == 0 ? absl::StatusCode::kOk : absl::StatusCode::kDataLoss)
        << kind;
    EXPECT_EQ(OracleCells(profile->data(), views).status.ok(), kind == 0) << kind;
  }
}

}  // namespace
}  // namespace cuda
}  // namespace kvstream

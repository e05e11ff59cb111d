#include "codec/level_coder.h"

#include <cmath>
#include <cstdlib>
#include <vector>

#include "codec/quantize.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

// An identity profile of `coordinates` coordinates, all of one class, with the parametric tables.
ProfileData MakeData(int coordinates, int levels, double scale) {
  ProfileData data;
  data.levels = levels;
  data.calibrated = true;
  data.coordinates = coordinates;
  const ParametricLadder ladder = MakeLadder(levels);
  data.tables = ParametricTables(ladder, levels);
  int klass = 0;
  while (ladder.scale[klass / 2] < scale) klass += 2;
  data.classes.assign(coordinates, static_cast<uint8_t>(klass + 1));
  return data;
}

std::vector<int32_t> Cells(const ProfileData& data, int tokens, double scale, uint64_t seed) {
  TestRandom random(seed);
  std::vector<int32_t> cells(data.coordinates * tokens);
  for (int32_t& cell : cells)
    cell = CellOf(static_cast<float>(scale * random.Normal()),
                  static_cast<float>(PowerOf3(data.levels - 1)));
  return cells;
}

struct Coded {
  std::vector<std::vector<int32_t>> cells;  // by level
  std::vector<SegmentSections> sections;
  std::vector<std::vector<uint8_t>> classes;
};

Coded Encode(const ProfileData& data, int tokens, const std::vector<int32_t>& finest) {
  Coded out;
  out.cells.assign(data.levels, finest);
  for (int level = data.levels - 2; level >= 0; --level) {
    for (size_t i = 0; i < finest.size(); ++i)
      out.cells[level][i] = ParentCell(out.cells[level + 1][i]);
  }
  LevelEncoder encoder(data);
  std::vector<uint8_t> classes = data.classes;
  for (int level = 0; level < data.levels; ++level) {
    SegmentSections sections;
    encoder.Encode(level, out.cells[level].data(), tokens, &classes, &sections);
    out.sections.push_back(sections);
    out.classes.push_back(classes);
  }
  return out;
}

SegmentView View(const SegmentSections& sections, int level) {
  SegmentView view;
  view.header.level = level;
  view.class_override = sections.class_override;
  view.exceptions = sections.exceptions;
  view.blocks = sections.blocks;
  view.payload = sections.payload;
  return view;
}

void ExpectRoundTrip(const ProfileData& data, int tokens, const std::vector<int32_t>& finest) {
  const Coded coded = Encode(data, tokens, finest);
  LevelDecoder decoder(data);
  std::vector<uint8_t> classes = data.classes;
  std::vector<int32_t> cells(finest.size(), -77);
  for (int level = 0; level < data.levels; ++level) {
    const absl::Status status =
        decoder.Decode(View(coded.sections[level], level), tokens, &classes, cells.data());
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(classes, coded.classes[level]);
    ASSERT_EQ(cells, coded.cells[level]) << "level " << level;
  }
}

TEST(LevelCoderTest, CellsSurviveAtEveryScaleAndTokenCount) {
  for (const double scale : {0.001, 0.01, 0.3, 1.0, 20.0, 300.0}) {
    for (const int tokens : {1, 31, 32, 33, 100}) {
      SCOPED_TRACE(testing::Message() << "scale " << scale << " tokens " << tokens);
      const ProfileData data = MakeData(70, 4, scale);
      ExpectRoundTrip(data, tokens, Cells(data, tokens, scale, 5));
    }
  }
}

TEST(LevelCoderTest, CellsSurviveWhereTheClassesAreAllWrong) {
  for (const double scale : {0.002, 0.5, 50.0, 5000.0}) {
    SCOPED_TRACE(scale);
    const ProfileData data = MakeData(300, 3, 0.7);
    ExpectRoundTrip(data, 64, Cells(data, 64, scale, 6));
  }
}

TEST(LevelCoderTest, LonelyOutliersAndTheLargestCellsSurvive) {
  const ProfileData data = MakeData(40, 4, 0.01);
  std::vector<int32_t> cells(40 * 50, 0);
  cells[0] = 1;
  cells[777] = -kMaxBaseSymbol * 27;
  cells[778] = kMaxBaseSymbol * 27;
  cells[1999] = -13;
  ExpectRoundTrip(data, 50, cells);
}

TEST(LevelCoderTest, EveryNumberOfLevelsWorks) {
  for (int levels = 1; levels <= kMaxLevels; ++levels) {
    const ProfileData data = MakeData(64, levels, 0.9);
    ExpectRoundTrip(data, 40, Cells(data, 40, 0.9, 7));
  }
}

TEST(LevelCoderTest, NoTokensMakeNoPayload) {
  const ProfileData data = MakeData(10, 2, 1);
  const Coded coded = Encode(data, 0, {});
  EXPECT_TRUE(coded.sections[0].payload.empty());
  ExpectRoundTrip(data, 0, {});
}

// Entropy of symbols under the tables of their classes plus 2 % and the states is an upper bound of
// what is stored.
TEST(LevelCoderTest, PayloadIsCloseToTheEntropy) {
  for (const double scale : {0.4, 1.0, 6.0}) {
    const int tokens = 256;
    const ProfileData data = MakeData(600, 3, scale);
    const Coded coded = Encode(data, tokens, Cells(data, tokens, scale, 8));
    const CodeLengths lengths(data.tables);
    for (int level = 0; level < 3; ++level) {
      double bits = 0;
      for (int i = 0; i < data.coordinates; ++i) {
        CodeLengths::Base base;
        CodeLengths::Refine refine;
        for (int t = 0; t < tokens; ++t) {
          const int32_t cell = coded.cells[level][i * tokens + t];
          base.Add(cell);
          if (level == 0) continue;
          const int32_t parent = coded.cells[level - 1][i * tokens + t];
          ++refine.count[std::min(std::abs(parent), 2)]
                        [(cell - 3 * parent) * (parent < 0 ? -1 : 1) + 1];
        }
        bits += level == 0 ? lengths.BaseBits(coded.classes[0][i], base)
                           : lengths.RefineBits(level, coded.classes[level][i], refine);
      }
      const double stored = coded.sections[level].payload.size() * 8.0;
      EXPECT_LT(stored, bits * 1.015 + 1100) << "scale " << scale << " level " << level;
      EXPECT_GT(stored, bits * 0.99);
      for (const BlockEntry& block : coded.sections[level].blocks) EXPECT_GT(block.bytes, 3500u);
    }
  }
}

// Ideal entropy of a quantised Gauss variable, for the tables themselves.
TEST(LevelCoderTest, TablesAreCloseToTheSourceEntropy) {
  const double scale = 1.0;
  const int tokens = 256;
  const ProfileData data = MakeData(400, 1, scale);
  const Coded coded = Encode(data, tokens, Cells(data, tokens, scale, 9));
  std::vector<double> count(41, 0);
  for (int32_t cell : coded.cells[0]) count[std::min(40, std::abs(cell) * 2 + (cell < 0))] += 1;
  double bits = 0;
  for (double n : count) {
    if (n > 0) bits -= n * std::log2(n / (400.0 * tokens));
  }
  EXPECT_LT(coded.sections[0].payload.size() * 8.0, bits * 1.03);
}

TEST(LevelCoderTest, OverridesPayWhereTheCalibrationIsWrong) {
  const int tokens = 256;
  const ProfileData data = MakeData(500, 2, 4.0);
  const std::vector<int32_t> cells = Cells(data, tokens, 0.5, 10);
  const Coded coded = Encode(data, tokens, cells);
  ASSERT_FALSE(coded.sections[0].class_override.empty());
  const CodeLengths lengths(data.tables);
  double bits_without = 0;
  for (int i = 0; i < data.coordinates; ++i) {
    CodeLengths::Base base;
    for (int t = 0; t < tokens; ++t) base.Add(coded.cells[0][i * tokens + t]);
    bits_without += lengths.BaseBits(data.classes[i], base);
  }
  EXPECT_LT((coded.sections[0].payload.size() + coded.sections[0].class_override.size()) * 8.0,
            0.7 * bits_without);
}

TEST(LevelCoderTest, NoOverrideWhereTheCalibrationFits) {
  const ProfileData data = MakeData(100, 1, 1.0);
  const Coded coded = Encode(data, 32, Cells(data, 32, 1.0, 11));
  EXPECT_LT(coded.sections[0].class_override.size(), 60u);
}

class LevelDamageTest : public testing::Test {
 protected:
  absl::Status DecodeLevelZero(const SegmentSections& sections) {
    LevelDecoder decoder(data_);
    std::vector<uint8_t> classes = data_.classes;
    std::vector<int32_t> cells(data_.coordinates * 64);
    return decoder.Decode(View(sections, 0), 64, &classes, cells.data());
  }

  const ProfileData data_ = MakeData(60, 2, 1.0);
  SegmentSections sections_ = Encode(data_, 64, Cells(data_, 64, 1.0, 12)).sections[0];
};

TEST_F(LevelDamageTest, IntactSectionsDecode) { EXPECT_TRUE(DecodeLevelZero(sections_).ok()); }

TEST_F(LevelDamageTest, RejectsMissingAndSuperfluousWords) {
  SegmentSections shorter = sections_;
  shorter.payload.resize(shorter.payload.size() - 2);
  shorter.blocks[0].bytes -= 2;
  EXPECT_EQ(DecodeLevelZero(shorter).code(), absl::StatusCode::kDataLoss);
  SegmentSections longer = sections_;
  longer.payload += "ab";
  longer.blocks[0].bytes += 2;
  EXPECT_EQ(DecodeLevelZero(longer).code(), absl::StatusCode::kDataLoss);
}

TEST_F(LevelDamageTest, RejectsTooManyAndTooFewCoordinates) {
  SegmentSections more = sections_;
  ++more.blocks[0].coordinates;
  EXPECT_EQ(DecodeLevelZero(more).code(), absl::StatusCode::kDataLoss);
  SegmentSections fewer = sections_;
  --fewer.blocks[0].coordinates;
  EXPECT_EQ(DecodeLevelZero(fewer).code(), absl::StatusCode::kDataLoss);
  SegmentSections none = sections_;
  none.blocks.clear();
  none.payload.clear();
  EXPECT_EQ(DecodeLevelZero(none).code(), absl::StatusCode::kDataLoss);
}

TEST_F(LevelDamageTest, RejectsStatesBelowTheirRange) {
  SegmentSections low = sections_;
  for (int i = 0; i < 4; ++i) low.payload[i] = 0;
  EXPECT_EQ(DecodeLevelZero(low).code(), absl::StatusCode::kDataLoss);
}

TEST_F(LevelDamageTest, RejectsABlockShorterThanItsStates) {
  SegmentSections tiny = sections_;
  tiny.payload.resize(100);
  tiny.blocks[0].bytes = 100;
  EXPECT_EQ(DecodeLevelZero(tiny).code(), absl::StatusCode::kDataLoss);
}

TEST_F(LevelDamageTest, RejectsExceptionsOutOfRange) {
  SegmentSections bad = sections_;
  bad.exceptions = std::string("\xff\xff\xff\xff\x0f\x02", 6);  // beyond the last cell
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kInvalidArgument);
  bad.exceptions = std::string("\x00\xff\xff\xff\xff\x0f", 6);  // symbol beyond the clamp
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kInvalidArgument);
  bad.exceptions = std::string("\x00", 1);  // no symbol
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kInvalidArgument);
  bad.exceptions = std::string(20, '\xff');  // a varint without end
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LevelDamageTest, RejectsOverrideTablesOutOfRange) {
  SegmentSections bad = sections_;
  bad.class_override = std::string("\x00\x01\x00\x10", 4);  // one symbol of frequency 4096
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kInvalidArgument);
  bad.class_override = std::string("\x01\x01\x00\x08\x01\x00\x08", 7);  // the same symbol twice
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kInvalidArgument);
  bad.class_override = std::string("\x01\x00\x00\x08\x01\x00\x07", 7);  // sums to less than 4096
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kInvalidArgument);
  bad.class_override = std::string("\x01\x00\x00\x08\x01\x00\x08", 7);  // no states
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kDataLoss);
  bad.class_override = std::string("\x05\x00", 2);
  EXPECT_EQ(DecodeLevelZero(bad).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvstream

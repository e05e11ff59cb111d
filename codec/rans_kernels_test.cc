// The kernels against the scalar oracle, on every target, with sound and with hostile bytes.
#include "codec/rans_kernels.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "codec/kernel_targets.h"
#include "codec/level_coder.h"
#include "codec/quantize.h"
#include "codec/rans_oracle.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

// Coordinates of every scale from never coded to shifted tables, and their coded levels.
struct Coded {
  ProfileData data;
  int tokens;
  std::vector<std::vector<int32_t>> cells;  // by level
  std::vector<SegmentSections> sections;
  std::vector<std::vector<uint8_t>> classes;

  Coded(int coordinates, int levels, int tokens_, uint64_t seed) : tokens(tokens_) {
    data.levels = levels;
    data.calibrated = true;
    data.coordinates = coordinates;
    const ParametricLadder ladder = MakeLadder(levels);
    data.tables = ParametricTables(ladder, levels);
    TestRandom random(seed);
    std::vector<int32_t> finest;
    for (int i = 0; i < coordinates; ++i) {
      const int klass = static_cast<int>(random.Below(data.tables.classes));
      data.classes.push_back(static_cast<uint8_t>(klass));
      for (int t = 0; t < tokens; ++t) {
        finest.push_back(CellOf(static_cast<float>(ladder.scale[klass / 2] * random.Normal()),
                                static_cast<float>(PowerOf3(levels - 1))));
      }
    }
    cells.assign(levels, finest);
    for (int level = levels - 2; level >= 0; --level)
      std::transform(cells[level + 1].begin(), cells[level + 1].end(), cells[level].begin(),
                     ParentCell);
    LevelEncoder encoder(data);
    std::vector<uint8_t> current = data.classes;
    for (int level = 0; level < levels; ++level) {
      SegmentSections out;
      encoder.Encode(level, cells[level].data(), level == 0 ? nullptr : cells[level - 1].data(),
                     tokens, &current, &out);
      sections.push_back(out);
      classes.push_back(current);
    }
  }
};

struct Decoded {
  bool good;
  std::vector<int32_t> cells;
};

class Decoders {
 public:
  explicit Decoders(const Coded& coded) : coded_(coded), base_(coded.data.tables.classes) {
    slots_.resize(base_.size() * kProbabilityScale);
    for (size_t klass = 0; klass < base_.size(); ++klass) {
      if (coded.data.tables.base[klass].null()) continue;
      PrepareBaseTable(coded.data.tables.base[klass], &slots_[klass * kProbabilityScale],
                       &base_[klass]);
    }
    refine_.resize(coded.data.tables.refine.size());
    for (size_t i = 0; i < refine_.size(); ++i)
      PrepareRefineTable(coded.data.tables.refine[i], &refine_[i]);
  }

  // Payloads are copied to heap memory of exactly their size, so that a sanitizer sees any access
  // beyond.
  Decoded Run(int level, const std::string& payload, bool oracle) {
    const std::vector<uint8_t>& classes = coded_.classes[level];
    std::vector<int32_t> order;
    CodingOrder(coded_.data, level, classes, &order);
    std::vector<std::unique_ptr<char[]>> copies;
    std::vector<RansBlock> blocks;
    size_t at = 0;
    size_t next = 0;
    for (const BlockEntry& block : coded_.sections[level].blocks) {
      const size_t bytes = std::min<size_t>(block.bytes, payload.size() - at);
      copies.emplace_back(new char[bytes]);
      std::copy_n(payload.data() + at, bytes, copies.back().get());
      blocks.push_back({copies.back().get(), bytes, order.data() + next, block.coordinates});
      at += bytes;
      next += block.coordinates;
    }
    Decoded out;
    if (level > 0) out.cells = coded_.cells[level - 1];
    out.cells.resize(coded_.cells[level].size(), -9);
    const ClassTables& tables = coded_.data.tables;
    int32_t* const cells = out.cells.data();
    if (oracle) {
      out.good = level == 0
                     ? OracleBaseBlocks(blocks.data(), blocks.size(), tables.base, classes.data(),
                                        coded_.tokens, cells)
                     : OracleRefineBlocks(blocks.data(), blocks.size(), &tables.Refine(level, 0),
                                          classes.data(), coded_.tokens, cells);
    } else if (level == 0) {
      out.good = RunBase(blocks, classes, cells);
    } else {
      out.good = RunRefine(level, blocks, classes, cells);
    }
    return out;
  }

 private:
  bool RunBase(const std::vector<RansBlock>& blocks, const std::vector<uint8_t>& classes,
               int32_t* cells) {
    CellRows rows;
    rows.Read(cells, coded_.data.coordinates, coded_.tokens, 0, coded_.data.levels);
    std::vector<bool> shifted(classes.size());
    for (size_t i = 0; i < classes.size(); ++i) {
      const BaseTable& table = coded_.data.tables.base[classes[i]];
      if ((table.max_symbol + 1) << table.shift <= CellRows::NarrowMax(0, coded_.data.levels))
        continue;
      rows.Widen(static_cast<int32_t>(i));
      shifted[i] = table.shift > 0;
    }
    const bool good =
        DecodeBaseBlocks(blocks.data(), blocks.size(), base_.data(), classes.data(), &rows);
    for (size_t i = 0; i < classes.size(); ++i) {
      for (int t = 0; t < coded_.tokens; ++t) {
        const int32_t coordinate = static_cast<int32_t>(i);
        cells[i * coded_.tokens + t] = rows.wide(coordinate) == nullptr || shifted[i]
                                           ? rows.Get(coordinate, t)
                                           : rows.narrow(coordinate)[CellRows::Place(t)];
      }
    }
    return good;
  }

  bool RunRefine(int level, const std::vector<RansBlock>& blocks,
                 const std::vector<uint8_t>& classes, int32_t* cells) {
    CellRows rows;
    rows.Read(cells, coded_.data.coordinates, coded_.tokens, level - 1, coded_.data.levels);
    const bool good = DecodeRefineBlocks(blocks.data(), blocks.size(),
                                         &refine_[(level - 1) * coded_.data.tables.classes],
                                         classes.data(), &rows);
    const ClassTables& tables = coded_.data.tables;
    for (size_t i = 0; i < classes.size(); ++i) {
      if (tables.Null(level, classes[i])) continue;
      for (int t = 0; t < coded_.tokens; ++t) {
        int32_t& cell = cells[i * coded_.tokens + t];
        // A narrow row has its parents, of wide ones only what they are clamped to.
        const int32_t parent =
            rows.wide(static_cast<int32_t>(i)) == nullptr ? cell : std::max(-2, std::min(2, cell));
        cell = 3 * cell + rows.narrow(static_cast<int32_t>(i))[CellRows::Place(t)] - 3 * parent;
      }
    }
    return good;
  }

  const Coded& coded_;
  std::vector<BaseDecodeTable> base_;
  std::vector<uint32_t> slots_;
  std::vector<RefineDecodeTable> refine_;
};

TEST(RansKernelsTest, EveryTargetDecodesWhatTheOracleDecodes) {
  for (const int tokens : {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 100, 256}) {
    SCOPED_TRACE(tokens);
    const Coded coded(300, 3, tokens, 17 + tokens);
    Decoders decoders(coded);
    for (int level = 0; level < 3; ++level) {
      SCOPED_TRACE(level);
      const std::string& payload = coded.sections[level].payload;
      const Decoded expected = decoders.Run(level, payload, true);
      ASSERT_TRUE(expected.good);
      ForEachTarget([&] {
        const Decoded decoded = decoders.Run(level, payload, false);
        ASSERT_TRUE(decoded.good);
        ASSERT_EQ(decoded.cells, expected.cells);
      });
    }
  }
}

TEST(RansKernelsTest, EveryTargetRejectsWhatTheOracleRejects) {
  for (const int tokens : {5, 32, 77}) {
    SCOPED_TRACE(tokens);
    const Coded coded(200, 2, tokens, 99);
    Decoders decoders(coded);
    TestRandom random(5);
    for (int round = 0; round < 60; ++round) {
      const int level = round % 2;
      std::string payload = coded.sections[level].payload;
      const int kind = static_cast<int>(random.Below(3));
      if (kind == 0) payload.resize(random.Below(payload.size()));
      for (int flips = kind == 1 ? 1 : 0; flips > 0; --flips)
        payload[random.Below(payload.size())] ^= static_cast<char>(1 << random.Below(8));
      if (kind == 2) {
        for (char& byte : payload) byte = static_cast<char>(random.Next());
      }
      const Decoded expected = decoders.Run(level, payload, true);
      ForEachTarget([&] {
        const Decoded decoded = decoders.Run(level, payload, false);
        ASSERT_EQ(decoded.good, expected.good);
        if (!expected.good) return;
        ASSERT_EQ(decoded.cells, expected.cells);
      });
    }
  }
}

// A table of one slot for every symbol, and of one symbol for nearly every slot.
TEST(RansKernelsTest, TablesOfEveryLengthAreSearchedRight) {
  for (int max_symbol = 1; max_symbol <= kMaxBaseSymbolInTable; ++max_symbol) {
    for (const bool flat : {false, true}) {
      BaseTable table;
      table.max_symbol = static_cast<uint8_t>(max_symbol);
      std::vector<double> weights(2 * max_symbol + 1, flat ? 1.0 : 1e-9);
      weights[max_symbol / 2] = 1;
      table.frequency = FrequenciesFromWeights(weights);
      std::vector<uint32_t> slots(kProbabilityScale);
      BaseDecodeTable prepared;
      PrepareBaseTable(table, slots.data(), &prepared);
      // States that run through the slots; no words are needed for one step of large states.
      std::string block;
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const uint32_t state = 0xfff00000u | (lane * 127 + max_symbol * 31) % kProbabilityScale;
        block.append(reinterpret_cast<const char*>(&state), 4);
      }
      const int32_t coordinate = 0;
      const uint8_t klass = 0;
      const RansBlock run = {block.data(), block.size(), &coordinate, 1};
      std::vector<int32_t> expected(kLanes);
      OracleBaseBlocks(&run, 1, {table}, &klass, kLanes, expected.data());
      ForEachTarget([&] {
        CellRows rows;
        rows.Reset(1, kLanes, 1);
        DecodeBaseBlocks(&run, 1, &prepared, &klass, &rows);
        std::vector<int32_t> decoded(kLanes);
        rows.Write(decoded.data());
        ASSERT_EQ(decoded, expected) << max_symbol;
      });
    }
  }
}

}  // namespace
}  // namespace kvstream

// The encoding kernels against the scalar code, on every target.
#include "codec/rans_encode_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "codec/kernel_targets.h"
#include "codec/quantize.h"
#include "codec/test_kv.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

constexpr int kLevels = 3;

// As a narrow row, its padding 0.
std::vector<int16_t> Narrow(const std::vector<int32_t>& row) {
  std::vector<int16_t> out((row.size() + kLanes - 1) / kLanes * kLanes, 0);
  for (size_t t = 0; t < row.size(); ++t)
    out[CellRows::Place(static_cast<int64_t>(t))] = static_cast<int16_t>(row[t]);
  return out;
}

std::vector<int32_t> RandomRow(int tokens, double scale, TestRandom& random) {
  std::vector<int32_t> row(tokens);
  for (int32_t& cell : row) cell = CellOf(static_cast<float>(scale * random.Normal()), 1.0f);
  return row;
}

// As the steps of docs/format.md, in reverse.
void PutBase(const BaseTable& table, const std::vector<int32_t>& cells, RansEncoder* rans) {
  const int tokens = static_cast<int>(cells.size());
  for (int step = (tokens - 1) / kLanes * kLanes; step >= 0; step -= kLanes) {
    const int lanes = std::min(kLanes, tokens - step);
    for (const bool bits : {true, false}) {
      for (int lane = lanes - 1; lane >= 0; --lane) {
        int32_t cell = cells[step + lane];
        if (std::abs(cell >> table.shift) > table.max_symbol) cell = 0;
        const int index = (cell >> table.shift) + table.max_symbol;
        uint32_t start = 0;
        for (int i = 0; i < index; ++i) start += table.frequency[i];
        if (!bits) rans->Put(lane, start, table.frequency[index]);
        if (bits && table.shift > 0)
          rans->PutBits(lane, cell & ((1 << table.shift) - 1), table.shift);
      }
    }
  }
}

void PutRefine(const RefineTable& table, const std::vector<int32_t>& cells,
               const std::vector<int32_t>& parents, RansEncoder* rans) {
  const int tokens = static_cast<int>(cells.size());
  for (int step = (tokens - 1) / kLanes * kLanes; step >= 0; step -= kLanes) {
    for (int lane = std::min(kLanes, tokens - step) - 1; lane >= 0; --lane) {
      const int32_t parent = parents[step + lane];
      const int32_t r = cells[step + lane] - 3 * parent;
      const auto& frequency = table.frequency[std::min(std::abs(parent), 2)];
      const int index = (parent < 0 ? -r : r) + 1;
      uint32_t start = 0;
      for (int i = 0; i < index; ++i) start += frequency[i];
      rans->Put(lane, start, frequency[index]);
    }
  }
}

TEST(RansEncodeKernelsTest, EveryTargetWritesTheBytesOfTheScalarEncoder) {
  const ParametricLadder ladder = MakeLadder(kLevels);
  const ClassTables tables = ParametricTables(ladder, kLevels);
  for (const int tokens : {1, 2, 7, 8, 15, 17, 31, 32, 33, 63, 100, 256}) {
    SCOPED_TRACE(tokens);
    for (const int level : {0, 1}) {
      TestRandom random(tokens + level);
      std::vector<int> classes;
      std::vector<std::vector<int32_t>> parents;
      std::vector<std::vector<int32_t>> cells;
      for (int i = 0; i < 60; ++i) {
        const int klass = static_cast<int>(random.Below(tables.classes));
        if (tables.Null(level, klass)) continue;
        classes.push_back(klass);
        // Beyond its class now and then, for exceptions.
        const double scale = ladder.scale[klass / 2] * (random.Below(4) == 0 ? 3 : 1);
        parents.push_back(RandomRow(tokens, scale, random));
        cells.push_back(parents.back());
        for (int32_t& cell : cells.back()) {
          if (level > 0) cell = 3 * cell + static_cast<int32_t>(random.Below(3)) - 1;
        }
      }
      RansEncoder scalar;
      std::string expected;
      for (size_t i = 0; i < classes.size(); ++i) {
        if (level == 0) {
          PutBase(tables.base[classes[i]], cells[i], &scalar);
        } else {
          PutRefine(tables.Refine(1, classes[i]), cells[i], parents[i], &scalar);
        }
      }
      scalar.Finish(std::min(kLanes, tokens), &expected);
      ForEachTarget([&] {
        RansRowEncoder rans;
        for (int round = 0; round < 2; ++round) {
          std::string bytes;
          for (size_t i = 0; i < classes.size(); ++i) {
            BaseEncodeTable table;
            PrepareBaseTable(tables.base[classes[i]], &table);
            const std::vector<int16_t> narrow = Narrow(cells[i]);
            if (level > 0) {
              RefineEncodeTable refine;
              PrepareRefineTable(tables.Refine(1, classes[i]), &refine);
              rans.PutRefine(refine, narrow.data(), Narrow(parents[i]).data(), tokens);
            } else if (i % 2 == 0) {
              rans.PutBase(table, narrow.data(), tokens);
            } else {
              rans.PutBase(table, cells[i].data(), tokens);
            }
          }
          rans.Finish(std::min(kLanes, tokens), &bytes);
          ASSERT_TRUE(bytes == expected) << "level " << level << " round " << round;
        }
      });
    }
  }
}

// Division is the delicate part: every frequency, with states next to its multiples.
TEST(RansEncodeKernelsTest, EveryFrequencyDividesExactly) {
  TestRandom random(3);
  for (int frequency = 1; frequency < kProbabilityScale; frequency += 1 + frequency / 64) {
    BaseTable table;
    table.max_symbol = 1;
    const int other = kProbabilityScale - frequency - 1;
    if (other < 1) break;
    table.frequency = {1, static_cast<uint16_t>(frequency), static_cast<uint16_t>(other)};
    const std::vector<int32_t> cells = RandomRow(256, 1.5, random);
    RansEncoder scalar;
    PutBase(table, cells, &scalar);
    std::string expected;
    scalar.Finish(kLanes, &expected);
    ForEachTarget([&] {
      BaseEncodeTable prepared;
      PrepareBaseTable(table, &prepared);
      RansRowEncoder rans;
      std::string bytes;
      rans.PutBase(prepared, cells.data(), 256);
      rans.Finish(kLanes, &bytes);
      ASSERT_TRUE(bytes == expected) << frequency;
      bytes.clear();
      rans.PutBase(prepared, Narrow(cells).data(), 256);
      rans.Finish(kLanes, &bytes);
      ASSERT_TRUE(bytes == expected) << frequency;
    });
  }
}

TEST(RansEncodeKernelsTest, ParentsAreExactUpToTheLargestCells) {
  std::vector<int32_t> cells;
  for (int32_t cell = -100; cell <= 100; ++cell) cells.push_back(cell);
  TestRandom random(4);
  for (int bits = 8; bits < 31; ++bits) {
    for (int i = 0; i < 40; ++i) {
      const int32_t cell = static_cast<int32_t>(random.Below(int64_t{1} << bits));
      cells.insert(cells.end(), {cell, -cell});
    }
  }
  for (const int steps : {1, 2, 3, 7}) {
    std::vector<int32_t> expected = cells;
    for (int step = 0; step < steps; ++step)
      std::transform(expected.begin(), expected.end(), expected.begin(), ParentCell);
    ForEachTarget([&] {
      std::vector<int32_t> parents(cells.size());
      ParentRow(cells.data(), static_cast<int64_t>(cells.size()), steps, parents.data());
      ASSERT_EQ(parents, expected);
    });
  }
}

TEST(RansEncodeKernelsTest, PanelsBecomeCellsThatSayWhetherTheyFit) {
  TestRandom random(1);
  std::vector<float> values = {0.0f, -0.0f, 0.6f, -0.6f, 1.5f, 1e9f, -1e9f, 1e38f};
  // Edges of cells and their neighbours, at every level.
  for (int level = 0; level < kMaxLevels; ++level) {
    for (int v = 0; v < 40; ++v) {
      const float edge = Unwarp((static_cast<float>(v) + 0.5f) / PowerOf3(level));
      values.insert(values.end(),
                    {edge, -edge, std::nextafter(edge, 0.0f), std::nextafter(edge, 9e9f)});
    }
  }
  for (int i = 0; i < 3001; ++i)
    values.push_back(static_cast<float>(std::exp(3 * random.Normal()) * random.Normal()));
  for (int level = 0; level < kMaxLevels; ++level) {
    const float power = static_cast<float>(PowerOf3(level));
    ForEachTarget([&] {
      const int64_t rows = static_cast<int64_t>(values.size()) / kLanes;
      std::vector<int16_t> cells(2 * rows * kLanes);
      std::vector<uint8_t> fits(rows);
      QuantisePanel(values.data(), rows, power, cells.data(), 2 * kLanes, fits.data());
      for (int64_t row = 0; row < rows; ++row) {
        bool expected = true;
        for (int t = 0; t < kLanes; ++t) {
          const int32_t cell = CellOf(values[row * kLanes + t], power);
          expected &= std::abs(cell) <= CellRows::kFinestMax;
          ASSERT_EQ(cells[2 * row * kLanes + CellRows::Place(t)], static_cast<int16_t>(cell));
        }
        ASSERT_EQ(fits[row] != 0, expected);
      }
    });
  }
}

TEST(RansEncodeKernelsTest, CountsAndRangesAreThoseOfTheCells) {
  TestRandom random(6);
  for (const int tokens : {1, 3, 16, 31, 40, 256}) {
    const std::vector<int32_t> parents = RandomRow(tokens, 1.5, random);
    std::vector<int32_t> cells = parents;
    for (int32_t& cell : cells) cell = 3 * cell + static_cast<int32_t>(random.Below(3)) - 1;
    int32_t expected[kRefineContexts][3] = {};
    for (int t = 0; t < tokens; ++t) {
      const int32_t r = (cells[t] - 3 * parents[t]) * (parents[t] < 0 ? -1 : 1);
      ++expected[std::min(std::abs(parents[t]), 2)][r + 1];
    }
    const std::vector<int16_t> narrow = Narrow(cells);
    const int64_t stride = static_cast<int64_t>(narrow.size());
    ForEachTarget([&] {
      int32_t count[kRefineContexts][3] = {};
      CountRefine(narrow.data(), Narrow(parents).data(), tokens, count);
      for (int i = 0; i < 9; ++i) ASSERT_EQ(count[i / 3][i % 3], expected[i / 3][i % 3]);
      std::vector<int16_t> back(stride);
      ParentRow(narrow.data(), stride, back.data());
      ASSERT_EQ(back, Narrow(parents));
      int32_t low;
      int32_t high;
      CellRange(narrow.data(), stride, &low, &high);
      ASSERT_EQ(low, *std::min_element(narrow.begin(), narrow.end()));
      ASSERT_EQ(high, *std::max_element(narrow.begin(), narrow.end()));
      std::vector<int32_t> found(high - low + 1);
      CountCells(narrow.data(), stride, low, high - low + 1, found.data());
      for (int32_t cell = low; cell <= high; ++cell)
        ASSERT_EQ(found[cell - low], std::count(narrow.begin(), narrow.end(), cell));
    });
  }
}

TEST(RansEncodeKernelsTest, NarrowParentsAreExactUpToTheLargestCells) {
  std::vector<int16_t> cells;
  for (int32_t cell = -CellRows::kFinestMax; cell <= CellRows::kFinestMax; ++cell)
    cells.push_back(static_cast<int16_t>(cell));
  cells.resize((cells.size() + kLanes - 1) / kLanes * kLanes, 0);
  ForEachTarget([&] {
    std::vector<int16_t> parents(cells.size());
    ParentRow(cells.data(), static_cast<int64_t>(cells.size()), parents.data());
    for (size_t i = 0; i < cells.size(); ++i) ASSERT_EQ(parents[i], ParentCell(cells[i]));
  });
}

TEST(RansEncodeKernelsTest, TheCheapestClassIsTheReferenceOrTheFirst) {
  TestRandom random(8);
  constexpr int kWidth = 48;
  constexpr int kRows = 20;
  const std::vector<float> lengths = [&] {
    std::vector<float> out(5 * kWidth);
    for (float& x : out) x = static_cast<float>(random.Below(40)) / 4;
    return out;
  }();
  std::vector<const float*> terms;
  for (int i = 0; i < 5; ++i) terms.push_back(&lengths[i * kWidth]);
  std::vector<float> prices(kWidth);
  for (float& x : prices) x = static_cast<float>(random.Below(8)) / 2;
  ForEachTarget([&] {
    std::vector<float> costs(kRows * kWidth);
    for (int row = 0; row < kRows; ++row) {
      const std::vector<float> counts = {1, 2.0f * row, 3, 0, 5};
      ClassCosts(terms.data(), counts.data(), 5, kWidth, &costs[row * kWidth]);
      for (int k = 0; k < kWidth; ++k) {
        float expected = 0;
        for (int i = 0; i < 5; ++i) expected += counts[i] * terms[i][k];
        ASSERT_EQ(costs[row * kWidth + k], expected);
      }
    }
    for (const int reference : {0, 20, 47}) {
      std::vector<int16_t> chosen(kRows);
      CheapestIndices(costs.data(), kRows, prices.data(), kWidth, reference, chosen.data());
      for (int row = 0; row < kRows; ++row) {
        int best = reference;
        const auto cost = [&](int k) { return costs[row * kWidth + k] + prices[k]; };
        for (int k = 0; k < kWidth; ++k) {
          if (cost(k) < cost(best)) best = k;
        }
        ASSERT_EQ(chosen[row], best);
      }
    }
  });
}

}  // namespace
}  // namespace kvstream

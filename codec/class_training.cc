#include "codec/class_training.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace kvstream {
namespace {

constexpr int kRounds = 3;
// The parametric distribution counts as this many symbols of every class and context.
constexpr double kPriorSymbols = 2000;
constexpr double kPriorValues = 500;

void ChooseClasses(const std::vector<CoordinateStatistics>& coordinates, const ClassTables& tables,
                   std::vector<uint8_t>* classes) {
  const CodeLengths lengths(tables);
  classes->resize(coordinates.size());
  for (size_t i = 0; i < coordinates.size(); ++i) {
    double best_bits = 0;
    for (int klass = 0; klass < tables.classes; ++klass) {
      double bits = lengths.BaseBits(klass, coordinates[i].base);
      for (int level = 1; level < tables.levels; ++level)
        bits += lengths.RefineBits(level, klass, coordinates[i].refine[level - 1]);
      if (klass != 0 && bits >= best_bits) continue;
      (*classes)[i] = static_cast<uint8_t>(klass);
      best_bits = bits;
    }
  }
}

void FitBase(const std::vector<const CoordinateStatistics*>& members,
             const ParametricLadder& ladder, int klass, BaseTable* table) {
  if (table->null()) return;
  std::vector<double> weights = ParametricBase(ladder, klass, table->shift, table->max_symbol);
  for (double& weight : weights) weight *= kPriorSymbols;
  const auto add = [&](int32_t cell, double count) {
    const int32_t symbol = cell >> table->shift;
    if (std::abs(symbol) <= table->max_symbol) weights[symbol + table->max_symbol] += count;
  };
  for (const CoordinateStatistics* member : members) {
    for (int32_t cell = member->base.low; cell <= member->base.high; ++cell) {
      add(cell, member->base.count[cell + CodeLengths::Base::kReach]);
    }
    for (int32_t cell : member->base.far) add(cell, 1);
  }
  // Coordinates have no preferred sign: the eigenvectors' is arbitrary.
  for (int symbol = 1; symbol <= table->max_symbol; ++symbol) {
    double& a = weights[table->max_symbol - symbol];
    double& b = weights[table->max_symbol + symbol];
    if (table->shift == 0) a = b = (a + b) / 2;
  }
  table->frequency = FrequenciesFromWeights(weights);
}

void FitRefine(const std::vector<const CoordinateStatistics*>& members,
               const ParametricLadder& ladder, int klass, int level, RefineTable* table) {
  if (table->null) return;
  const auto prior = ParametricRefine(ladder, klass, level);
  for (int context = 0; context < kRefineContexts; ++context) {
    std::array<double, 3> weights;
    for (int i = 0; i < 3; ++i) {
      weights[i] = prior[context][i] * kPriorSymbols;
      for (const CoordinateStatistics* member : members)
        weights[i] += member->refine[level - 1].count[context][i];
    }
    if (context == 0) weights[0] = weights[2] = (weights[0] + weights[2]) / 2;
    const std::vector<uint16_t> frequency =
        FrequenciesFromWeights({weights[0], weights[1], weights[2]});
    std::copy(frequency.begin(), frequency.end(), table->frequency[context].begin());
  }
}

}  // namespace

void CoordinateStatistics::Add(float value, int levels) {
  int32_t cell = CellOf(value, static_cast<float>(PowerOf3(levels - 1)));
  const float magnitude = std::abs(value);
  for (int level = levels - 1; level >= 0; --level) {
    if (cell != 0) {
      const int32_t absolute = std::abs(cell);
      const int slot = absolute == 1 ? 0 : 1;
      below[level][slot] += Unwarp(absolute / static_cast<double>(PowerOf3(level))) - magnitude;
      ++counted[level][slot];
    }
    if (level == 0) break;
    const int32_t parent = ParentCell(cell);
    const int32_t r = (cell - 3 * parent) * (parent < 0 ? -1 : 1);
    ++refine[level - 1].count[std::min(std::abs(parent), 2)][r + 1];
    cell = parent;
  }
  base.Add(cell);
}

ClassTables TrainTables(const std::vector<CoordinateStatistics>& coordinates, int levels,
                        std::vector<uint8_t>* classes) {
  const ParametricLadder ladder = MakeLadder(levels);
  ClassTables tables = ParametricTables(ladder, levels);
  for (int round = 0; round < kRounds; ++round) {
    ChooseClasses(coordinates, tables, classes);
    for (int klass = 0; klass < tables.classes; ++klass) {
      std::vector<const CoordinateStatistics*> members;
      for (size_t i = 0; i < coordinates.size(); ++i) {
        if ((*classes)[i] == klass) members.push_back(&coordinates[i]);
      }
      if (members.empty()) continue;
      FitBase(members, ladder, klass, &tables.base[klass]);
      for (int level = 1; level < levels; ++level)
        FitRefine(members, ladder, klass, level, &tables.Refine(level, klass));
      for (int level = 0; level < levels; ++level) {
        for (int slot = 0; slot < 2; ++slot) {
          double below = 0;
          double count = kPriorValues;
          for (const CoordinateStatistics* member : members) {
            below += member->below[level][slot];
            count += member->counted[level][slot];
          }
          const double half_cell = 0.6 / PowerOf3(level);
          tables.ShrinkOf(level, klass)[slot] =
              static_cast<float>(std::max(-half_cell, std::min(half_cell, below / count)));
        }
      }
    }
  }
  return tables;
}

}  // namespace kvstream

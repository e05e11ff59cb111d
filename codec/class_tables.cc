#include "codec/class_tables.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "codec/quantize.h"

namespace kvstream {
namespace {

constexpr double kScaleRatio = 1.19;
constexpr double kSmallestScaleInFinestSteps = 0.12;
constexpr double kLargestScaleInBaseSteps = 400;
// Symbols rarer than this stay out of the alphabet: they cost an exception instead.
constexpr double kAlphabetTail = 3e-5;
// Cells less probable than this do not count for where a decoder puts values.
constexpr double kShrinkTail = 1e-9;
// Cells of a level that count for it; beyond, they are small against the scale and need none.
constexpr int64_t kShrinkCells = 1000;
// A coordinate of which fewer symbols than this are not zero is not coded.
constexpr double kNullTail = 3e-6;

// P(X > x), x >= 0.
double Tail(const ParametricLadder& ladder, int klass, double x) {
  const double sigma = ladder.scale[klass / 2];
  if (klass % 2 == 0) return 0.5 * std::exp(-x / (sigma / std::sqrt(2.0)));
  return 0.5 * std::erfc(x / (sigma * std::sqrt(2.0)));
}

// Integral of t f(t) from x on, x >= 0.
double TailMoment(const ParametricLadder& ladder, int klass, double x) {
  const double sigma = ladder.scale[klass / 2];
  if (klass % 2 == 0) {
    const double scale = sigma / std::sqrt(2.0);
    return 0.5 * std::exp(-x / scale) * (x + scale);
  }
  return sigma * std::exp(-0.5 * x * x / (sigma * sigma)) / std::sqrt(2 * M_PI);
}

double Interval(const ParametricLadder& ladder, int klass, double low, double high) {
  if (low < 0) return 1 - Tail(ladder, klass, -low) - Tail(ladder, klass, high);
  return Tail(ladder, klass, low) - Tail(ladder, klass, high);
}

// P(cell v at level), v >= 0 (symmetric).
double CellProbability(const ParametricLadder& ladder, int klass, int level, int64_t v) {
  const double power = PowerOf3(level);
  const double high = Unwarp((v + 0.5) / power);
  return v == 0 ? Interval(ladder, klass, -high, high)
                : Interval(ladder, klass, Unwarp((v - 0.5) / power), high);
}

// How far below the centres of cells first to last (all positive) their mean lies.
double MeanShrink(const ParametricLadder& ladder, int klass, int level, int64_t first,
                  int64_t last) {
  const double power = PowerOf3(level);
  double probability = 0;
  double below = 0;
  for (int64_t v = first; v <= last; ++v) {
    const double low = Unwarp((v - 0.5) / power);
    const double high = Unwarp((v + 0.5) / power);
    // The moment of a cell is a difference of two, which says nothing about a cell far out.
    const double inside = Tail(ladder, klass, low) - Tail(ladder, klass, high);
    if (inside < kShrinkTail) break;
    probability += inside;
    below += inside * Unwarp(v / power) -
             (TailMoment(ladder, klass, low) - TailMoment(ladder, klass, high));
  }
  const double half_cell = 0.6 / power;
  return probability > 0 ? std::max(-half_cell, std::min(half_cell, below / probability)) : 0;
}

}  // namespace

std::vector<uint16_t> FrequenciesFromWeights(const std::vector<double>& weights) {
  const int count = static_cast<int>(weights.size());
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<uint16_t> frequency(count);
  int total = 0;
  for (int i = 0; i < count; ++i) {
    frequency[i] = static_cast<uint16_t>(
        std::max(1.0, std::floor(weights[i] / sum * kProbabilityScale + 0.5)));
    total += frequency[i];
  }
  // Give or take the difference where it changes the code length least.
  while (total != kProbabilityScale) {
    const int change = total < kProbabilityScale ? 1 : -1;
    int best = -1;
    double best_gain = 0;
    for (int i = 0; i < count; ++i) {
      if (change < 0 && frequency[i] == 1) continue;
      const double gain = weights[i] * std::log(1 + change / static_cast<double>(frequency[i]));
      if (best < 0 || gain > best_gain) {
        best = i;
        best_gain = gain;
      }
    }
    frequency[best] = static_cast<uint16_t>(frequency[best] + change);
    total += change;
  }
  return frequency;
}

ParametricLadder MakeLadder(int levels) {
  ParametricLadder ladder;
  double scale = kSmallestScaleInFinestSteps / PowerOf3(levels - 1);
  while (scale < kLargestScaleInBaseSteps * kScaleRatio &&
         2 * ladder.scale.size() + 2 <= kMaxClasses) {
    ladder.scale.push_back(scale);
    scale *= kScaleRatio;
  }
  return ladder;
}

std::vector<double> ParametricBase(const ParametricLadder& ladder, int klass, int shift,
                                   int max_symbol) {
  std::vector<double> weights;
  for (int symbol = -max_symbol; symbol <= max_symbol; ++symbol) {
    double weight = 0;
    const int first = symbol * (1 << shift);
    for (int q = first; q < first + (1 << shift); ++q)
      weight += CellProbability(ladder, klass, 0, std::abs(q));
    weights.push_back(std::max(weight, 1e-9));
  }
  return weights;
}

std::array<std::array<double, 3>, kRefineContexts> ParametricRefine(const ParametricLadder& ladder,
                                                                    int klass, int level) {
  std::array<std::array<double, 3>, kRefineContexts> out;
  const double power = PowerOf3(level - 1);
  // Parents beyond +-1 form one context; those up to 12 standard deviations matter.
  const int64_t last =
      2 + std::min<int64_t>(200, static_cast<int64_t>(12 * ladder.scale[klass / 2] * power));
  for (int context = 0; context < kRefineContexts; ++context) {
    std::array<double, 3> weights = {1e-12, 1e-12, 1e-12};
    const int64_t first_parent = context;
    const int64_t last_parent = context < 2 ? context : last;
    for (int64_t parent = first_parent; parent <= last_parent; ++parent) {
      for (int r = -1; r <= 1; ++r) {
        weights[r + 1] += CellProbability(ladder, klass, level, std::abs(3 * parent + r));
      }
    }
    // The last context of a vanishing distribution is all rounding: make it harmless.
    const double sum = weights[0] + weights[1] + weights[2];
    for (int i = 0; i < 3; ++i) out[context][i] = (weights[i] + 1e-9) / (sum + 3e-9);
  }
  return out;
}

ClassTables ParametricTables(const ParametricLadder& ladder, int levels) {
  ClassTables tables;
  tables.classes = ladder.classes();
  tables.levels = levels;
  tables.base.resize(tables.classes);
  tables.refine.resize(static_cast<size_t>(tables.classes) * (levels - 1));
  tables.shrink.assign(static_cast<size_t>(tables.classes) * levels, Shrink{0, 0});
  for (int klass = 0; klass < tables.classes; ++klass) {
    BaseTable& base = tables.base[klass];
    if (2 * Tail(ladder, klass, kDeadZone) > kNullTail) {
      const double sigma = ladder.scale[klass / 2];
      while (sigma * 5 / (1 << base.shift) > kMaxBaseSymbolInTable) ++base.shift;
      int last = 1;
      while (last < kMaxBaseSymbolInTable &&
             2 * Tail(ladder, klass, Unwarp((last + 0.5) * (1 << base.shift))) > kAlphabetTail)
        ++last;
      base.max_symbol = static_cast<uint8_t>(last);
      base.frequency = FrequenciesFromWeights(ParametricBase(ladder, klass, base.shift, last));
    }
    for (int level = 0; level < levels; ++level) {
      tables.ShrinkOf(level, klass) = {
          static_cast<float>(MeanShrink(ladder, klass, level, 1, 1)),
          static_cast<float>(MeanShrink(ladder, klass, level, 2, kShrinkCells))};
    }
    for (int level = 1; level < levels; ++level) {
      RefineTable& refine = tables.Refine(level, klass);
      refine.null = 2 * Tail(ladder, klass, kDeadZone / PowerOf3(level)) <= kNullTail;
      if (refine.null) continue;
      const auto weights = ParametricRefine(ladder, klass, level);
      for (int context = 0; context < kRefineContexts; ++context) {
        const std::vector<uint16_t> frequency =
            FrequenciesFromWeights({weights[context][0], weights[context][1], weights[context][2]});
        std::copy(frequency.begin(), frequency.end(), refine.frequency[context].begin());
      }
    }
  }
  return tables;
}

}  // namespace kvstream

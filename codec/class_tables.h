// Probability tables of the entropy code. A class is one guess at how a coordinate of the transform
// is distributed; every coordinate has one. Tables are integers that travel in the profile, so that
// no decoder computes a probability.
#ifndef KVSTREAM_CODEC_CLASS_TABLES_H_
#define KVSTREAM_CODEC_CLASS_TABLES_H_

#include <array>
#include <cstdint>
#include <vector>

namespace kvstream {

constexpr int kProbabilityBits = 12;
constexpr int kProbabilityScale = 1 << kProbabilityBits;
constexpr int kMaxClasses = 255;
constexpr int kMaxBaseSymbolInTable = 127;
constexpr int kMaxShift = 12;

// Level 0 of a class. A cell q is coded as the symbol q >> shift, -max_symbol to max_symbol,
// followed by the low `shift` bits as they are. Cells beyond, and every cell but 0 of a class with
// max_symbol 0 (such coordinates are not coded at all), are exceptions.
struct BaseTable {
  uint8_t shift = 0;
  uint8_t max_symbol = 0;
  std::vector<uint16_t>
      frequency;  // 2 * max_symbol + 1 entries, all positive, sum 4096; empty if max_symbol is 0

  bool null() const { return max_symbol == 0; }
};

// Context of a refinement: the parent cell is 0, +-1, or beyond.
constexpr int kRefineContexts = 3;

// A refinement level of a class: frequencies of r = -1, 0, 1 (r mirrored by the parent's sign) by
// context, all positive, sum 4096. Null: coordinates of the class are not coded at this level,
// every r is 0 but for exceptions.
struct RefineTable {
  bool null = true;
  std::array<std::array<uint16_t, 3>, kRefineContexts> frequency = {};
};

// Where a decoder puts the value within a cell: distance below the cell's centre towards zero, in
// base steps, for |v| == 1 and |v| >= 2.
using Shrink = std::array<float, 2>;

struct ClassTables {
  int classes = 0;
  int levels = 0;
  std::vector<BaseTable> base;      // [class]
  std::vector<RefineTable> refine;  // [level - 1][class]
  std::vector<Shrink> shrink;       // [level][class]

  const RefineTable& Refine(int level, int klass) const {
    return refine[(level - 1) * classes + klass];
  }
  RefineTable& Refine(int level, int klass) { return refine[(level - 1) * classes + klass]; }
  const Shrink& ShrinkOf(int level, int klass) const { return shrink[level * classes + klass]; }
  Shrink& ShrinkOf(int level, int klass) { return shrink[level * classes + klass]; }
  // True if coordinates of the class are left out of the level's payload.
  bool Null(int level, int klass) const {
    return level == 0 ? base[klass].null() : Refine(level, klass).null;
  }
};

// Scales positive weights to frequencies that sum to 4096, each at least 1. weights: 2 to 4096
// entries, sum positive and finite.
std::vector<uint16_t> FrequenciesFromWeights(const std::vector<double>& weights);

// Tables of a ladder of zero-mean Laplace and Gauss distributions: class 2 i has Laplace shape and
// class 2 i + 1 Gauss shape, with standard deviation scale[i] base steps.
struct ParametricLadder {
  std::vector<double> scale;
  int classes() const { return static_cast<int>(scale.size()) * 2; }
};
// Covers coordinates from far below the finest step to some 400 base steps.
ParametricLadder MakeLadder(int levels);

// Probabilities under the parametric distribution of a class.
std::vector<double> ParametricBase(const ParametricLadder& ladder, int klass, int shift,
                                   int max_symbol);
// [context][r + 1], each context normalised.
std::array<std::array<double, 3>, kRefineContexts> ParametricRefine(const ParametricLadder& ladder,
                                                                    int klass, int level);

ClassTables ParametricTables(const ParametricLadder& ladder, int levels);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CLASS_TABLES_H_

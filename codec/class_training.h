// Choice of classes and tables from counted symbols.
#ifndef KVSTREAM_CODEC_CLASS_TRAINING_H_
#define KVSTREAM_CODEC_CLASS_TRAINING_H_

#include <array>
#include <cstdint>
#include <vector>

#include "codec/class_tables.h"
#include "codec/level_coder.h"
#include "codec/quantize.h"

namespace kvstream {

// What calibration counts of one coordinate.
struct CoordinateStatistics {
  CodeLengths::Base base;
  // [level - 1]
  std::vector<CodeLengths::Refine> refine;
  // [level][|cell| == 1, beyond]: how far below the cell's centre values lie, in base steps, and
  // how many there are.
  std::vector<std::array<double, 2>> below;
  std::vector<std::array<int64_t, 2>> counted;

  explicit CoordinateStatistics(int levels)
      : refine(levels - 1), below(levels, {0, 0}), counted(levels, {0, 0}) {}

  // value in base steps.
  void Add(float value, int levels);
  // True if every value fell into the zero cell of the finest level.
  bool AllZero() const {
    const std::array<int64_t, 2>& finest = counted.back();
    return finest[0] + finest[1] == 0;
  }
};

// Chooses a class for every coordinate and refits the tables of the classes to those who chose
// them, some rounds of it. The parametric tables stay as a prior, so that a class with few members
// keeps a smooth table.
ClassTables TrainTables(const std::vector<CoordinateStatistics>& coordinates, int levels,
                        std::vector<uint8_t>* classes);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CLASS_TRAINING_H_

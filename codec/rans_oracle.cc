#include "codec/rans_oracle.h"

#include <algorithm>
#include <cstdlib>

#include "codec/rans.h"

namespace kvstream {
namespace {

// Index of the symbol whose slots hold the lane's state; moves the state on.
template <typename Frequencies>
int TakeSymbol(RansDecoder& rans, int lane, const Frequencies& frequencies) {
  const uint32_t x = rans.state[lane];
  const uint32_t slot = x % kProbabilityScale;
  int index = 0;
  uint32_t start = 0;
  while (slot >= start + frequencies[index]) start += frequencies[index++];
  rans.state[lane] =
      rans.Renormalise<true>(frequencies[index] * (x >> kProbabilityBits) + slot - start);
  return index;
}

// Calls row(rans, coordinate, first token of the step, lanes) for every step of every block.
template <typename Step>
bool ForEachStep(const RansBlock* blocks, size_t count, int tokens, const Step& step) {
  bool good = true;
  for (size_t i = 0; i < count; ++i) {
    RansDecoder rans;
    if (!rans.Init({blocks[i].data, blocks[i].bytes}, std::min(kLanes, tokens))) {
      good = false;
      continue;
    }
    for (size_t k = 0; k < blocks[i].count; ++k) {
      for (int first = 0; first < tokens; first += kLanes)
        step(rans, blocks[i].coordinates[k], first, std::min(kLanes, tokens - first));
    }
    good &= rans.Finished();
  }
  return good;
}

}  // namespace

bool OracleBaseBlocks(const RansBlock* blocks, size_t count, const std::vector<BaseTable>& tables,
                      const uint8_t* classes, int tokens, int32_t* cells) {
  return ForEachStep(
      blocks, count, tokens, [&](RansDecoder& rans, int32_t coordinate, int first, int lanes) {
        const BaseTable& table = tables[classes[coordinate]];
        int32_t* const out = cells + static_cast<int64_t>(coordinate) * tokens + first;
        for (int lane = 0; lane < lanes; ++lane)
          out[lane] = TakeSymbol(rans, lane, table.frequency) - table.max_symbol;
        for (int lane = 0; table.shift > 0 && lane < lanes; ++lane) {
          out[lane] = out[lane] * (1 << table.shift) +
                      static_cast<int32_t>(rans.Bits<true>(lane, table.shift));
        }
      });
}

bool OracleRefineBlocks(const RansBlock* blocks, size_t count, const RefineTable* tables,
                        const uint8_t* classes, int tokens, int32_t* cells) {
  return ForEachStep(
      blocks, count, tokens, [&](RansDecoder& rans, int32_t coordinate, int first, int lanes) {
        const RefineTable& table = tables[classes[coordinate]];
        int32_t* const row = cells + static_cast<int64_t>(coordinate) * tokens + first;
        for (int lane = 0; lane < lanes; ++lane) {
          const int32_t parent = row[lane];
          const int r = TakeSymbol(rans, lane, table.frequency[std::min(std::abs(parent), 2)]) - 1;
          row[lane] = 3 * parent + (parent < 0 ? -r : r);
        }
      });
}

}  // namespace kvstream

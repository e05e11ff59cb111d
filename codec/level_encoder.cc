#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "codec/byte_io.h"
#include "codec/level_coder.h"
#include "codec/quantize.h"
#include "codec/symbol_block.h"

namespace kvstream {
namespace {

// An exception's index and symbol as varints, roughly.
constexpr float kExceptionBits = 40;
// A block's states waste 2 bytes a lane, so that a block should have some 8 KiB; more than twice
// that only delays its decoder.
constexpr double kBlockBitsMin = 8 * 8192;
constexpr double kBlockBitsMax = 16 * 8192;
constexpr int64_t kBlockSymbols = 32768;
// Classes on either side of the reference that an override may choose, unless nothing was
// calibrated.
constexpr int kOverrideReach = 20;
constexpr int kOverrideRounds = 3;

float Bits(uint16_t frequency) {
  return kProbabilityBits - std::log2(static_cast<float>(frequency));
}

int ContextOf(int32_t parent) { return parent == 0 ? 0 : (parent == 1 || parent == -1 ? 1 : 2); }
int Mirrored(int32_t parent, int32_t r) { return parent < 0 ? -r : r; }

}  // namespace

void CodingOrder(const ProfileData& profile, int level, const std::vector<uint8_t>& classes,
                 std::vector<int32_t>* order) {
  std::array<int32_t, kMaxClasses + 1> start = {};
  for (uint8_t klass : classes) ++start[klass];
  int32_t total = 0;
  for (int klass = kMaxClasses; klass >= 0; --klass) {
    const int32_t count = start[klass];
    start[klass] = total;
    if (klass < profile.tables.classes && !profile.tables.Null(level, klass)) total += count;
  }
  order->resize(total);
  for (size_t i = 0; i < classes.size(); ++i) {
    if (!profile.tables.Null(level, classes[i]))
      (*order)[start[classes[i]]++] = static_cast<int32_t>(i);
  }
}

void CodeLengths::Base::Clear() {
  std::fill(count + (low + kReach), count + (high + kReach + 1), 0);
  low = high = 0;
  far.clear();
}

void CodeLengths::Base::Add(int32_t cell) {
  if (cell < -kReach || cell > kReach) {
    far.push_back(cell);
    return;
  }
  low = std::min(low, cell);
  high = std::max(high, cell);
  ++count[cell + kReach];
}

CodeLengths::CodeLengths(const ClassTables& tables) : tables_(tables) {
  for (const BaseTable& table : tables.base) {
    std::vector<float> bits;
    for (uint16_t frequency : table.frequency) bits.push_back(Bits(frequency) + table.shift);
    base_.push_back(std::move(bits));
  }
  for (const RefineTable& table : tables.refine) {
    std::array<std::array<float, 3>, kRefineContexts> bits;
    for (int context = 0; context < kRefineContexts; ++context) {
      for (int i = 0; i < 3; ++i) {
        bits[context][i] =
            table.null ? (i == 1 ? 0 : kExceptionBits) : Bits(table.frequency[context][i]);
      }
    }
    refine_.push_back(bits);
  }
}

double CodeLengths::CellBits(int klass, int32_t cell) const {
  const BaseTable& table = tables_.base[klass];
  if (table.null()) return cell == 0 ? 0 : kExceptionBits;
  const int32_t symbol = cell >> table.shift;
  if (std::abs(symbol) > table.max_symbol) return kExceptionBits + base_[klass][table.max_symbol];
  return base_[klass][symbol + table.max_symbol];
}

double CodeLengths::BaseBits(int klass, const Base& base) const {
  double bits = 0;
  for (int32_t cell = base.low; cell <= base.high; ++cell) {
    const int32_t count = base.count[cell + Base::kReach];
    if (count != 0) bits += count * CellBits(klass, cell);
  }
  for (int32_t cell : base.far) bits += CellBits(klass, cell);
  return bits;
}

double CodeLengths::RefineBits(int level, int klass, const Refine& refine) const {
  const auto& lengths = refine_[(level - 1) * tables_.classes + klass];
  double bits = 0;
  for (int context = 0; context < kRefineContexts; ++context) {
    for (int i = 0; i < 3; ++i) bits += refine.count[context][i] * lengths[context][i];
  }
  return bits;
}

LevelEncoder::LevelEncoder(const ProfileData& profile)
    : profile_(profile), lengths_(profile.tables) {}

void LevelEncoder::ChooseClasses(int level, const int32_t* cells, const int32_t* parents,
                                 int tokens, std::vector<uint8_t>* classes, std::string* out) {
  const int32_t coordinates = profile_.coordinates;
  const int all = profile_.tables.classes;
  const int reach = profile_.calibrated ? kOverrideReach : all;
  const int width = 2 * reach + 1;
  // Bits of every coordinate under every class in reach of its reference.
  std::vector<float> candidates(static_cast<size_t>(coordinates) * width);
  CodeLengths::Base base;
  for (int32_t i = 0; i < coordinates; ++i) {
    const int reference = (*classes)[i];
    const int32_t* row = cells + static_cast<int64_t>(i) * tokens;
    CodeLengths::Refine refine;
    if (level == 0) {
      base.Clear();
      for (int t = 0; t < tokens; ++t) base.Add(row[t]);
    } else {
      const int32_t* parent = parents + static_cast<int64_t>(i) * tokens;
      for (int t = 0; t < tokens; ++t) {
        ++refine.count[ContextOf(parent[t])][Mirrored(parent[t], row[t] - 3 * parent[t]) + 1];
      }
    }
    for (int k = std::max(0, reference - reach); k <= std::min(all - 1, reference + reach); ++k) {
      candidates[static_cast<size_t>(i) * width + k - reference + reach] = static_cast<float>(
          level == 0 ? lengths_.BaseBits(k, base) : lengths_.RefineBits(level, k, refine));
    }
  }

  bits_.resize(coordinates);
  double plain_bits = 0;
  for (int32_t i = 0; i < coordinates; ++i) {
    bits_[i] = candidates[static_cast<size_t>(i) * width + reach];
    plain_bits += bits_[i];
  }

  // Alternate between choosing classes and pricing the choice by its own entropy.
  std::array<float, 256> price;
  price.fill(6);
  price[0] = 0.3f;
  std::vector<uint8_t> chosen(coordinates);
  std::array<double, 256> count;
  for (int round = 0; round < kOverrideRounds; ++round) {
    count.fill(0);
    for (int32_t i = 0; i < coordinates; ++i) {
      const int reference = (*classes)[i];
      const float* row = &candidates[static_cast<size_t>(i) * width];
      int best = reference;
      float best_bits = row[reach] + price[0];
      for (int k = std::max(0, reference - reach); k <= std::min(all - 1, reference + reach); ++k) {
        const float bits = row[k - reference + reach] + price[(k - reference) & 255];
        if (bits < best_bits) {
          best = k;
          best_bits = bits;
        }
      }
      chosen[i] = static_cast<uint8_t>(best);
      count[(best - reference) & 255] += 1;
    }
    for (int symbol = 0; symbol < 256; ++symbol) {
      // An entry of the table costs 24 bits, shared by its users.
      price[symbol] =
          count[symbol] > 0
              ? static_cast<float>(std::log2(coordinates / count[symbol]) + 24 / count[symbol])
              : 14.0f;
    }
    price[0] = std::min(price[0], 4.0f);
  }
  if (count[0] == coordinates) return;
  std::string section;
  std::vector<uint8_t> symbols(coordinates);
  double chosen_bits = 0;
  for (int32_t i = 0; i < coordinates; ++i) {
    symbols[i] = static_cast<uint8_t>(chosen[i] - (*classes)[i]);
    chosen_bits += candidates[static_cast<size_t>(i) * width + chosen[i] - (*classes)[i] + reach];
  }
  EncodeSymbols(symbols, &section);
  if (section.size() * 8 + chosen_bits >= plain_bits) return;
  for (int32_t i = 0; i < coordinates; ++i) {
    bits_[i] = candidates[static_cast<size_t>(i) * width + chosen[i] - (*classes)[i] + reach];
  }
  *out = std::move(section);
  *classes = chosen;
}

void LevelEncoder::EncodeBlock(int level, const int32_t* cells, const int32_t* parents, int tokens,
                               const std::vector<uint8_t>& classes, size_t first, size_t last,
                               std::string* payload) {
  std::array<uint16_t, 2 * kMaxBaseSymbolInTable + 2> start;
  int started = -1;
  for (size_t i = last; i > first; --i) {
    const int32_t coordinate = order_[i - 1];
    const int klass = classes[coordinate];
    const int32_t* row = cells + static_cast<int64_t>(coordinate) * tokens;
    const int32_t* parent =
        level == 0 ? nullptr : parents + static_cast<int64_t>(coordinate) * tokens;
    if (level == 0 && klass != started) {
      const BaseTable& table = profile_.tables.base[klass];
      start[0] = 0;
      for (size_t s = 0; s < table.frequency.size(); ++s)
        start[s + 1] = start[s] + table.frequency[s];
      started = klass;
    }
    for (int step = (tokens - 1) / kLanes * kLanes; step >= 0; step -= kLanes) {
      const int lanes = std::min(kLanes, tokens - step);
      if (level == 0) {
        const BaseTable& table = profile_.tables.base[klass];
        uint16_t symbols[kLanes];
        uint32_t low[kLanes];
        for (int lane = 0; lane < lanes; ++lane) {
          int32_t cell = row[step + lane];
          if (std::abs(cell >> table.shift) > table.max_symbol) cell = 0;  // an exception
          symbols[lane] = static_cast<uint16_t>((cell >> table.shift) + table.max_symbol);
          low[lane] = cell & ((1 << table.shift) - 1);
        }
        for (int lane = lanes - 1; table.shift > 0 && lane >= 0; --lane)
          rans_.PutBits(lane, low[lane], table.shift);
        for (int lane = lanes - 1; lane >= 0; --lane)
          rans_.Put(lane, start[symbols[lane]], table.frequency[symbols[lane]]);
      } else {
        const RefineTable& table = profile_.tables.Refine(level, klass);
        for (int lane = lanes - 1; lane >= 0; --lane) {
          const int32_t p = parent[step + lane];
          const auto& frequency = table.frequency[ContextOf(p)];
          const int index = Mirrored(p, row[step + lane] - 3 * p) + 1;
          rans_.Put(lane,
                    index == 0 ? 0 : (index == 1 ? frequency[0] : frequency[0] + frequency[1]),
                    frequency[index]);
        }
      }
    }
  }
  rans_.Finish(std::min(kLanes, tokens), payload);
}

void LevelEncoder::Encode(int level, const int32_t* cells, const int32_t* parents, int tokens,
                          std::vector<uint8_t>* classes, SegmentSections* out) {
  if (tokens == 0) return;
  ChooseClasses(level, cells, parents, tokens, classes, &out->class_override);

  // Exceptions, in order of coordinate and token.
  int64_t previous = -1;
  for (int32_t i = 0; i < profile_.coordinates; ++i) {
    const int klass = (*classes)[i];
    const bool null = profile_.tables.Null(level, klass);
    if (level > 0 && !null) continue;
    const int32_t* row = cells + static_cast<int64_t>(i) * tokens;
    for (int t = 0; t < tokens; ++t) {
      int32_t symbol = row[t];
      if (level == 0) {
        const BaseTable& table = profile_.tables.base[klass];
        if (null ? symbol == 0 : std::abs(symbol >> table.shift) <= table.max_symbol) continue;
      } else {
        symbol -= 3 * parents[static_cast<int64_t>(i) * tokens + t];
        if (symbol == 0) continue;
      }
      const int64_t index = static_cast<int64_t>(i) * tokens + t;
      AppendVarint(index - previous - 1, &out->exceptions);
      AppendVarint(ZigZag(symbol), &out->exceptions);
      previous = index;
    }
  }

  CodingOrder(profile_, level, *classes, &order_);
  size_t first = 0;
  double bits = 0;
  double bits_left = 0;
  for (int32_t coordinate : order_) bits_left += bits_[coordinate];
  for (size_t i = 0; i < order_.size(); ++i) {
    bits += bits_[order_[i]];
    bits_left -= bits_[order_[i]];
    const int64_t symbols = static_cast<int64_t>(i + 1 - first) * tokens;
    const bool full = bits >= kBlockBitsMax || (bits >= kBlockBitsMin && symbols >= kBlockSymbols);
    if (i + 1 < order_.size() && !(full && bits_left >= kBlockBitsMin / 2)) continue;
    const size_t before = out->payload.size();
    EncodeBlock(level, cells, parents, tokens, *classes, first, i + 1, &out->payload);
    out->blocks.push_back({static_cast<uint32_t>(i + 1 - first),
                           static_cast<uint32_t>(out->payload.size() - before)});
    first = i + 1;
    bits = 0;
  }
}

}  // namespace kvstream

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "codec/block_cutter.h"
#include "codec/byte_io.h"
#include "codec/level_coder.h"
#include "codec/quantize.h"
#include "codec/symbol_block.h"

namespace kvstream {
namespace {

// An exception's index and symbol as varints, roughly.
constexpr float kExceptionBits = 40;
// Classes on either side of the reference that an override may choose, unless nothing was
// calibrated.
constexpr int kOverrideReach = 20;
constexpr int kOverrideRounds = 3;

float Bits(uint16_t frequency) {
  return kProbabilityBits - std::log2(static_cast<float>(frequency));
}

// Up to so many values a row's cells are counted by comparing all of them with each value.
constexpr int kComparedValues = 12;

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

void CodeLengths::Base::AddRow(const int32_t* cells, int tokens) {
  int32_t smallest = 0;
  int32_t largest = 0;
  CellRange(cells, tokens, &smallest, &largest);
  if (smallest < -kReach || largest > kReach) {
    for (int t = 0; t < tokens; ++t) Add(cells[t]);
    return;
  }
  low = std::min(0, smallest);
  high = std::max(0, largest);
  if (largest - smallest < kComparedValues) {
    CountCells(cells, tokens, smallest, largest - smallest + 1, count + (smallest + kReach));
    return;
  }
  for (int t = 0; t < tokens; ++t) ++count[cells[t] + kReach];
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
  const int classes = tables.classes;
  cells_.resize((2 * Base::kReach + 1) * static_cast<size_t>(classes));
  for (int32_t cell = -Base::kReach; cell <= Base::kReach; ++cell) {
    for (int klass = 0; klass < classes; ++klass) {
      cells_[(cell + Base::kReach) * static_cast<size_t>(classes) + klass] =
          static_cast<float>(CellBits(klass, cell));
    }
  }
  symbols_.resize(refine_.size() * kRefineContexts * 3);
  for (size_t i = 0; i < refine_.size(); ++i) {
    for (int k = 0; k < kRefineContexts * 3; ++k) {
      symbols_[(i / classes * kRefineContexts * 3 + k) * classes + i % classes] =
          refine_[i][k / 3][k % 3];
    }
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

void CodeLengths::BaseBits(int first, int count, const Base& base, double* bits) const {
  std::fill(bits, bits + count, 0.0);
  for (int32_t cell = base.low; cell <= base.high; ++cell) {
    const int32_t n = base.count[cell + Base::kReach];
    if (n == 0) continue;
    AddBits(n, &cells_[(cell + Base::kReach) * static_cast<size_t>(tables_.classes) + first], count,
            bits);
  }
  for (int32_t cell : base.far) {
    for (int k = 0; k < count; ++k) bits[k] += CellBits(first + k, cell);
  }
}

void CodeLengths::RefineBits(int level, int first, int count, const Refine& refine,
                             double* bits) const {
  std::fill(bits, bits + count, 0.0);
  const float* lengths =
      &symbols_[static_cast<size_t>(level - 1) * kRefineContexts * 3 * tables_.classes + first];
  for (const auto& of_context : refine.count) {
    for (int32_t n : of_context) {
      AddBits(n, lengths, count, bits);
      lengths += tables_.classes;
    }
  }
}

LevelEncoder::LevelEncoder(const ProfileData& profile)
    : profile_(profile), lengths_(profile.tables), tables_(profile.tables.classes) {
  for (int klass = 0; klass < profile.tables.classes; ++klass)
    PrepareBaseTable(profile.tables.base[klass], &tables_[klass]);
}

LevelEncoder::Rows LevelEncoder::RowsOf(int32_t coordinate) {
  const int64_t at = static_cast<int64_t>(coordinate) * tokens_;
  if (parents_ != nullptr) return {cells_ + at, parents_ + at};
  if (steps_ == 0) {
    if (level_ == 0) return {cells_ + at, nullptr};
    ParentRow(cells_ + at, tokens_, 1, parent_row_.data());
    return {cells_ + at, parent_row_.data()};
  }
  ParentRow(cells_ + at, tokens_, steps_, row_.data(), level_ > 0 ? parent_row_.data() : nullptr);
  return {row_.data(), level_ > 0 ? parent_row_.data() : nullptr};
}

void LevelEncoder::FetchRow(int32_t coordinate) const {
  constexpr int kLine = 64 / sizeof(int32_t);
  const int64_t at = static_cast<int64_t>(coordinate) * tokens_;
  for (int t = 0; t < tokens_; t += kLine) {
    __builtin_prefetch(cells_ + at + t);
    if (parents_ != nullptr) __builtin_prefetch(parents_ + at + t);
  }
}

void LevelEncoder::ChooseClasses(std::vector<uint8_t>* classes, std::string* out) {
  const int32_t coordinates = profile_.coordinates;
  const int all = profile_.tables.classes;
  const int reach = profile_.calibrated ? kOverrideReach : all;
  // Rows of candidates: [reach below .. reference .. reach above], padded.
  const int width = (2 * reach + 1 + 15) / 16 * 16;
  // Bits of every coordinate under every class in reach of its reference.
  std::vector<float>& candidates = candidates_;
  candidates.resize(static_cast<size_t>(coordinates) * width);
  range_.resize(coordinates);
  std::vector<double> bits(all);
  CodeLengths::Base base;
  for (int32_t i = 0; i < coordinates; ++i) {
    const int reference = (*classes)[i];
    const Rows rows = RowsOf(i);
    const int first = std::max(0, reference - reach);
    const int count = std::min(all - 1, reference + reach) - first + 1;
    if (level_ == 0) {
      base.Clear();
      base.AddRow(rows.cells, tokens_);
      range_[i] = {base.low, base.high};
      for (int32_t cell : base.far)
        range_[i] = {std::min(range_[i][0], cell), std::max(range_[i][1], cell)};
      lengths_.BaseBits(first, count, base, bits.data());
    } else {
      CodeLengths::Refine refine;
      CountRefine(rows.cells, rows.parents, tokens_, refine.count);
      lengths_.RefineBits(level_, first, count, refine, bits.data());
    }
    float* const row = &candidates[static_cast<size_t>(i) * width];
    std::fill(row, row + width, std::numeric_limits<float>::infinity());
    for (int k = 0; k < count; ++k)
      row[first + k - reference + reach] = static_cast<float>(bits[k]);
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
  // Prices in the order of a row of candidates.
  std::vector<float> window(width);
  for (int round = 0; round < kOverrideRounds; ++round) {
    count.fill(0);
    for (int k = 0; k <= 2 * reach; ++k) window[k] = price[(k - reach) & 255];
    for (int32_t i = 0; i < coordinates; ++i) {
      const int reference = (*classes)[i];
      const float* row = &candidates[static_cast<size_t>(i) * width];
      const int best = CheapestIndex(row, window.data(), width, reach) + reference - reach;
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

void LevelEncoder::EncodeExceptions(const std::vector<uint8_t>& classes, std::string* out) {
  int64_t previous = -1;
  const auto append = [&](int64_t index, int32_t symbol) {
    AppendVarint(index - previous - 1, out);
    AppendVarint(ZigZag(symbol), out);
    previous = index;
  };
  for (int32_t i = 0; i < profile_.coordinates; ++i) {
    const int klass = classes[i];
    const int64_t first = static_cast<int64_t>(i) * tokens_;
    if (level_ == 0) {
      const BaseTable& table = profile_.tables.base[klass];
      const auto outside = [&](int32_t cell) {
        return table.null() ? cell != 0 : std::abs(cell >> table.shift) > table.max_symbol;
      };
      if (!outside(range_[i][0]) && !outside(range_[i][1])) continue;
      const int32_t* row = RowsOf(i).cells;
      for (int t = 0; t < tokens_; ++t) {
        if (outside(row[t])) append(first + t, row[t]);
      }
    } else if (profile_.tables.Null(level_, klass)) {
      const Rows rows = RowsOf(i);
      for (int t = 0; t < tokens_; ++t) {
        const int32_t symbol = rows.cells[t] - 3 * rows.parents[t];
        if (symbol != 0) append(first + t, symbol);
      }
    }
  }
}

void LevelEncoder::EncodeBlock(const std::vector<uint8_t>& classes, size_t first, size_t last,
                               std::string* payload) {
  for (size_t i = last; i > first; --i) {
    const int32_t coordinate = order_[i - 1];
    const int klass = classes[coordinate];
    const Rows rows = RowsOf(coordinate);
    if (i - 1 > first) FetchRow(order_[i - 2]);
    if (level_ == 0) {
      rans_.PutBase(tables_[klass], rows.cells, tokens_);
    } else {
      rans_.PutRefine(profile_.tables.Refine(level_, klass), rows.cells, rows.parents, tokens_);
    }
  }
  rans_.Finish(std::min(kLanes, tokens_), payload);
}

void LevelEncoder::EncodeFinest(int level, const int32_t* cells, int tokens,
                                std::vector<uint8_t>* classes, SegmentSections* out) {
  level_ = level;
  tokens_ = tokens;
  cells_ = cells;
  parents_ = nullptr;
  steps_ = profile_.levels - 1 - level;
  row_.resize(tokens);
  parent_row_.resize(tokens);
  EncodeRows(classes, out);
}

void LevelEncoder::Encode(int level, const int32_t* cells, const int32_t* parents, int tokens,
                          std::vector<uint8_t>* classes, SegmentSections* out) {
  level_ = level;
  tokens_ = tokens;
  cells_ = cells;
  parents_ = level == 0 ? nullptr : parents;
  steps_ = 0;
  EncodeRows(classes, out);
}

void LevelEncoder::EncodeRows(std::vector<uint8_t>* classes, SegmentSections* out) {
  if (tokens_ == 0) return;
  ChooseClasses(classes, &out->class_override);
  // 3/8 of the chunk's size, not needed while the payload grows.
  std::vector<float>().swap(candidates_);
  EncodeExceptions(*classes, &out->exceptions);
  CodingOrder(profile_, level_, *classes, &order_);
  double bits = 0;
  for (int32_t coordinate : order_) bits += bits_[coordinate];
  // Not by doubling, which would take three times the payload for a moment. States take up to 2 %.
  out->payload.reserve(static_cast<size_t>(bits / 8 * 1.025) + 4 * kLanes + 64);
  CutBlocks(order_, bits_, tokens_, [&](size_t first, size_t last, double) {
    const size_t before = out->payload.size();
    EncodeBlock(*classes, first, last, &out->payload);
    out->blocks.push_back(
        {static_cast<uint32_t>(last - first), static_cast<uint32_t>(out->payload.size() - before)});
  });
}

}  // namespace kvstream

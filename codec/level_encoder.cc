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
// Rows of candidates are whole vectors of any target.
constexpr int kCostStep = 16;
// Length of every symbol under a class that does not exist.
constexpr float kNoClass = 1e30f;
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

void CodeLengths::Base::AddRow(const int16_t* cells, int tokens) {
  const int64_t stride = (int64_t{tokens} + kLanes - 1) / kLanes * kLanes;
  int32_t smallest = 0;
  int32_t largest = 0;
  CellRange(cells, stride, &smallest, &largest);
  if (smallest < -kReach || largest > kReach) {
    for (int t = 0; t < tokens; ++t) Add(cells[CellRows::Place(t)]);
    return;
  }
  low = std::min(0, smallest);
  high = std::max(0, largest);
  if (largest - smallest < kComparedValues) {
    CountCells(cells, stride, smallest, largest - smallest + 1, count + (smallest + kReach));
  } else {
    for (int64_t t = 0; t < stride; ++t) ++count[cells[t] + kReach];
  }
  count[kReach] -= static_cast<int32_t>(stride - tokens);
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
    : profile_(profile),
      lengths_(profile.tables),
      reach_(profile.calibrated ? kOverrideReach : profile.tables.classes),
      width_((2 * reach_ + 1 + kCostStep - 1) / kCostStep * kCostStep),
      tables_(profile.tables.classes),
      refine_tables_(profile.tables.refine.size()) {
  const int classes = profile.tables.classes;
  for (int klass = 0; klass < classes; ++klass)
    PrepareBaseTable(profile.tables.base[klass], &tables_[klass]);
  for (size_t i = 0; i < refine_tables_.size(); ++i)
    PrepareRefineTable(profile.tables.refine[i], &refine_tables_[i]);
  // A window may begin reach_ classes before the first and ends width_ after its begin.
  const size_t padded = static_cast<size_t>(classes) + width_;
  constexpr int kReach = CodeLengths::Base::kReach;
  cell_lengths_.assign((2 * kReach + 1) * padded, kNoClass);
  for (int32_t cell = -kReach; cell <= kReach; ++cell) {
    for (int klass = 0; klass < classes; ++klass) {
      cell_lengths_[(cell + kReach) * padded + reach_ + klass] =
          static_cast<float>(lengths_.CellBits(klass, cell));
    }
  }
  symbol_lengths_.assign((profile.levels - 1) * kRefineContexts * 3 * padded, kNoClass);
  float* at = symbol_lengths_.data();
  for (int level = 1; level < profile.levels; ++level) {
    for (int i = 0; i < kRefineContexts * 3; ++i, at += padded) {
      for (int klass = 0; klass < classes; ++klass)
        at[reach_ + klass] = lengths_.SymbolBits(level, klass, i / 3, i % 3 - 1);
    }
  }
}

void LevelEncoder::Begin(int level, const CellRows& cells, int finest) {
  level_ = level;
  tokens_ = cells.tokens();
  cells_ = &cells;
  finest_ = finest;
  rows_.resize((profile_.levels + 1) * cells.stride());
  plain_.resize(tokens_);
  plain_parents_.resize(tokens_);
}

void LevelEncoder::PlainRows(int32_t coordinate) {
  cells_->Plain(coordinate, plain_.data());
  ParentRow(plain_.data(), tokens_, finest_ - level_, plain_.data(), plain_parents_.data());
}

LevelEncoder::Rows LevelEncoder::RowsOf(int32_t coordinate) {
  const int64_t stride = cells_->stride();
  int16_t* const rows = rows_.data();
  if (cells_->wide(coordinate) != nullptr) {
    PlainRows(coordinate);
    if (level_ == 0) return {nullptr, nullptr, plain_.data()};
    // Contexts need no more of a parent than this, and symbols are what is left of the cells.
    std::fill(rows, rows + 2 * stride, int16_t{0});
    for (int t = 0; t < tokens_; ++t) {
      const int32_t parent = std::max(-2, std::min(2, plain_parents_[t]));
      rows[CellRows::Place(t)] =
          static_cast<int16_t>(plain_[t] - 3 * plain_parents_[t] + 3 * parent);
      rows[stride + CellRows::Place(t)] = static_cast<int16_t>(parent);
    }
    return {rows, rows + stride, nullptr};
  }
  const int16_t* cells = cells_->narrow(coordinate);
  int level = finest_;
  for (int16_t* out = rows; level > level_; --level, out += stride) {
    ParentRow(cells, stride, out);
    cells = out;
  }
  if (level_ == 0) return {cells, nullptr, nullptr};
  int16_t* const parents = rows + profile_.levels * stride;
  ParentRow(cells, stride, parents);
  return {cells, parents, nullptr};
}

void LevelEncoder::FetchRow(int32_t coordinate) const {
  const int16_t* const row = cells_->narrow(coordinate);
  for (int64_t t = 0; t < cells_->stride(); t += kLanes) __builtin_prefetch(row + t);
}

void LevelEncoder::CountLevels(int32_t coordinate) {
  const int64_t stride = cells_->stride();
  const auto keep = [&](int level, const int16_t* cells, const int16_t* parents) {
    int32_t count[kRefineContexts][3] = {};
    CountRefine(cells, parents, tokens_, count);
    auto& counts = counts_[(level - 1) * static_cast<size_t>(profile_.coordinates) + coordinate];
    for (int i = 0; i < kRefineContexts * 3; ++i)
      counts[i] = static_cast<uint16_t>(count[i / 3][i % 3]);
  };
  const int last = std::max(1, level_);
  if (cells_->wide(coordinate) != nullptr) {
    const int at_work = level_;
    for (level_ = finest_; level_ >= last; --level_) {
      const Rows rows = RowsOf(coordinate);
      keep(level_, rows.cells, rows.parents);
    }
    level_ = at_work;
    return;
  }
  const int16_t* cells = cells_->narrow(coordinate);
  int16_t* out = rows_.data();
  for (int level = finest_; level >= last; --level, out += stride) {
    ParentRow(cells, stride, out);
    keep(level, cells, out);
    cells = out;
  }
}

void LevelEncoder::CostRow(int32_t coordinate, int reference, float* costs) {
  const size_t padded = static_cast<size_t>(profile_.tables.classes) + width_;
  terms_.Clear();
  if (level_ > 0) {
    const auto& counts =
        counts_[(level_ - 1) * static_cast<size_t>(profile_.coordinates) + coordinate];
    const float* const lengths =
        &symbol_lengths_[(level_ - 1) * kRefineContexts * 3 * padded + reference];
    for (int i = 0; i < kRefineContexts * 3; ++i) {
      if (counts[i] > 0) terms_.Add(lengths + i * padded, counts[i]);
    }
  } else {
    constexpr int kReach = CodeLengths::Base::kReach;
    const Rows rows = RowsOf(coordinate);
    base_.Clear();
    if (rows.wide != nullptr) {
      for (int t = 0; t < tokens_; ++t) base_.Add(rows.wide[t]);
    } else {
      base_.AddRow(rows.cells, tokens_);
    }
    range_[coordinate] = {base_.low, base_.high};
    for (int32_t cell : base_.far) {
      range_[coordinate] = {std::min(range_[coordinate][0], cell),
                            std::max(range_[coordinate][1], cell)};
    }
    for (int32_t cell = base_.low; cell <= base_.high; ++cell) {
      const int32_t count = base_.count[cell + kReach];
      if (count > 0) terms_.Add(&cell_lengths_[(cell + kReach) * padded + reference], count);
    }
  }
  ClassCosts(terms_.lengths.data(), terms_.counts.data(),
             static_cast<int64_t>(terms_.counts.size()), width_, costs);
  if (level_ > 0) return;
  for (int32_t cell : base_.far) {
    for (int k = 0; k < width_; ++k) {
      const int klass = reference - reach_ + k;
      costs[k] += klass < 0 || klass >= profile_.tables.classes
                      ? kNoClass
                      : static_cast<float>(lengths_.CellBits(klass, cell));
    }
  }
}

void LevelEncoder::ChooseClasses(std::vector<uint8_t>* classes, std::string* out) {
  const int32_t coordinates = profile_.coordinates;
  // Bits of every coordinate under every class in reach of its reference: [reach below ..
  // reference .. reach above], padded.
  const size_t width = static_cast<size_t>(width_);
  candidates_.resize(coordinates * width);
  range_.resize(coordinates);
  counts_.resize((profile_.levels - 1) * static_cast<size_t>(coordinates));
  for (int32_t i = 0; i < coordinates; ++i) {
    if (counting_) CountLevels(i);
    CostRow(i, (*classes)[i], &candidates_[i * width]);
  }

  bits_.resize(coordinates);
  double plain_bits = 0;
  for (int32_t i = 0; i < coordinates; ++i) {
    bits_[i] = candidates_[i * width + reach_];
    plain_bits += bits_[i];
  }

  // Alternate between choosing classes and pricing the choice by its own entropy.
  std::array<float, 256> price;
  price.fill(6);
  price[0] = 0.3f;
  std::vector<int16_t> chosen(coordinates);
  std::array<double, 256> count;
  // Prices in the order of a row of candidates; what pads a row is out of reach.
  std::vector<float> window(width, std::numeric_limits<float>::infinity());
  for (int round = 0; round < kOverrideRounds; ++round) {
    count.fill(0);
    for (int k = 0; k <= 2 * reach_; ++k) window[k] = price[(k - reach_) & 255];
    CheapestIndices(candidates_.data(), coordinates, window.data(), width_, reach_, chosen.data());
    for (int16_t k : chosen) count[(k - reach_) & 255] += 1;
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
    symbols[i] = static_cast<uint8_t>(chosen[i] - reach_);
    chosen_bits += candidates_[i * width + chosen[i]];
  }
  EncodeSymbols(symbols, &section);
  if (section.size() * 8 + chosen_bits >= plain_bits) return;
  for (int32_t i = 0; i < coordinates; ++i) {
    bits_[i] = candidates_[i * width + chosen[i]];
    (*classes)[i] = static_cast<uint8_t>((*classes)[i] + symbols[i]);
  }
  *out = std::move(section);
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
      PlainRows(i);
      for (int t = 0; t < tokens_; ++t) {
        if (outside(plain_[t])) append(first + t, plain_[t]);
      }
    } else if (profile_.tables.Null(level_, klass)) {
      PlainRows(i);
      for (int t = 0; t < tokens_; ++t) {
        const int32_t symbol = plain_[t] - 3 * plain_parents_[t];
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
      if (rows.wide != nullptr) {
        rans_.PutBase(tables_[klass], rows.wide, tokens_);
      } else {
        rans_.PutBase(tables_[klass], rows.cells, tokens_);
      }
    } else {
      rans_.PutRefine(refine_tables_[(level_ - 1) * profile_.tables.classes + klass], rows.cells,
                      rows.parents, tokens_);
    }
  }
  rans_.Finish(std::min(kLanes, tokens_), payload);
}

void LevelEncoder::EncodeFinest(int level, const CellRows& cells, std::vector<uint8_t>* classes,
                                SegmentSections* out) {
  Begin(level, cells, profile_.levels - 1);
  counting_ = level == 0;
  EncodeRows(classes, out);
}

void LevelEncoder::EncodeFinest(int level, const int32_t* cells, int tokens,
                                std::vector<uint8_t>* classes, SegmentSections* out) {
  const int finest = profile_.levels - 1;
  copied_.Read(cells, profile_.coordinates, tokens, finest, profile_.levels);
  Begin(level, copied_, finest);
  counting_ = level > 0;
  EncodeRows(classes, out);
}

void LevelEncoder::Encode(int level, const int32_t* cells, int tokens,
                          std::vector<uint8_t>* classes, SegmentSections* out) {
  copied_.Read(cells, profile_.coordinates, tokens, level, profile_.levels);
  Begin(level, copied_, level);
  counting_ = level > 0;
  EncodeRows(classes, out);
}

void LevelEncoder::EncodeRows(std::vector<uint8_t>* classes, SegmentSections* out) {
  if (tokens_ == 0) return;
  ChooseClasses(classes, &out->class_override);
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

#include "codec/cell_rows.h"

#include <algorithm>
#include <cstdlib>

namespace kvstream {
namespace {

constexpr int32_t kClamp = 2;

}  // namespace

void CellRows::Reset(int32_t coordinates, int tokens, int levels) {
  coordinates_ = coordinates;
  tokens_ = tokens;
  levels_ = levels;
  stride_ = (int64_t{tokens} + kLanes - 1) / kLanes * kLanes;
  const size_t steps = static_cast<size_t>(coordinates) * (stride_ / kLanes);
  if (steps_.size() < steps) steps_.resize(steps);
  wide_rows_.clear();
  wide_.clear();
}

void CellRows::Widen(int32_t coordinate) {
  if (wide(coordinate) != nullptr) return;
  if (wide_rows_.empty()) index_.assign(coordinates_, -1);
  index_[coordinate] = static_cast<int32_t>(wide_rows_.size());
  wide_rows_.push_back(coordinate);
  wide_.resize(wide_rows_.size() * stride_);
  int32_t* const cells = wide(coordinate);
  const int16_t* const row = narrow(coordinate);
  for (int t = 0; t < tokens_; ++t) cells[t] = row[Place(t)];
  Clamp(coordinate);
}

void CellRows::Clamp(int32_t coordinate) {
  const int32_t* const cells = wide(coordinate);
  int16_t* const row = narrow(coordinate);
  for (int t = 0; t < tokens_; ++t)
    row[Place(t)] = static_cast<int16_t>(std::max(-kClamp, std::min(kClamp, cells[t])));
}

void CellRows::Set(int32_t coordinate, int64_t token, int32_t value, int level) {
  if (std::abs(value) > NarrowMax(level, levels_)) Widen(coordinate);
  int32_t* const cells = wide(coordinate);
  if (cells == nullptr) {
    narrow(coordinate)[Place(token)] = static_cast<int16_t>(value);
    return;
  }
  cells[token] = value;
  narrow(coordinate)[Place(token)] =
      static_cast<int16_t>(std::max(-kClamp, std::min(kClamp, value)));
}

void CellRows::Read(const int32_t* cells, int32_t coordinates, int tokens, int level, int levels) {
  Reset(coordinates, tokens, levels);
  for (int32_t i = 0; i < coordinates; ++i) {
    std::fill(narrow(i), narrow(i) + stride_, int16_t{0});
    for (int t = 0; t < tokens; ++t) Set(i, t, cells[int64_t{i} * tokens + t], level);
  }
}

void CellRows::Write(int32_t* cells) const {
  for (int32_t i = 0; i < coordinates_; ++i) {
    for (int t = 0; t < tokens_; ++t) cells[int64_t{i} * tokens_ + t] = Get(i, t);
  }
}

}  // namespace kvstream

#include <algorithm>
#include <array>
#include <cstdlib>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/level_coder.h"
#include "codec/quantize.h"
#include "codec/symbol_block.h"

namespace kvstream {
namespace {

absl::Status Damaged(int level, const char* what) {
  return absl::DataLossError(absl::StrCat("segment: level ", level, ": ", what));
}

}  // namespace

LevelDecoder::LevelDecoder(const ProfileData& profile)
    : profile_(profile), base_(profile.tables.classes) {
  const std::vector<BaseTable>& tables = profile.tables.base;
  const auto null = [](const BaseTable& table) { return table.null(); };
  slots_.resize(std::count_if(tables.begin(), tables.end(), [&](auto& t) { return !null(t); }) *
                kProbabilityScale);
  uint32_t* slots = slots_.data();
  for (int klass = 0; klass < profile.tables.classes; ++klass) {
    if (null(tables[klass])) continue;
    PrepareBaseTable(tables[klass], slots, &base_[klass]);
    slots += kProbabilityScale;
  }
  refine_.resize(profile.tables.refine.size());
  for (size_t i = 0; i < refine_.size(); ++i)
    PrepareRefineTable(profile.tables.refine[i], &refine_[i]);
}

absl::Status LevelDecoder::DecodeOverride(absl::string_view bytes, std::vector<uint8_t>* classes) {
  absl::Status status = DecodeSymbols(bytes, profile_.coordinates, "class override", &override_);
  if (!status.ok()) return status;
  for (int32_t i = 0; i < profile_.coordinates; ++i) {
    const uint8_t klass = static_cast<uint8_t>((*classes)[i] + override_[i]);
    if (klass >= profile_.tables.classes) {
      return absl::InvalidArgumentError(
          "segment: class override gives a class that does not exist");
    }
    (*classes)[i] = klass;
  }
  return absl::OkStatus();
}

void LevelDecoder::WidenRows(const std::vector<uint8_t>& classes, CellRows* cells) const {
  const int32_t limit = CellRows::NarrowMax(0, profile_.levels);
  for (int32_t i = 0; i < profile_.coordinates; ++i) {
    const BaseTable& table = profile_.tables.base[classes[i]];
    if ((table.max_symbol + 1) << table.shift > limit) cells->Widen(i);
  }
}

void LevelDecoder::FillRows(int level, const std::vector<uint8_t>& classes, CellRows* cells) const {
  for (int32_t i = 0; i < profile_.coordinates; ++i) {
    if (!profile_.tables.Null(level, classes[i])) continue;
    int16_t* const row = cells->narrow(i);
    if (level == 0) {
      std::fill(row, row + cells->stride(), int16_t{0});
    } else {
      for (int64_t t = 0; t < cells->stride(); ++t) row[t] = static_cast<int16_t>(3 * row[t]);
    }
  }
}

void LevelDecoder::UpdateWideRows(int level, const std::vector<uint8_t>& classes,
                                  CellRows* cells) const {
  for (int32_t i : cells->wide_rows()) {
    int32_t* const wide = cells->wide(i);
    int16_t* const row = cells->narrow(i);
    if (level > 0) {
      // The narrow row held the parents, clamped, and holds three times that and the symbols.
      for (int t = 0; t < cells->tokens(); ++t) {
        const int32_t clamped = std::max(-2, std::min(2, wide[t]));
        wide[t] = 3 * wide[t] + row[CellRows::Place(t)] - 3 * clamped;
      }
    } else if (profile_.tables.base[classes[i]].shift == 0 ||
               profile_.tables.base[classes[i]].null()) {
      for (int t = 0; t < cells->tokens(); ++t) wide[t] = row[CellRows::Place(t)];
    }
    cells->Clamp(i);
  }
}

absl::Status LevelDecoder::DecodeExceptions(int level, absl::string_view bytes,
                                            CellRows* cells) const {
  const int tokens = cells->tokens();
  ByteReader in(bytes);
  const uint64_t cell_count = static_cast<uint64_t>(profile_.coordinates) * tokens;
  uint64_t index = 0;  // of the next possible exception
  bool valid = true;
  while (in.remaining() > 0) {
    const uint64_t distance = ReadVarint(in, &valid);
    const int64_t symbol = UnZigZag(ReadVarint(in, &valid));
    if (!in.ok() || !valid || distance >= cell_count || index + distance >= cell_count) {
      return absl::InvalidArgumentError("segment: an exception is out of range");
    }
    index += distance;
    const int32_t coordinate = static_cast<int32_t>(index / tokens);
    const int64_t token = static_cast<int64_t>(index % tokens);
    if (level == 0) {
      if (std::abs(symbol) > kMaxBaseSymbol)
        return absl::InvalidArgumentError("segment: an exception's symbol is out of range");
      cells->Set(coordinate, token, static_cast<int32_t>(symbol), level);
    } else {
      if (symbol < -1 || symbol > 1)
        return absl::InvalidArgumentError("segment: an exception's symbol is out of range");
      cells->Set(coordinate, token,
                 3 * ParentCell(cells->Get(coordinate, token)) + static_cast<int32_t>(symbol),
                 level);
    }
    ++index;
  }
  return absl::OkStatus();
}

absl::Status LevelDecoder::Decode(const SegmentView& segment, int tokens,
                                  std::vector<uint8_t>* classes, CellRows* cells) {
  const int level = segment.header.level;
  if (!segment.class_override.empty()) {
    absl::Status status = DecodeOverride(segment.class_override, classes);
    if (!status.ok()) return status;
  }
  CodingOrder(profile_, level, *classes, &order_);
  if (tokens == 0) order_.clear();
  if (level == 0) {
    cells->Reset(profile_.coordinates, tokens, profile_.levels);
    WidenRows(*classes, cells);
  }
  FillRows(level, *classes, cells);

  size_t next = 0;
  absl::string_view payload = segment.payload;
  blocks_.clear();
  for (const BlockEntry& block : segment.blocks) {
    if (block.coordinates > order_.size() - next)
      return Damaged(level, "blocks have more coordinates than are coded");
    const absl::string_view bytes = payload.substr(0, block.bytes);
    blocks_.push_back({bytes.data(), bytes.size(), order_.data() + next, block.coordinates});
    payload.remove_prefix(bytes.size());
    next += block.coordinates;
  }
  if (next != order_.size()) return Damaged(level, "blocks have fewer coordinates than are coded");
  if (!blocks_.empty()) {
    const bool good =
        level == 0
            ? DecodeBaseBlocks(blocks_.data(), blocks_.size(), base_.data(), classes->data(), cells)
            : DecodeRefineBlocks(blocks_.data(), blocks_.size(),
                                 &refine_[(level - 1) * profile_.tables.classes], classes->data(),
                                 cells);
    if (!good) return Damaged(level, "a block does not decode");
  }
  UpdateWideRows(level, *classes, cells);
  return DecodeExceptions(level, segment.exceptions, cells);
}

absl::Status LevelDecoder::Decode(const SegmentView& segment, int tokens,
                                  std::vector<uint8_t>* classes, int32_t* cells) {
  if (segment.header.level > 0) {
    copied_.Read(cells, profile_.coordinates, tokens, segment.header.level - 1, profile_.levels);
  }
  absl::Status status = Decode(segment, tokens, classes, &copied_);
  if (status.ok()) copied_.Write(cells);
  return status;
}

}  // namespace kvstream

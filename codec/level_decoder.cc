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

absl::Status LevelDecoder::DecodeExceptions(int level, absl::string_view bytes, int tokens,
                                            int32_t* cells) {
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
    if (level == 0) {
      if (std::abs(symbol) > kMaxBaseSymbol)
        return absl::InvalidArgumentError("segment: an exception's symbol is out of range");
      cells[index] = static_cast<int32_t>(symbol);
    } else {
      if (symbol < -1 || symbol > 1)
        return absl::InvalidArgumentError("segment: an exception's symbol is out of range");
      cells[index] = 3 * ParentCell(cells[index]) + static_cast<int32_t>(symbol);
    }
    ++index;
  }
  return absl::OkStatus();
}

absl::Status LevelDecoder::Decode(const SegmentView& segment, int tokens,
                                  std::vector<uint8_t>* classes, int32_t* cells) {
  const int level = segment.header.level;
  if (!segment.class_override.empty()) {
    absl::Status status = DecodeOverride(segment.class_override, classes);
    if (!status.ok()) return status;
  }
  CodingOrder(profile_, level, *classes, &order_);
  if (tokens == 0) order_.clear();
  const ClassTables& tables = profile_.tables;
  for (int32_t i = 0; i < profile_.coordinates; ++i) {
    if (!tables.Null(level, (*classes)[i])) continue;
    int32_t* row = cells + static_cast<int64_t>(i) * tokens;
    if (level == 0) {
      std::fill(row, row + tokens, 0);
    } else {
      for (int t = 0; t < tokens; ++t) row[t] *= 3;
    }
  }

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
        level == 0 ? DecodeBaseBlocks(blocks_.data(), blocks_.size(), base_.data(), classes->data(),
                                      tokens, cells)
                   : DecodeRefineBlocks(blocks_.data(), blocks_.size(), &tables.Refine(level, 0),
                                        classes->data(), tokens, cells);
    if (!good) return Damaged(level, "a block does not decode");
  }
  return DecodeExceptions(level, segment.exceptions, tokens, cells);
}

}  // namespace kvstream

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

constexpr uint32_t kSlotMask = kProbabilityScale - 1;

absl::Status Damaged(int level, const char* what) {
  return absl::DataLossError(absl::StrCat("segment: level ", level, ": ", what));
}

// One step of up to 32 lanes at level 0.
template <bool kChecked>
inline void BaseStep(RansDecoder& rans, const uint32_t* slots, int lanes, int32_t* out) {
  for (int lane = 0; lane < lanes; ++lane) {
    const uint32_t x = rans.state[lane];
    const uint32_t slot = slots[x & kSlotMask];
    out[lane] = static_cast<int32_t>(slot & 255) - 128;
    rans.state[lane] = rans.Renormalise<kChecked>(
        (slot >> 8 & kSlotMask) * (x >> kProbabilityBits) + (slot >> 20));
  }
}

template <bool kChecked>
inline void BitsStep(RansDecoder& rans, int shift, int lanes, int32_t* out) {
  for (int lane = 0; lane < lanes; ++lane) {
    out[lane] = out[lane] * (1 << shift) + static_cast<int32_t>(rans.Bits<kChecked>(lane, shift));
  }
}

// What a refinement step needs of one context, for one sign of the parent.
struct Ternary {
  uint32_t first_end;  // slots below are r = 0 of the three
  uint32_t second_end;
  uint32_t frequency[3];
  uint32_t start[3];
};

template <bool kChecked>
inline void RefineStep(RansDecoder& rans, const Ternary* tables, int lanes, int32_t* cells) {
  for (int lane = 0; lane < lanes; ++lane) {
    const int32_t parent = cells[lane];
    const int sign = parent < 0 ? -1 : 1;
    const int32_t magnitude = parent * sign;
    const Ternary& table = tables[magnitude < 2 ? magnitude : 2];
    const uint32_t x = rans.state[lane];
    const uint32_t slot = x & kSlotMask;
    const int index = (slot >= table.first_end) + (slot >= table.second_end);
    cells[lane] = 3 * parent + sign * (index - 1);
    rans.state[lane] = rans.Renormalise<kChecked>(table.frequency[index] * (x >> kProbabilityBits) +
                                                  slot - table.start[index]);
  }
}

}  // namespace

const uint32_t* LevelDecoder::Slots(int klass) {
  std::unique_ptr<uint32_t[]>& slots = slots_[klass];
  if (slots == nullptr) {
    slots.reset(new uint32_t[kProbabilityScale]);
    const BaseTable& table = profile_.tables.base[klass];
    uint32_t slot = 0;
    for (size_t i = 0; i < table.frequency.size(); ++i) {
      const uint32_t symbol = static_cast<uint32_t>(static_cast<int>(i) - table.max_symbol + 128);
      for (uint32_t offset = 0; offset < table.frequency[i]; ++offset) {
        slots[slot++] = symbol | uint32_t{table.frequency[i]} << 8 | offset << 20;
      }
    }
  }
  return slots.get();
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
  const int64_t cell_count = static_cast<int64_t>(profile_.coordinates) * tokens;
  if (tokens == 0) order_.clear();
  if (level == 0) {
    std::fill(cells, cells + cell_count, 0);
  } else {
    for (int32_t i = 0; i < profile_.coordinates; ++i) {
      if (!profile_.tables.Null(level, (*classes)[i])) continue;
      int32_t* row = cells + static_cast<int64_t>(i) * tokens;
      for (int t = 0; t < tokens; ++t) row[t] *= 3;
    }
  }

  size_t next = 0;
  absl::string_view payload = segment.payload;
  for (const BlockEntry& block : segment.blocks) {
    if (block.coordinates > order_.size() - next)
      return Damaged(level, "blocks have more coordinates than are coded");
    RansDecoder rans;
    if (!rans.Init(payload.substr(0, block.bytes), std::min(kLanes, tokens)))
      return Damaged(level, "a block is too short for its states");
    payload.remove_prefix(block.bytes);
    Ternary tables[kRefineContexts];
    int prepared = -1;
    for (uint32_t i = 0; i < block.coordinates; ++i) {
      const int32_t coordinate = order_[next++];
      const int klass = (*classes)[coordinate];
      int32_t* row = cells + static_cast<int64_t>(coordinate) * tokens;
      if (level == 0) {
        const uint32_t* slots = Slots(klass);
        const int shift = profile_.tables.base[klass].shift;
        for (int step = 0; step < tokens; step += kLanes) {
          const int lanes = std::min(kLanes, tokens - step);
          if (rans.roomy()) {
            BaseStep<false>(rans, slots, lanes, row + step);
          } else {
            BaseStep<true>(rans, slots, lanes, row + step);
          }
          if (shift == 0) continue;
          if (rans.roomy()) {
            BitsStep<false>(rans, shift, lanes, row + step);
          } else {
            BitsStep<true>(rans, shift, lanes, row + step);
          }
        }
      } else {
        if (klass != prepared) {
          const RefineTable& refine = profile_.tables.Refine(level, klass);
          for (int context = 0; context < kRefineContexts; ++context) {
            const auto& frequency = refine.frequency[context];
            const uint32_t first = frequency[0];
            const uint32_t second = first + frequency[1];
            tables[context] = {
                first, second, {frequency[0], frequency[1], frequency[2]}, {0, first, second}};
          }
          prepared = klass;
        }
        for (int step = 0; step < tokens; step += kLanes) {
          const int lanes = std::min(kLanes, tokens - step);
          if (rans.roomy()) {
            RefineStep<false>(rans, tables, lanes, row + step);
          } else {
            RefineStep<true>(rans, tables, lanes, row + step);
          }
        }
      }
    }
    if (!rans.Finished()) return Damaged(level, "a block does not decode");
  }
  if (next != order_.size()) return Damaged(level, "blocks have fewer coordinates than are coded");
  return DecodeExceptions(level, segment.exceptions, tokens, cells);
}

}  // namespace kvstream

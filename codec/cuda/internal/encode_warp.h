// Encoding of rows of cells by one warp: what a row costs, its exceptions, blocks of the entropy
// code. Cells are those of the finest level; a coarser level's are their parents.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_WARP_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_WARP_H_

#include <cstdint>

#include "codec/cuda/internal/encode_types.h"
#include "codec/cuda/internal/entropy_warp.h"
#include "codec/cuda/internal/lane_math.h"
#include "codec/cuda/internal/warp.h"

namespace kvstream {
namespace cuda {

KVSTREAM_KERNEL_CODE int32_t CellAtLevel(int32_t finest, int levels_up) {
  for (int i = 0; i < levels_up; ++i) finest = Parent(finest);
  return finest;
}

// Symbol of a cell at level 0, floor(cell / 2^shift), and whether the table has it.
KVSTREAM_KERNEL_CODE int32_t BaseSymbol(const BaseTableDev& table, int32_t cell, bool* fits) {
  const int32_t symbol = cell >> table.shift;
  *fits = symbol >= -table.max_symbol && symbol <= table.max_symbol;
  return symbol;
}

// r of a cell, mirrored by its parent's sign, plus 1; and the parent's context.
KVSTREAM_KERNEL_CODE int RefineIndex(int32_t cell, int32_t parent, int* context) {
  const int32_t r = cell - 3 * parent;
  const uint32_t magnitude = Magnitude(parent);
  *context = static_cast<int>(magnitude < 2 ? magnitude : 2);
  return (parent < 0 ? -r : r) + 1;
}

KVSTREAM_KERNEL_CODE bool NullAt(const ProfileDev& profile, int level, int klass) {
  return level == 0 ? profile.base[klass].max_symbol == 0
                    : profile.refine[(level - 1) * profile.classes + klass].frequency[0][0] == 0;
}

KVSTREAM_KERNEL_CODE float BitsOfFrequency(uint32_t frequency) {
  return 12.0f - log2f(static_cast<float>(frequency));
}

// The symbol that an exception replaces: the cell at level 0, r above.
KVSTREAM_KERNEL_CODE bool IsException(const ProfileDev& profile, int level, int klass, bool null,
                                      int32_t cell, int32_t parent, int32_t* symbol) {
  if (level > 0) {
    *symbol = cell - 3 * parent;
    return null && *symbol != 0;
  }
  *symbol = cell;
  bool fits;
  BaseSymbol(profile.base[klass], cell, &fits);
  return null ? cell != 0 : !fits;
}

// Code length of one cell that its block codes.
KVSTREAM_KERNEL_CODE float CellBits(const ProfileDev& profile, int level, int klass, int32_t cell,
                                    int32_t parent) {
  if (level == 0) {
    const BaseTableDev& table = profile.base[klass];
    bool fits;
    int32_t symbol = BaseSymbol(table, cell, &fits);
    if (!fits) symbol = 0;
    return BitsOfFrequency(table.entry[symbol + table.max_symbol] & 0xffffu) +
           static_cast<float>(table.shift);
  }
  int context;
  const int index = RefineIndex(cell, parent, &context);
  return BitsOfFrequency(
      profile.refine[(level - 1) * profile.classes + klass].frequency[context][index]);
}

KVSTREAM_KERNEL_CODE uint64_t RowIndex(const EncodeDev& encode, uint32_t chunk, int level,
                                       uint32_t coordinate) {
  return (static_cast<uint64_t>(chunk) * encode.levels + level) * encode.batch.profile.coordinates +
         coordinate;
}

// One warp measures one row at all levels.
template <typename W>
KVSTREAM_KERNEL_CODE void MeasureRow(const W& warp, const EncodeDev& encode, uint32_t chunk,
                                     uint32_t coordinate) {
  const ProfileDev& profile = encode.batch.profile;
  const int tokens = encode.batch.chunks[chunk].tokens;
  const int32_t* const row = RowOf<int32_t>(encode.batch, chunk, coordinate);
  const int klass = encode.classes[coordinate];
  for (int level = 0; level < encode.levels; ++level) {
    const bool null = NullAt(profile, level, klass);
    const int up = encode.levels - 1 - level;
    typename W::template Lanes<float> bits;
    warp.Each([&](int lane) { bits[lane] = 0; });
    uint32_t count = 0;
    for (int step = 0; step < tokens; step += kWarp) {
      typename W::template Lanes<bool> exception;
      warp.Each([&](int lane) {
        exception[lane] = false;
        if (step + lane >= tokens) return;
        const int32_t cell = CellAtLevel(row[step + lane], up);
        const int32_t parent = Parent(cell);
        int32_t symbol;
        exception[lane] = IsException(profile, level, klass, null, cell, parent, &symbol);
        if (!null) bits[lane] += CellBits(profile, level, klass, cell, parent);
      });
      count += CountBits(warp.Ballot(exception));
    }
    const float sum = warp.Sum(bits);
    warp.Each([&](int lane) {
      if (lane != 0) return;
      encode.bits[RowIndex(encode, chunk, level, coordinate)] = sum;
      encode.exceptions[RowIndex(encode, chunk, level, coordinate)] = count;
    });
  }
}

// One warp writes the exceptions of one row at all levels, in order of the tokens.
template <typename W>
KVSTREAM_KERNEL_CODE void WriteExceptions(const W& warp, const EncodeDev& encode,
                                          const EncodeBlocksDev& blocks, uint32_t chunk,
                                          uint32_t coordinate) {
  const ProfileDev& profile = encode.batch.profile;
  const int tokens = encode.batch.chunks[chunk].tokens;
  const int32_t* const row = RowOf<int32_t>(encode.batch, chunk, coordinate);
  const int klass = encode.classes[coordinate];
  for (int level = 0; level < encode.levels; ++level) {
    const uint64_t index = RowIndex(encode, chunk, level, coordinate);
    if (encode.exceptions[index] == 0) continue;
    uint32_t next = blocks.exception_first[index];
    const bool null = NullAt(profile, level, klass);
    for (int step = 0; step < tokens; step += kWarp) {
      typename W::template Lanes<bool> exception;
      typename W::template Lanes<int32_t> symbol;
      warp.Each([&](int lane) {
        exception[lane] = false;
        if (step + lane >= tokens) return;
        const int32_t cell = CellAtLevel(row[step + lane], encode.levels - 1 - level);
        exception[lane] =
            IsException(profile, level, klass, null, cell, Parent(cell), &symbol[lane]);
      });
      const uint32_t mask = warp.Ballot(exception);
      warp.Each([&](int lane) {
        if (!exception[lane]) return;
        blocks.exceptions[next + CountBelow(mask, lane)] = {
            chunk, coordinate, static_cast<uint32_t>(step + lane), symbol[lane]};
      });
      next += CountBits(mask);
    }
  }
}

// The states of a block that is written backwards, and its words, which grow down from `end`.
template <typename W>
class WarpEncoder {
 public:
  template <typename T>
  using Lanes = typename W::template Lanes<T>;

  KVSTREAM_KERNEL_CODE WarpEncoder(const W& warp, uint16_t* end, uint32_t capacity)
      : warp_(warp), end_(end), capacity_(capacity) {
    warp_.Each([&](int lane) { state[lane] = kStateLow; });
  }

  // Each active lane whose state has reached its limit gives up a word: the higher lane first,
  // since the decoder takes them the other way round.
  KVSTREAM_KERNEL_CODE void Spill(const Lanes<bool>& active, const Lanes<uint64_t>& limit) {
    Lanes<bool> full;
    warp_.Each([&](int lane) { full[lane] = active[lane] && state[lane] >= limit[lane]; });
    const uint32_t mask = warp_.Ballot(full);
    if (mask == 0) return;
    warp_.Each([&](int lane) {
      if (!full[lane]) return;
      const uint32_t at = words_ + static_cast<uint32_t>(CountAbove(mask, lane));
      if (at < capacity_) *(end_ - 1 - at) = static_cast<uint16_t>(state[lane]);
      state[lane] >>= 16;
    });
    words_ += static_cast<uint32_t>(CountBits(mask));
  }

  // Writes the states before the words. Words of the block, or 0 if they do not fit.
  KVSTREAM_KERNEL_CODE uint32_t Finish(int lanes) {
    const uint32_t total = words_ + 2 * static_cast<uint32_t>(lanes);
    if (total > capacity_) return 0;
    uint16_t* const at = end_ - total;
    warp_.Each([&](int lane) {
      if (lane >= lanes) return;
      at[2 * lane] = static_cast<uint16_t>(state[lane]);
      at[2 * lane + 1] = static_cast<uint16_t>(state[lane] >> 16);
    });
    return total;
  }

  Lanes<uint32_t> state;

 private:
  const W& warp_;
  uint16_t* const end_;
  const uint32_t capacity_;
  uint32_t words_ = 0;
};

// One warp encodes one block.
template <typename W>
KVSTREAM_KERNEL_CODE void EncodeTask(const W& warp, const EncodeDev& encode,
                                     const EncodeBlocksDev& blocks, uint32_t index) {
  const EncodeTaskDev task = blocks.tasks[index];
  const ProfileDev& profile = encode.batch.profile;
  const int tokens = encode.batch.chunks[task.chunk].tokens;
  const int level = static_cast<int>(task.level);
  const int up = encode.levels - 1 - level;
  WarpEncoder<W> stream(warp, blocks.payload + task.offset + task.capacity, task.capacity);
  typename W::template Lanes<bool> active;
  typename W::template Lanes<uint64_t> limit;
  typename W::template Lanes<uint32_t> start;
  typename W::template Lanes<uint32_t> frequency;
  typename W::template Lanes<uint32_t> low;
  for (uint32_t i = task.coordinates; i > 0; --i) {
    const uint32_t coordinate = static_cast<uint32_t>(blocks.orders[level][task.first + i - 1]);
    const int klass = encode.classes[coordinate];
    const int32_t* const row = RowOf<int32_t>(encode.batch, task.chunk, coordinate);
    const int shift = level == 0 ? profile.base[klass].shift : 0;
    for (int step = (tokens - 1) / kWarp * kWarp; step >= 0; step -= kWarp) {
      warp.Each([&](int lane) {
        active[lane] = step + lane < tokens;
        if (!active[lane]) return;
        const int32_t cell = CellAtLevel(row[step + lane], up);
        if (level == 0) {
          const BaseTableDev& table = profile.base[klass];
          bool fits;
          int32_t symbol = BaseSymbol(table, cell, &fits);
          low[lane] = fits ? static_cast<uint32_t>(cell) & ((1u << shift) - 1) : 0;
          if (!fits) symbol = 0;  // an exception
          const uint32_t entry = table.entry[symbol + table.max_symbol];
          frequency[lane] = entry & 0xffffu;
          start[lane] = entry >> 16;
        } else {
          const RefineTableDev& table = profile.refine[(level - 1) * profile.classes + klass];
          int context;
          const int r = RefineIndex(cell, Parent(cell), &context);
          const uint16_t* const sizes = table.frequency[context];
          frequency[lane] = sizes[r];
          start[lane] = r == 0 ? 0 : (r == 1 ? sizes[0] : sizes[0] + sizes[1]);
        }
      });
      if (shift > 0) {
        warp.Each([&](int lane) { limit[lane] = uint64_t{1} << (32 - shift); });
        stream.Spill(active, limit);
        warp.Each([&](int lane) {
          if (active[lane]) stream.state[lane] = stream.state[lane] << shift | low[lane];
        });
      }
      warp.Each([&](int lane) {
        limit[lane] = active[lane] ? static_cast<uint64_t>(frequency[lane]) << 20 : 0;
      });
      stream.Spill(active, limit);
      warp.Each([&](int lane) {
        if (!active[lane]) return;
        const uint32_t x = stream.state[lane];
        stream.state[lane] = ((x / frequency[lane]) << 12) + x % frequency[lane] + start[lane];
      });
    }
  }
  const uint32_t words = stream.Finish(tokens < kWarp ? tokens : kWarp);
  warp.Each([&](int lane) {
    if (lane == 0) blocks.words[index] = words;
  });
}

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_ENCODE_WARP_H_

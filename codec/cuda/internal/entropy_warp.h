// Decoding of one block of the entropy code by one warp, lane l decoding the tokens t with t mod 32
// = l. Hostile blocks: reads stay within the block's words, writes within the rows of its
// coordinates, and whatever is not a block's end sets kDamagedBlock.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_ENTROPY_WARP_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_ENTROPY_WARP_H_

#include <cstdint>

#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/lane_math.h"
#include "codec/cuda/internal/warp.h"

namespace kvstream {
namespace cuda {

constexpr uint32_t kStateLow = 1u << 16;
// A symbol at least as frequent is worth the guess that a row has nothing else, which is right for
// one row of 256 tokens in five or more. A guess has an eighth of the exchanges between lanes, and
// no lookups.
constexpr uint32_t kFrequentSymbol = 4070;

// The states of a block's lanes, and its words. The next 64 words (of which up to 31 are used
// already) are kept in the lanes: word i of this window is in lane i mod 32, in the low half for i
// < 32. The 32 words after them are loaded ahead of their use.
template <typename W>
class WarpStream {
 public:
  template <typename T>
  using Lanes = typename W::template Lanes<T>;

  // at: the states, then `words` words; lanes: 1 to 32.
  KVSTREAM_KERNEL_CODE WarpStream(const W& warp, const uint16_t* at, uint64_t words, int lanes)
      : warp_(warp), words_(at + 2 * lanes), count_(words) {
    warp_.Each([&](int lane) {
      state[lane] =
          lane < lanes ? at[2 * lane] | static_cast<uint32_t>(at[2 * lane + 1]) << 16 : kStateLow;
      window_[lane] = Word(lane) | static_cast<uint32_t>(Word(lane + 32)) << 16;
      ahead_[lane] = Word(lane + 64);
    });
  }

  // Gives a word to each lane whose state has fallen below 2^16.
  KVSTREAM_KERNEL_CODE void Renormalise() {
    Lanes<bool> needs;
    warp_.Each([&](int lane) { needs[lane] = state[lane] < kStateLow; });
    const uint32_t mask = warp_.Ballot(needs);
    if (mask == 0) return;
    Lanes<int> index;
    warp_.Each([&](int lane) { index[lane] = used_ + CountBelow(mask, lane); });
    const Lanes<uint32_t> pair = warp_.Shuffle(window_, index);
    warp_.Each([&](int lane) {
      const uint32_t word = index[lane] < 32 ? pair[lane] & 0xffffu : pair[lane] >> 16;
      if (needs[lane]) state[lane] = state[lane] << 16 | word;
    });
    used_ += CountBits(mask);
    if (used_ < 32) return;
    used_ -= 32;
    start_ += 32;
    warp_.Each([&](int lane) {
      window_[lane] = window_[lane] >> 16 | ahead_[lane] << 16;
      ahead_[lane] = Word(start_ + lane + 64);
    });
  }

  // Tries to decode a row of `tokens` symbols on the guess that each is the one of this frequency
  // and start and that no lane needs a word: no table, and one exchange between lanes at the end.
  // Where the guess holds for all, true; else nothing has happened. Rows of zeros are most rows of
  // coarse levels, and a chunk alone is bound by its longest block.
  KVSTREAM_KERNEL_CODE bool TakeRun(int tokens, uint32_t frequency, uint32_t start) {
    Lanes<uint32_t> guess;
    Lanes<bool> wrong;
    warp_.Each([&](int lane) {
      const int steps = (tokens - lane + kWarp - 1) / kWarp;
      uint32_t x = state[lane];
      bool good = true;
      for (int i = 0; i < steps; ++i) {
        const uint32_t offset = (x & (kSlotsOfTable - 1)) - start;
        x = frequency * (x >> 12) + offset;
        good = good && offset < frequency && x >= kStateLow;
      }
      guess[lane] = x;
      wrong[lane] = !good;
    });
    if (warp_.Ballot(wrong) != 0) return false;
    warp_.Each([&](int lane) { state[lane] = guess[lane]; });
    return true;
  }

  // True if every word was used and every lane is back at the encoder's start.
  KVSTREAM_KERNEL_CODE bool Finished() const {
    Lanes<bool> off;
    warp_.Each([&](int lane) { off[lane] = state[lane] != kStateLow; });
    return warp_.Ballot(off) == 0 && start_ + used_ == count_;
  }

  Lanes<uint32_t> state;

 private:
  // Beyond the end: 0. The count of words used then tells.
  KVSTREAM_KERNEL_CODE uint32_t Word(uint64_t index) const {
    return index < count_ ? words_[index] : 0;
  }

  const W& warp_;
  const uint16_t* const words_;
  const uint64_t count_;
  uint64_t start_ = 0;  // word of the window's first
  int used_ = 0;        // words used of the window, below 32
  Lanes<uint32_t> window_;
  Lanes<uint32_t> ahead_;  // the 32 words after the window
};

template <typename Cell>
KVSTREAM_KERNEL_CODE Cell* RowOf(const BatchDev& batch, uint32_t chunk, uint32_t coordinate) {
  return static_cast<Cell*>(batch.cells) +
         (static_cast<uint64_t>(chunk) * batch.profile.coordinates + coordinate) * batch.stride;
}

KVSTREAM_KERNEL_CODE uint32_t* RowMaxOf(const BatchDev& batch, uint32_t chunk) {
  return batch.row_max + static_cast<uint64_t>(chunk) * batch.profile.coordinates;
}

KVSTREAM_KERNEL_CODE uint32_t Magnitude(int32_t cell) {
  return static_cast<uint32_t>(cell < 0 ? -cell : cell);
}

// Calls use(coordinate, class) for the task's coordinates in coding order; all lanes see the same.
template <typename W, typename Use>
KVSTREAM_KERNEL_CODE void ForEachCoordinate(const W& warp, const ChunkLevelDev& level,
                                            const TaskDev& task, Use use) {
  typename W::template Lanes<int32_t> coordinates;
  typename W::template Lanes<int32_t> classes;
  for (uint32_t i = 0; i < task.coordinates; ++i) {
    if (i % kWarp == 0) {
      warp.Each([&](int lane) {
        if (i + lane < task.coordinates) {
          coordinates[lane] = level.order[task.first + i + lane];
          classes[lane] = level.classes[coordinates[lane]];
        } else {
          coordinates[lane] = 0;
          classes[lane] = 0;
        }
      });
    }
    use(static_cast<uint32_t>(warp.Broadcast(coordinates, static_cast<int>(i % kWarp))),
        warp.Broadcast(classes, static_cast<int>(i % kWarp)));
  }
}

// A class's table in memory that is fast for this warp.
template <typename W>
KVSTREAM_KERNEL_CODE void CopyTable(const W& warp, const BaseTableDev& from, BaseTableDev* to) {
  constexpr int kWords = sizeof(BaseTableDev) / 16;
  struct alignas(16) Quad {
    uint32_t part[4];
  };
  const Quad* source = reinterpret_cast<const Quad*>(&from);
  Quad* target = reinterpret_cast<Quad*>(to);
  warp.Sync();
  warp.Each([&](int lane) {
    for (int i = lane; i < kWords; i += kWarp) target[i] = source[i];
  });
  warp.Sync();
}

// Level 0. table: scratch of this warp.
template <typename Cell, typename W>
KVSTREAM_KERNEL_CODE bool DecodeBaseBlock(const W& warp, const BatchDev& batch,
                                          const ChunkLevelDev& level, const TaskDev& task,
                                          BaseTableDev* table) {
  const int tokens = batch.chunks[task.chunk].tokens;
  WarpStream<W> stream(warp, batch.payload + task.offset, task.words,
                       tokens < kWarp ? tokens : kWarp);
  uint32_t* const row_max = RowMaxOf(batch, task.chunk);
  int prepared = -1;
  ForEachCoordinate(warp, level, task, [&](uint32_t coordinate, int klass) {
    if (klass != prepared) {
      CopyTable(warp, batch.profile.base[klass], table);
      prepared = klass;
    }
    Cell* const row = RowOf<Cell>(batch, task.chunk, coordinate);
    const int shift = table->shift;
    const int zero = table->max_symbol;
    typename W::template Lanes<uint32_t> largest;
    typename W::template Lanes<int32_t> cell;
    const uint32_t entry_of_zero = table->entry[zero];
    if (shift == 0 && (entry_of_zero & 0xffffu) >= kFrequentSymbol &&
        stream.TakeRun(tokens, entry_of_zero & 0xffffu, entry_of_zero >> 16)) {
      warp.Each([&](int lane) {
        for (int t = lane; t < tokens; t += kWarp) row[t] = 0;
        if (lane == 0) row_max[coordinate] = 0;
      });
      return;
    }
    warp.Each([&](int lane) { largest[lane] = 0; });
    for (int step = 0; step < tokens; step += kWarp) {
      warp.Each([&](int lane) {
        if (step + lane >= tokens) return;
        const uint32_t x = stream.state[lane];
        const uint32_t slot = x & (kSlotsOfTable - 1);
        const uint32_t symbol = table->symbol[slot];
        const uint32_t entry = table->entry[symbol];
        stream.state[lane] = (entry & 0xffffu) * (x >> 12) + slot - (entry >> 16);
        cell[lane] = static_cast<int32_t>(symbol) - zero;
      });
      stream.Renormalise();
      if (shift > 0) {
        warp.Each([&](int lane) {
          if (step + lane >= tokens) return;
          const uint32_t x = stream.state[lane];
          cell[lane] = cell[lane] * (1 << shift) + static_cast<int32_t>(x & ((1u << shift) - 1));
          stream.state[lane] = x >> shift;
        });
        stream.Renormalise();
      }
      warp.Each([&](int lane) {
        if (step + lane >= tokens) return;
        row[step + lane] = static_cast<Cell>(cell[lane]);
        const uint32_t magnitude = Magnitude(cell[lane]);
        largest[lane] = magnitude > largest[lane] ? magnitude : largest[lane];
      });
    }
    const uint32_t max = warp.Max(largest);
    warp.Each([&](int lane) {
      if (lane == 0) row_max[coordinate] = max;
    });
  });
  return stream.Finished();
}

// A level above 0: rows hold the parents.
template <typename Cell, typename W>
KVSTREAM_KERNEL_CODE bool DecodeRefineBlock(const W& warp, const BatchDev& batch,
                                            const ChunkLevelDev& level, const TaskDev& task,
                                            const RefineTableDev* tables) {
  const int tokens = batch.chunks[task.chunk].tokens;
  WarpStream<W> stream(warp, batch.payload + task.offset, task.words,
                       tokens < kWarp ? tokens : kWarp);
  uint32_t* const row_max = RowMaxOf(batch, task.chunk);
  ForEachCoordinate(warp, level, task, [&](uint32_t coordinate, int klass) {
    const RefineTableDev table = tables[klass];
    // By context: where r = 0 and r = 1 start.
    const uint32_t first_0 = table.frequency[0][0];
    const uint32_t first_1 = table.frequency[1][0];
    const uint32_t first_2 = table.frequency[2][0];
    const uint32_t second_0 = first_0 + table.frequency[0][1];
    const uint32_t second_1 = first_1 + table.frequency[1][1];
    const uint32_t second_2 = first_2 + table.frequency[2][1];
    // Parents are all 0: if r is too, the row stays as it is.
    const uint32_t frequency = table.frequency[0][1];
    if (frequency >= kFrequentSymbol && row_max[coordinate] == 0 &&
        stream.TakeRun(tokens, frequency, first_0))
      return;
    Cell* const row = RowOf<Cell>(batch, task.chunk, coordinate);
    typename W::template Lanes<uint32_t> largest;
    typename W::template Lanes<int32_t> parent;
    typename W::template Lanes<int32_t> next;
    warp.Each([&](int lane) {
      largest[lane] = 0;
      next[lane] = lane < tokens ? row[lane] : 0;
    });
    for (int step = 0; step < tokens; step += kWarp) {
      warp.Each([&](int lane) {
        parent[lane] = next[lane];
        next[lane] = step + kWarp + lane < tokens ? row[step + kWarp + lane] : 0;
        if (step + lane >= tokens) return;
        const uint32_t magnitude = Magnitude(parent[lane]);
        const uint32_t first = magnitude == 0 ? first_0 : (magnitude == 1 ? first_1 : first_2);
        const uint32_t second = magnitude == 0 ? second_0 : (magnitude == 1 ? second_1 : second_2);
        const uint32_t x = stream.state[lane];
        const uint32_t slot = x & (kSlotsOfTable - 1);
        const bool above_first = slot >= first;
        const bool above_second = slot >= second;
        const uint32_t start = above_second ? second : (above_first ? first : 0);
        const uint32_t size =
            above_second ? kSlotsOfTable - second : (above_first ? second - first : first);
        stream.state[lane] = size * (x >> 12) + slot - start;
        const int32_t r =
            static_cast<int32_t>(above_first) + static_cast<int32_t>(above_second) - 1;
        const int32_t cell = 3 * parent[lane] + (parent[lane] < 0 ? -r : r);
        row[step + lane] = static_cast<Cell>(cell);
        largest[lane] = Magnitude(cell) > largest[lane] ? Magnitude(cell) : largest[lane];
      });
      stream.Renormalise();
    }
    const uint32_t max = warp.Max(largest);
    warp.Each([&](int lane) {
      if (lane == 0) row_max[coordinate] = max;
    });
  });
  return stream.Finished();
}

// Coordinates that the level does not code: cells are 0, or stay in the middle of their parents.
template <typename Cell, typename W>
KVSTREAM_KERNEL_CODE void ExtendNullRows(const W& warp, const BatchDev& batch,
                                         const LevelDev& level, const TaskDev& task) {
  const int tokens = batch.chunks[task.chunk].tokens;
  uint32_t* const row_max = RowMaxOf(batch, task.chunk);
  ForEachCoordinate(warp, level.chunks[task.chunk], task, [&](uint32_t coordinate, int) {
    Cell* const row = RowOf<Cell>(batch, task.chunk, coordinate);
    const uint32_t parents = level.level == 0 ? 0 : row_max[coordinate];
    if (level.level > 0 && parents == 0) return;
    warp.Sync();
    warp.Each([&](int lane) {
      for (int t = lane; t < tokens; t += kWarp)
        row[t] = level.level == 0 ? Cell{0} : static_cast<Cell>(row[t] * 3);
      if (lane == 0) row_max[coordinate] = parents * 3;
    });
  });
}

// One warp's task of a level. kBase: it is level 0 (a template, so that no kernel carries both
// codes); table: scratch of this warp, used at level 0.
template <typename Cell, bool kBase, typename W>
KVSTREAM_KERNEL_CODE void RunTask(const W& warp, const BatchDev& batch, const LevelDev& level,
                                  uint32_t index, BaseTableDev* table) {
  const TaskDev task = level.tasks[index];
  if (task.kind == kNullRows) {
    ExtendNullRows<Cell>(warp, batch, level, task);
    return;
  }
  const ChunkLevelDev chunk = level.chunks[task.chunk];
  bool finished;
  if constexpr (kBase) {
    finished = DecodeBaseBlock<Cell>(warp, batch, chunk, task, table);
  } else {
    finished = DecodeRefineBlock<Cell>(
        warp, batch, chunk, task,
        batch.profile.refine + static_cast<int64_t>(level.level - 1) * batch.profile.classes);
  }
  warp.Each([&](int lane) {
    if (lane == 0 && !finished)
      OrInto(&batch.status[batch.chunks[task.chunk].status], kDamagedBlock);
  });
}

// Applies one exception of a level, after its blocks.
template <typename Cell>
KVSTREAM_KERNEL_CODE void ApplyException(const BatchDev& batch, const LevelDev& level,
                                         uint32_t index) {
  const ExceptionDev exception = level.exceptions[index];
  Cell* const cell = RowOf<Cell>(batch, exception.chunk, exception.coordinate) + exception.token;
  const int32_t value = level.level == 0 ? exception.symbol : 3 * Parent(*cell) + exception.symbol;
  *cell = static_cast<Cell>(value);
  MaxInto(RowMaxOf(batch, exception.chunk) + exception.coordinate, Magnitude(value));
}

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_ENTROPY_WARP_H_

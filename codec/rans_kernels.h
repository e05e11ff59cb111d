// Decoding loops of the rANS blocks of one level, vectorised with Highway: one source for AVX-512,
// AVX2, SSE4 and NEON, picked at run time. They give the cells that the scalar steps of rans.h
// give; the tests compare them on every target.
//
// A step decodes 32 tokens of one coordinate, one a lane. Steps of a block depend on each other and
// blocks do not, so that two blocks are decoded at a time where that hides latency.
#ifndef KVSTREAM_CODEC_RANS_KERNELS_H_
#define KVSTREAM_CODEC_RANS_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "codec/cell_rows.h"
#include "codec/class_tables.h"

namespace kvstream {

// Symbols that a table searched in registers may have.
constexpr int kSearchSymbolsMax = 64;

// A base table made ready. slots is borrowed.
struct BaseDecodeTable {
  alignas(64) uint16_t start[kSearchSymbolsMax];  // beyond the last symbol: 0xffff
  uint16_t frequency[kSearchSymbolsMax];
  // [4096]: symbol + 128 (8 bits), frequency (12), slot - start (12).
  const uint32_t* slots = nullptr;
  int rounds = 0;  // of binary search: 2 to 6; 7 if there are more than 64 symbols
  int shift = 0;
  int max_symbol = 0;
};

// Fills all of `out`, and slots[4096] behind it. Precondition: the table is not null.
void PrepareBaseTable(const BaseTable& table, uint32_t* slots, BaseDecodeTable* out);

// A refinement table made ready, by the parent clamped to -2..2, s, in 32 slots: s stands at s mod
// 32, and with the index i of a symbol (0, 1 or 2) at (s + 8 i) mod 32.
struct RefineDecodeTable {
  alignas(64) uint16_t first[32];  // slots of symbol 0 end here
  uint16_t second[32];             // those of symbol 1
  uint16_t frequency[32];          // by s and i
};

// table: may be null, its entries are then 0.
void PrepareRefineTable(const RefineTable& table, RefineDecodeTable* out);

// Coordinates that one block codes, and its bytes. Borrowed.
struct RansBlock {
  const char* data = nullptr;
  size_t bytes = 0;
  const int32_t* coordinates = nullptr;
  size_t count = 0;
};

// Decodes blocks of level 0. tables: by class; classes: by coordinate, of which those of the blocks
// are not null. Rows of the blocks' coordinates in `cells` are written, their padding too; of wide
// rows those in 32 bits if their table has a shift, else the narrow ones, which hold all of its
// cells. At least one token. False if a block does not end where it must; rows then hold anything.
// Reads and writes stay within the blocks and the rows whatever the bytes are.
bool DecodeBaseBlocks(const RansBlock* blocks, size_t count, const BaseDecodeTable* tables,
                      const uint8_t* classes, CellRows* cells);

// The same for a refinement level: narrow rows hold the parents and are replaced by the cells.
bool DecodeRefineBlocks(const RansBlock* blocks, size_t count, const RefineDecodeTable* tables,
                        const uint8_t* classes, CellRows* cells);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_RANS_KERNELS_H_

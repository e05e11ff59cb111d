// Encoding loops of the rANS blocks of one level and what the choice of classes counts, vectorised
// with Highway. They give the bytes that RansEncoder (rans.h) gives; the tests compare them.
#ifndef KVSTREAM_CODEC_RANS_ENCODE_KERNELS_H_
#define KVSTREAM_CODEC_RANS_ENCODE_KERNELS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "codec/cell_rows.h"
#include "codec/class_tables.h"
#include "codec/rans.h"

namespace kvstream {

// A base table made ready for encoding.
struct BaseEncodeTable {
  alignas(64) uint16_t start[64];
  uint16_t frequency[64];
  uint32_t entry[256];  // start + 65536 * frequency
  int symbols = 0;      // 0: null
  int shift = 0;
  int max_symbol = 0;
};
void PrepareBaseTable(const BaseTable& table, BaseEncodeTable* out);

// A refinement table made ready: by s + 5 r mod 32, where s is the parent clamped to -2..2.
struct RefineEncodeTable {
  alignas(64) uint16_t start[32];
  uint16_t frequency[32];
};
// table: may be null, its entries are then 0.
void PrepareRefineTable(const RefineTable& table, RefineEncodeTable* out);

// Encodes one block: rows in the reverse of decoding order, each at once. Not thread-safe.
class RansRowEncoder {
 public:
  RansRowEncoder() { Reset(); }

  // cells: of one coordinate, [tokens], in plain order or as a narrow row of CellRows. Cells beyond
  // the table are coded as 0: they are exceptions.
  void PutBase(const BaseEncodeTable& table, const int32_t* cells, int tokens);
  void PutBase(const BaseEncodeTable& table, const int16_t* cells, int tokens);
  // Narrow rows.
  void PutRefine(const RefineEncodeTable& table, const int16_t* cells, const int16_t* parents,
                 int tokens);
  // Appends the block to `out` and starts over.
  void Finish(int lanes, std::string* out);

 private:
  void Reset();
  void MakeRoom(size_t words);

  alignas(64) uint32_t state_[kLanes];
  std::vector<uint16_t> words_;  // in the order in which they were put
  size_t used_ = 0;
};

// Cells -> those `steps` levels below: ParentCell of every one, so many times. last: if not null,
// those of another level below. in and out may be the same.
void ParentRow(const int32_t* in, int64_t count, int steps, int32_t* out, int32_t* last = nullptr);
// ParentCell of narrow rows' cells, [count]; count: a multiple of 32.
void ParentRow(const int16_t* in, int64_t count, int16_t* out);

// A panel of coordinates -> cells of one step of narrow rows: CellOf of in[row][32] into out + row
// * stride. fits[row]: no cell of it is beyond CellRows::kFinestMax.
void QuantisePanel(const float* in, int64_t rows, float power, int16_t* out, int64_t stride,
                   uint8_t* fits);

// Symbols of `tokens` cells of a row at a refinement level by context and r + 1, as
// CodeLengths::Refine counts them. cells and parents: narrow rows, their padding 0.
void CountRefine(const int16_t* cells, const int16_t* parents, int64_t tokens, int32_t (*count)[3]);

// Smallest and largest cell of a narrow row, padding included. stride: a multiple of 32.
void CellRange(const int16_t* cells, int64_t stride, int32_t* low, int32_t* high);
// count[cell - low] += how many cells there are of each in [low, low + values), padding included.
void CountCells(const int16_t* cells, int64_t stride, int32_t low, int values, int32_t* count);

// costs[k] = sum over i of counts[i] * lengths[i][k], for k in [0, width); width: a multiple of 16.
void ClassCosts(const float* const* lengths, const float* counts, int64_t terms, int64_t width,
                float* costs);

// For each of `rows` rows [width] of costs: chosen = index of the least cost[k] + prices[k],
// `reference` if it is no dearer, else the first of them. width: a multiple of 16.
void CheapestIndices(const float* costs, int64_t rows, const float* prices, int width,
                     int reference, int16_t* chosen);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_RANS_ENCODE_KERNELS_H_

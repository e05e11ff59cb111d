// Encoding loops of the rANS blocks of one level and what the choice of classes counts, vectorised
// with Highway. They give the bytes that RansEncoder (rans.h) gives; the tests compare them.
#ifndef KVSTREAM_CODEC_RANS_ENCODE_KERNELS_H_
#define KVSTREAM_CODEC_RANS_ENCODE_KERNELS_H_

#include <cstdint>
#include <string>
#include <vector>

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

// Encodes one block: rows in the reverse of decoding order, each at once. Not thread-safe.
class RansRowEncoder {
 public:
  RansRowEncoder() { Reset(); }

  // cells: of one coordinate, [tokens]. Cells beyond the table are coded as 0: they are exceptions.
  void PutBase(const BaseEncodeTable& table, const int32_t* cells, int tokens);
  void PutRefine(const RefineTable& table, const int32_t* cells, const int32_t* parents,
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

// Index of the least row[k] + prices[k]: `reference` if it is no dearer, else the first of them.
// width: a multiple of 16.
int CheapestIndex(const float* row, const float* prices, int width, int reference);

// Symbols of a row at a refinement level by context and r + 1, as CodeLengths::Refine counts them.
void CountRefine(const int32_t* cells, const int32_t* parents, int64_t tokens, int32_t (*count)[3]);

// Smallest and largest cell of a row. Precondition: tokens > 0.
void CellRange(const int32_t* cells, int64_t tokens, int32_t* low, int32_t* high);
// count[cell - low] += how many cells there are of each in [low, low + values).
void CountCells(const int32_t* cells, int64_t tokens, int32_t low, int values, int32_t* count);

// bits[k] += count * lengths[k] for k in [0, classes).
void AddBits(double count, const float* lengths, int64_t classes, double* bits);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_RANS_ENCODE_KERNELS_H_

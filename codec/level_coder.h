// One level of a chunk: cells of all coordinates <-> the sections override, exceptions, blocks and
// payload of its segment.
//
// Cells are matrices [coordinate][token] of int32 (quantize.h). At level 0 the symbol of a
// coordinate and token is its cell; at level n > 0 it is r = cell - 3 * parent. Coordinates of a
// class that is null at the level are not coded. The others are coded in the order of descending
// class, then ascending index, and cut into blocks; a block codes for each of its coordinates all
// tokens, 32 at a step, one a lane.
//
// Exceptions replace decoded symbols: pairs of varints (distance from the one before in
// coordinate * tokens + token, less one; zigzag of the symbol).
//
// Override: a symbol block (symbol_block.h) over all coordinates of (class - reference) mod 256,
// where the reference is the class in effect at the level below, or the profile's.
#ifndef KVSTREAM_CODEC_LEVEL_CODER_H_
#define KVSTREAM_CODEC_LEVEL_CODER_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "codec/cell_rows.h"
#include "codec/profile_data.h"
#include "codec/rans.h"
#include "codec/rans_encode_kernels.h"
#include "codec/rans_kernels.h"
#include "codec/segment.h"

namespace kvstream {

// Coordinates that the level codes, in coding order.
void CodingOrder(const ProfileData& profile, int level, const std::vector<uint8_t>& classes,
                 std::vector<int32_t>* order);

// Code lengths in bits of every symbol under every class. Thread-compatible; made once per profile.
class CodeLengths {
 public:
  explicit CodeLengths(const ClassTables& tables);

  // Statistics of one coordinate's symbols at one level.
  struct Base {
    static constexpr int kReach = 255;
    int low = 0;  // smallest and largest cell counted
    int high = 0;
    int32_t count[2 * kReach + 1] = {};  // of cell - (-kReach)
    std::vector<int32_t> far;            // cells beyond the reach
    void Clear();
    void Add(int32_t cell);
    // Adds the cells of a narrow row, its padding 0. Precondition: nothing was added since Clear.
    void AddRow(const int16_t* cells, int tokens);
  };
  struct Refine {
    int32_t count[kRefineContexts][3] = {};
  };

  double BaseBits(int klass, const Base& base) const;
  double RefineBits(int level, int klass, const Refine& refine) const;
  // Bits of one cell at level 0.
  double CellBits(int klass, int32_t cell) const;
  // Of the symbol r at a refinement level.
  float SymbolBits(int level, int klass, int context, int r) const {
    return refine_[(level - 1) * tables_.classes + klass][context][r + 1];
  }

 private:
  const ClassTables& tables_;
  std::vector<std::vector<float>> base_;  // [class][symbol + max_symbol]
  std::vector<std::array<std::array<float, 3>, kRefineContexts>> refine_;  // [level - 1][class]
};

// Not thread-safe: holds scratch memory. `profile` is borrowed.
class LevelEncoder {
 public:
  explicit LevelEncoder(const ProfileData& profile);

  // cells: of the profile's finest level, their padding 0; those of `level` and of the one below
  // are made from them row by row. Levels come in order from 0, with the same cells. classes: in
  // effect at the level below, replaced by those of this level where the override pays.
  void EncodeFinest(int level, const CellRows& cells, std::vector<uint8_t>* classes,
                    SegmentSections* out);
  // The same from cells [coordinate][token], which are copied; any level at any time.
  void EncodeFinest(int level, const int32_t* cells, int tokens, std::vector<uint8_t>* classes,
                    SegmentSections* out);
  // The same from cells of this level.
  void Encode(int level, const int32_t* cells, int tokens, std::vector<uint8_t>* classes,
              SegmentSections* out);

 private:
  // One coordinate's cells of the level at work and their parents (null at level 0), as narrow rows
  // or, at level 0 alone, in 32 bits. What they point to stays until the next call.
  struct Rows {
    const int16_t* cells;
    const int16_t* parents;
    const int32_t* wide;
  };
  // Lengths of the symbols of a row under a window of classes: one for each symbol that occurs.
  struct Terms {
    std::vector<const float*> lengths;
    std::vector<float> counts;
    void Clear() {
      lengths.clear();
      counts.clear();
    }
    void Add(const float* length, int32_t count) {
      lengths.push_back(length);
      counts.push_back(static_cast<float>(count));
    }
  };

  void Begin(int level, const CellRows& cells, int finest);
  Rows RowsOf(int32_t coordinate);
  // Cells of the level in 32 bits, into plain_, and their parents.
  void PlainRows(int32_t coordinate);
  // Rows of a block lie scattered: fetches the next one's cells while one is coded.
  void FetchRow(int32_t coordinate) const;
  // Counts the symbols of a coordinate at levels above 0, from that at work up to the finest.
  void CountLevels(int32_t coordinate);
  void EncodeRows(std::vector<uint8_t>* classes, SegmentSections* out);
  // Bits of coordinate under each class in reach of its reference, into costs[width_].
  void CostRow(int32_t coordinate, int reference, float* costs);
  void ChooseClasses(std::vector<uint8_t>* classes, std::string* out);
  void EncodeExceptions(const std::vector<uint8_t>& classes, std::string* out);
  void EncodeBlock(const std::vector<uint8_t>& classes, size_t first, size_t last,
                   std::string* payload);

  const ProfileData& profile_;
  const CodeLengths lengths_;
  // Classes on either side of the reference that an override may choose, and what a row of
  // candidates has, padded to whole vectors.
  const int reach_;
  const int width_;
  std::vector<float> cell_lengths_;               // [cell + kReach][reach_ + class + reach_]
  std::vector<float> symbol_lengths_;             // [level - 1][context][r + 1][the same]
  std::vector<BaseEncodeTable> tables_;           // by class
  std::vector<RefineEncodeTable> refine_tables_;  // [level - 1][class]
  RansRowEncoder rans_;
  // The chunk at work.
  int level_ = 0;
  int tokens_ = 0;
  const CellRows* cells_ = nullptr;
  int finest_ = 0;         // level of cells_
  bool counting_ = false;  // whether counts_ must be made, of the levels from level_ to finest_
  CellRows copied_;
  std::vector<int16_t> rows_;  // of one coordinate: cells of every level from finest_ down
  std::vector<int32_t> plain_;
  std::vector<int32_t> plain_parents_;
  CodeLengths::Base base_;
  Terms terms_;
  std::vector<std::array<uint16_t, kRefineContexts * 3>> counts_;  // [level - 1][coordinate]
  std::vector<float> candidates_;
  std::vector<std::array<int32_t, 2>> range_;  // of each coordinate's cells
  std::vector<double> bits_;                   // by coordinate, under the chosen classes
  std::vector<int32_t> order_;
};

// Not thread-safe: holds scratch memory. `profile` is borrowed.
class LevelDecoder {
 public:
  // Makes the tables of all classes: some 16 KiB for each that is not null.
  explicit LevelDecoder(const ProfileData& profile);

  // cells: parents on entry (at level 0 anything), this level's cells on return, or anything after
  // an error. classes: in effect
  // at the level below, updated. Errors: DATA_LOSS for payload that does not decode,
  // INVALID_ARGUMENT for an impossible override or exception. Allocates nothing once it has decoded
  // as large a chunk. Cost: half a nanosecond a coded symbol with AVX-512, see docs/codec.md.
  absl::Status Decode(const SegmentView& segment, int tokens, std::vector<uint8_t>* classes,
                      CellRows* cells);
  // The same for cells [coordinate][token], which are copied in and out.
  absl::Status Decode(const SegmentView& segment, int tokens, std::vector<uint8_t>* classes,
                      int32_t* cells);

 private:
  absl::Status DecodeOverride(absl::string_view bytes, std::vector<uint8_t>* classes);
  // Widens the rows whose class may give cells of more than 16 bits.
  void WidenRows(const std::vector<uint8_t>& classes, CellRows* cells) const;
  // Rows of null classes: zeros, or the middles of their parents.
  void FillRows(int level, const std::vector<uint8_t>& classes, CellRows* cells) const;
  // Wide rows after a level's symbols were decoded into their narrow ones.
  void UpdateWideRows(int level, const std::vector<uint8_t>& classes, CellRows* cells) const;
  absl::Status DecodeExceptions(int level, absl::string_view bytes, CellRows* cells) const;

  const ProfileData& profile_;
  std::vector<BaseDecodeTable> base_;      // by class; of null classes unused
  std::vector<uint32_t> slots_;            // of all of them
  std::vector<RefineDecodeTable> refine_;  // [level - 1][class]
  std::vector<RansBlock> blocks_;
  std::vector<int32_t> order_;
  std::vector<uint8_t> override_;
  CellRows copied_;  // of the Decode that copies
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_LEVEL_CODER_H_

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
    // Adds each of tokens cells. Precondition: nothing was added since Clear.
    void AddRow(const int32_t* cells, int tokens);
  };
  struct Refine {
    int32_t count[kRefineContexts][3] = {};
  };

  double BaseBits(int klass, const Base& base) const;
  double RefineBits(int level, int klass, const Refine& refine) const;
  // The same of classes [first, first + count) at once, into bits[count].
  void BaseBits(int first, int count, const Base& base, double* bits) const;
  void RefineBits(int level, int first, int count, const Refine& refine, double* bits) const;

 private:
  double CellBits(int klass, int32_t cell) const;

  const ClassTables& tables_;
  std::vector<std::vector<float>> base_;  // [class][symbol + max_symbol]
  std::vector<std::array<std::array<float, 3>, kRefineContexts>> refine_;  // [level - 1][class]
  std::vector<float> cells_;                                               // [cell + kReach][class]
  std::vector<float> symbols_;  // [level - 1][context][r + 1][class]
};

// Not thread-safe: holds scratch memory. `profile` is borrowed.
class LevelEncoder {
 public:
  explicit LevelEncoder(const ProfileData& profile);

  // cells: of the profile's finest level, [coordinate][token]; those of `level` and of the one
  // below are made from them row by row. classes: in effect at the level below, replaced by those
  // of this level where the override pays.
  void EncodeFinest(int level, const int32_t* cells, int tokens, std::vector<uint8_t>* classes,
                    SegmentSections* out);
  // The same from cells of this level and parents, of the level below (unused at level 0).
  void Encode(int level, const int32_t* cells, const int32_t* parents, int tokens,
              std::vector<uint8_t>* classes, SegmentSections* out);

 private:
  // One coordinate's cells and their parents (null at level 0). What they point to stays until the
  // next call.
  struct Rows {
    const int32_t* cells;
    const int32_t* parents;
  };
  Rows RowsOf(int32_t coordinate);
  // Rows of a block lie scattered: fetches the next one's cells while one is coded.
  void FetchRow(int32_t coordinate) const;
  void EncodeRows(std::vector<uint8_t>* classes, SegmentSections* out);
  void ChooseClasses(std::vector<uint8_t>* classes, std::string* out);
  void EncodeExceptions(const std::vector<uint8_t>& classes, std::string* out);
  void EncodeBlock(const std::vector<uint8_t>& classes, size_t first, size_t last,
                   std::string* payload);

  const ProfileData& profile_;
  const CodeLengths lengths_;
  std::vector<BaseEncodeTable> tables_;  // by class
  RansRowEncoder rans_;
  // The chunk at work.
  int level_ = 0;
  int tokens_ = 0;
  const int32_t* cells_ = nullptr;
  const int32_t* parents_ = nullptr;
  int steps_ = 0;  // levels from cells_ down to level_
  std::vector<int32_t> row_;
  std::vector<int32_t> parent_row_;
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

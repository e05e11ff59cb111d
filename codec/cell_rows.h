// Cells of a chunk at work in a decoder: a row of 16-bit integers for each coordinate, and 32-bit
// ones for the few rows whose cells do not fit.
//
// Rows are padded to whole steps of 32 tokens. Within a step tokens stand as 0, 16, 1, 17, ...: a
// 32-bit word holds token i below token i + 16, so that a kernel splits and joins the two vectors
// of rANS states with shifts alone. A row is *wide* if a cell of it could leave 16 bits on the way
// to the profile's finest level. Its cells then stand in 32 bits, in plain order, and its narrow
// row holds them clamped to -2..2, which is all that the entropy code's contexts need.
#ifndef KVSTREAM_CODEC_CELL_ROWS_H_
#define KVSTREAM_CODEC_CELL_ROWS_H_

#include <cstdint>
#include <vector>

#include "codec/quantize.h"
#include "codec/rans.h"

namespace kvstream {

// Not thread-safe.
class CellRows {
 public:
  // Largest magnitude of a cell of `level` that stays within 16 bits at level `levels` - 1.
  static constexpr int32_t NarrowMax(int level, int levels) {
    const int32_t power = PowerOf3(levels - 1 - level);
    return (INT16_MAX - (power - 1) / 2) / power;
  }
  // Where token t of a row stands.
  static constexpr int64_t Place(int64_t t) {
    return t / kLanes * kLanes + t % (kLanes / 2) * 2 + t % kLanes / (kLanes / 2);
  }

  // Starts a chunk: no row is wide, cells hold anything. Allocates only for more cells than ever
  // before.
  void Reset(int32_t coordinates, int tokens, int levels);

  int tokens() const { return tokens_; }
  int32_t coordinates() const { return coordinates_; }
  // Cells of a row, padding included.
  int64_t stride() const { return stride_; }
  // [stride], aligned to 64 bytes; valid until Reset.
  int16_t* narrow(int32_t coordinate) { return steps_.data()->cell + coordinate * stride_; }
  const int16_t* narrow(int32_t coordinate) const {
    return steps_.data()->cell + coordinate * stride_;
  }
  // [stride], of which tokens() count, or null if the row is not wide. Valid until the next Widen.
  int32_t* wide(int32_t coordinate) {
    return wide_rows_.empty() || index_[coordinate] < 0 ? nullptr
                                                        : &wide_[index_[coordinate] * stride_];
  }
  const int32_t* wide(int32_t coordinate) const {
    return const_cast<CellRows*>(this)->wide(coordinate);
  }
  const std::vector<int32_t>& wide_rows() const { return wide_rows_; }
  // Makes the row wide, keeping its cells.
  void Widen(int32_t coordinate);
  // Fills the narrow row of a wide one with its cells, clamped.
  void Clamp(int32_t coordinate);

  int32_t Get(int32_t coordinate, int64_t token) const {
    const int32_t* const cells = wide(coordinate);
    return cells != nullptr ? cells[token] : narrow(coordinate)[Place(token)];
  }
  // value: a cell of `level`.
  void Set(int32_t coordinate, int64_t token, int32_t value, int level);

  // From and to int32 cells [coordinate][token] of `level`. Read starts a chunk.
  void Read(const int32_t* cells, int32_t coordinates, int tokens, int level, int levels);
  void Write(int32_t* cells) const;

 private:
  struct alignas(64) Step {
    int16_t cell[kLanes];
  };

  int32_t coordinates_ = 0;
  int tokens_ = 0;
  int levels_ = 1;
  int64_t stride_ = 0;
  std::vector<Step> steps_;  // [coordinate][step]
  std::vector<int32_t> wide_rows_;
  std::vector<int32_t> index_;  // by coordinate: of its row in wide_, or -1; empty if none is wide
  std::vector<int32_t> wide_;   // [wide row][stride]
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CELL_ROWS_H_

#include "client/segment_frame.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace kvstream {
namespace {

// Tags of the wire format: field number << 3 | wire type (0 varint, 2 length-delimited).
constexpr uint64_t kResponseData = 2 << 3 | 2;
constexpr uint64_t kResponseBatch = 5 << 3 | 2;
constexpr uint64_t kBatchData = 1 << 3 | 2;
constexpr uint64_t kChunk = 1 << 3;
constexpr uint64_t kLevel = 2 << 3;
constexpr uint64_t kOffset = 3 << 3;
constexpr uint64_t kPlan = 4 << 3 | 2;
constexpr uint64_t kData = 15 << 3 | 2;

// As protobuf's own parser: it reads no length of more bytes.
constexpr int kSizeBytesMax = 5;
constexpr int kVarintBytesMax = 10;

// Walks over the bytes of several pieces as if they were one.
class PieceReader {
 public:
  explicit PieceReader(absl::Span<const absl::string_view> pieces) : pieces_(pieces) {
    for (absl::string_view piece : pieces) left_ += piece.size();
  }

  uint64_t left() const { return left_; }

  // False at the end of the bytes, or for a varint of more than `bytes_max` bytes or 64 bits.
  bool ReadVarint(int bytes_max, uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 7 * bytes_max; shift += 7) {
      if (left_ == 0) return false;
      const uint8_t byte = ReadByte();
      // The tenth byte has room for one bit only.
      if (shift == 63 && byte > 1) return false;
      *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  // False if there are not so many.
  bool ReadBytes(uint64_t count, std::string* out) {
    if (count > left_) return false;
    out->clear();
    while (out->size() < count) {
      const absl::string_view rest = pieces_[piece_].substr(position_, count - out->size());
      out->append(rest.data(), rest.size());
      position_ += rest.size();
      left_ -= rest.size();
      if (out->size() < count) {
        ++piece_;
        position_ = 0;
      }
    }
    return true;
  }

  // The same without a copy, in pieces.
  bool TakeBytes(uint64_t count, std::vector<absl::string_view>* out) {
    if (count > left_) return false;
    left_ -= count;
    while (count > 0) {
      const absl::string_view rest = pieces_[piece_].substr(position_, count);
      if (!rest.empty()) out->push_back(rest);
      count -= rest.size();
      position_ += rest.size();
      if (count > 0) {
        ++piece_;
        position_ = 0;
      }
    }
    return true;
  }

 private:
  // Precondition: left() > 0.
  uint8_t ReadByte() {
    while (position_ == pieces_[piece_].size()) {
      ++piece_;
      position_ = 0;
    }
    --left_;
    return static_cast<uint8_t>(pieces_[piece_][position_++]);
  }

  absl::Span<const absl::string_view> pieces_;
  size_t piece_ = 0;
  size_t position_ = 0;
  uint64_t left_ = 0;
};

// A SegmentData of `size` bytes. Precondition: size <= reader->left().
bool ReadFrame(PieceReader* reader, uint64_t size, SegmentFrame* frame) {
  const uint64_t behind = reader->left() - size;
  uint64_t last_tag = 0;
  for (;;) {
    uint64_t tag, value;
    if (!reader->ReadVarint(1, &tag) || tag <= last_tag) return false;
    last_tag = tag;
    const bool is_size = tag == kData || tag == kPlan;
    if (!reader->ReadVarint(is_size ? kSizeBytesMax : kVarintBytesMax, &value)) return false;
    if (reader->left() < behind) return false;
    if (tag == kData) {
      frame->size = value;
      return value == reader->left() - behind && reader->TakeBytes(value, &frame->payload);
    }
    if (tag == kPlan) {
      // An empty one has no decision: for protobuf's reader to refuse.
      if (value == 0 || value > kPlanBytesMax || value > reader->left() - behind ||
          !reader->ReadBytes(value, &frame->plan)) {
        return false;
      }
      continue;
    }
    if (tag == kOffset) {
      frame->offset = value;
      continue;
    }
    if (value > std::numeric_limits<uint32_t>::max()) return false;
    if (tag == kChunk) {
      frame->chunk = static_cast<uint32_t>(value);
    } else if (tag == kLevel) {
      frame->level = static_cast<uint32_t>(value);
    } else {
      return false;
    }
  }
}

}  // namespace

bool ParseSegmentFrames(absl::Span<const absl::string_view> message,
                        std::vector<SegmentFrame>* frames) {
  frames->clear();
  PieceReader reader(message);
  uint64_t tag, size;
  if (!reader.ReadVarint(1, &tag) || !reader.ReadVarint(kSizeBytesMax, &size) ||
      size != reader.left()) {
    return false;
  }
  if (tag == kResponseData) return ReadFrame(&reader, size, &frames->emplace_back());
  if (tag != kResponseBatch || size == 0) return false;
  while (reader.left() > 0) {
    if (frames->size() == kBatchFramesMax || !reader.ReadVarint(1, &tag) || tag != kBatchData ||
        !reader.ReadVarint(kSizeBytesMax, &size) || size > reader.left() ||
        !ReadFrame(&reader, size, &frames->emplace_back())) {
      return false;
    }
  }
  return true;
}

}  // namespace kvstream

#include "server/service/segment_message.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "google/protobuf/io/coded_stream.h"
#include "grpcpp/support/slice.h"
#include "kvstream/v1/kvstream.pb.h"

namespace kvstream {
namespace {

using google::protobuf::io::CodedOutputStream;
using SegmentRef = std::shared_ptr<const PinnedBytes>;

enum WireType : uint32_t { kVarint = 0, kLengthDelimited = 2 };

constexpr uint32_t Tag(int field, WireType type) {
  return static_cast<uint32_t>(field) << 3 | static_cast<uint32_t>(type);
}

// Tag and length of `data`, and of the plan.
constexpr size_t kSizeFieldBytesMax = 1 + 10;
// Three varint fields beside them.
constexpr size_t kFieldsBytesMax = (1 + 5) + (1 + 5) + (1 + 10) + 2 * kSizeFieldBytesMax;

// proto3 leaves out fields of value 0.
uint8_t* AppendField(int field, uint64_t value, uint8_t* out) {
  if (value == 0) return out;
  out = CodedOutputStream::WriteVarint32ToArray(Tag(field, kVarint), out);
  return CodedOutputStream::WriteVarint64ToArray(value, out);
}

uint8_t* AppendSize(int field, uint64_t size, uint8_t* out) {
  out = CodedOutputStream::WriteVarint32ToArray(Tag(field, kLengthDelimited), out);
  return CodedOutputStream::WriteVarint64ToArray(size, out);
}

void ReleaseSegment(void* ref) { delete static_cast<SegmentRef*>(ref); }

}  // namespace

grpc::ByteBuffer SegmentMessage(uint32_t chunk, uint32_t level, uint64_t offset, uint64_t size,
                                std::shared_ptr<const PinnedBytes> segment,
                                absl::string_view plan) {
  // Written behind room for the tag and the length of the whole, which are known last.
  absl::InlinedVector<uint8_t, 256> header(kSizeFieldBytesMax + kFieldsBytesMax + plan.size());
  uint8_t* const fields = header.data() + kSizeFieldBytesMax;
  uint8_t* end = fields;
  end = AppendField(v1::SegmentData::kChunkFieldNumber, chunk, end);
  end = AppendField(v1::SegmentData::kLevelFieldNumber, level, end);
  end = AppendField(v1::SegmentData::kOffsetFieldNumber, offset, end);
  if (!plan.empty()) {
    end = AppendSize(v1::SegmentData::kPlanFieldNumber, plan.size(), end);
    end = std::copy(plan.begin(), plan.end(), end);
  }
  if (size > 0) end = AppendSize(v1::SegmentData::kDataFieldNumber, size, end);

  std::array<uint8_t, kSizeFieldBytesMax> outer;
  const uint8_t* const outer_end = AppendSize(
      v1::LoadResponse::kDataFieldNumber, static_cast<uint64_t>(end - fields) + size, outer.data());
  uint8_t* const begin = fields - (outer_end - outer.data());
  std::copy(static_cast<const uint8_t*>(outer.data()), outer_end, begin);

  const grpc::Slice head(begin, static_cast<size_t>(end - begin));
  if (size == 0) return grpc::ByteBuffer(&head, 1);
  // gRPC takes a mutable pointer but only reads what it sends.
  void* bytes = const_cast<char*>(segment->bytes().data() + offset);
  auto* ref = new SegmentRef(std::move(segment));
  const grpc::Slice slices[] = {
      head, grpc::Slice(bytes, static_cast<size_t>(size), &ReleaseSegment, ref)};
  return grpc::ByteBuffer(slices, 2);
}

}  // namespace kvstream

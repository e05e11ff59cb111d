#include "server/service/segment_message.h"

#include <array>
#include <cstddef>
#include <utility>

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

// Outer tag and length, three varint fields, tag and length of `data`.
constexpr size_t kMaxHeaderBytes = (1 + 10) + (1 + 5) + (1 + 5) + (1 + 10) + (1 + 10);

// proto3 leaves out fields of value 0.
uint8_t* AppendField(int field, uint64_t value, uint8_t* out) {
  if (value == 0) return out;
  out = CodedOutputStream::WriteVarint32ToArray(Tag(field, kVarint), out);
  return CodedOutputStream::WriteVarint64ToArray(value, out);
}

void ReleaseSegment(void* ref) { delete static_cast<SegmentRef*>(ref); }

}  // namespace

grpc::ByteBuffer SegmentMessage(uint32_t chunk, uint32_t level, uint64_t offset, uint64_t size,
                                std::shared_ptr<const PinnedBytes> segment) {
  std::array<uint8_t, kMaxHeaderBytes> fields;
  uint8_t* end = fields.data();
  end = AppendField(v1::SegmentData::kChunkFieldNumber, chunk, end);
  end = AppendField(v1::SegmentData::kLevelFieldNumber, level, end);
  end = AppendField(v1::SegmentData::kOffsetFieldNumber, offset, end);
  if (size > 0) {
    end = CodedOutputStream::WriteVarint32ToArray(
        Tag(v1::SegmentData::kDataFieldNumber, kLengthDelimited), end);
    end = CodedOutputStream::WriteVarint64ToArray(size, end);
  }
  const size_t fields_bytes = static_cast<size_t>(end - fields.data());

  std::array<uint8_t, 2 * kMaxHeaderBytes> header;
  end = CodedOutputStream::WriteVarint32ToArray(
      Tag(v1::LoadResponse::kDataFieldNumber, kLengthDelimited), header.data());
  end = CodedOutputStream::WriteVarint64ToArray(fields_bytes + size, end);
  end = CodedOutputStream::WriteRawToArray(fields.data(), static_cast<int>(fields_bytes), end);

  const grpc::Slice head(header.data(), static_cast<size_t>(end - header.data()));
  if (size == 0) return grpc::ByteBuffer(&head, 1);
  // gRPC takes a mutable pointer but only reads what it sends.
  void* bytes = const_cast<char*>(segment->bytes().data() + offset);
  auto* ref = new SegmentRef(std::move(segment));
  const grpc::Slice slices[] = {
      head, grpc::Slice(bytes, static_cast<size_t>(size), &ReleaseSegment, ref)};
  return grpc::ByteBuffer(slices, 2);
}

}  // namespace kvstream

#include "server/service/segment_message.h"

#include <algorithm>
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

// Tag and length of a field of bytes.
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

void SegmentMessage::Add(uint32_t chunk, uint32_t level, uint64_t offset, uint64_t size,
                         std::shared_ptr<const PinnedBytes> segment, absl::string_view plan) {
  Part part;
  part.fields.resize(kFieldsBytesMax + plan.size());
  uint8_t* end = part.fields.data();
  end = AppendField(v1::SegmentData::kChunkFieldNumber, chunk, end);
  end = AppendField(v1::SegmentData::kLevelFieldNumber, level, end);
  end = AppendField(v1::SegmentData::kOffsetFieldNumber, offset, end);
  if (!plan.empty()) {
    end = AppendSize(v1::SegmentData::kPlanFieldNumber, plan.size(), end);
    end = std::copy(plan.begin(), plan.end(), end);
  }
  if (size > 0) {
    end = AppendSize(v1::SegmentData::kDataFieldNumber, size, end);
    // gRPC takes a mutable pointer but only reads what it sends.
    void* bytes = const_cast<char*>(segment->bytes().data() + offset);
    part.payload = grpc::Slice(bytes, static_cast<size_t>(size), &ReleaseSegment,
                               new SegmentRef(std::move(segment)));
  }
  part.fields.resize(static_cast<size_t>(end - part.fields.data()));
  payload_bytes_ += size;
  parts_.push_back(std::move(part));
}

grpc::ByteBuffer SegmentMessage::Take() {
  // Tags and lengths of what is around the fields: of each part, and of the batch.
  std::vector<std::vector<uint8_t>> heads(parts_.size());
  const bool batch = parts_.size() > 1;
  const int field =
      batch ? int{v1::SegmentBatch::kDataFieldNumber} : int{v1::LoadResponse::kDataFieldNumber};
  uint64_t bytes = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    std::vector<uint8_t>& head = heads[i];
    head.resize(kSizeFieldBytesMax);
    const uint8_t* const end =
        AppendSize(field, part.fields.size() + part.payload.size(), head.data());
    head.resize(static_cast<size_t>(end - head.data()));
    head.insert(head.end(), part.fields.begin(), part.fields.end());
    bytes += head.size() + part.payload.size();
  }
  if (batch) {
    std::array<uint8_t, kSizeFieldBytesMax> outer;
    const uint8_t* const end = AppendSize(v1::LoadResponse::kBatchFieldNumber, bytes, outer.data());
    heads[0].insert(heads[0].begin(), static_cast<const uint8_t*>(outer.data()), end);
  }
  std::vector<grpc::Slice> slices;
  slices.reserve(2 * parts_.size());
  for (size_t i = 0; i < parts_.size(); ++i) {
    slices.emplace_back(heads[i].data(), heads[i].size());
    if (parts_[i].payload.size() > 0) slices.push_back(std::move(parts_[i].payload));
  }
  parts_.clear();
  payload_bytes_ = 0;
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace kvstream

// LoadResponse{data: SegmentData{...}} built by hand around borrowed payload, so that the bytes go
// from the store to the socket without a copy. What comes out is plain protobuf for every client.
#ifndef KVSTREAM_SERVER_SERVICE_SEGMENT_MESSAGE_H_
#define KVSTREAM_SERVER_SERVICE_SEGMENT_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "storage/chunk_store.h"

namespace kvstream {

// One message under construction: `data` with one part, `batch` with several.
class SegmentMessage {
 public:
  // Adds payload bytes [offset, offset + size) of a segment. The message shares `segment`, which is
  // let go of when gRPC is done with the message: on any thread, possibly after Write has returned
  // and after the call has ended. `plan`: a serialised ChunkPlan that travels with the data; empty:
  // none. Precondition: offset + size <= segment->bytes().size(). Cost: one small allocation for
  // the header, one for the reference.
  void Add(uint32_t chunk, uint32_t level, uint64_t offset, uint64_t size,
           std::shared_ptr<const PinnedBytes> segment, absl::string_view plan = {});

  bool empty() const { return parts_.empty(); }
  size_t parts() const { return parts_.size(); }
  // Of all parts.
  uint64_t payload_bytes() const { return payload_bytes_; }

  // The message, after which there is none. Precondition: not empty().
  grpc::ByteBuffer Take();

 private:
  struct Part {
    std::vector<uint8_t> fields;  // of SegmentData, but for the payload itself
    grpc::Slice payload;
  };

  std::vector<Part> parts_;
  uint64_t payload_bytes_ = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_SEGMENT_MESSAGE_H_

// LoadResponse{data: SegmentData{...}} built by hand around borrowed payload, so that the bytes go
// from the store to the socket without a copy. What comes out is plain protobuf for every client.
#ifndef KVSTREAM_SERVER_SERVICE_SEGMENT_MESSAGE_H_
#define KVSTREAM_SERVER_SERVICE_SEGMENT_MESSAGE_H_

#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "grpcpp/support/byte_buffer.h"
#include "storage/chunk_store.h"

namespace kvstream {

// The message of payload bytes [offset, offset + size) of a segment. The slice in the result shares
// `segment`, which is let go of when gRPC is done with the message: on any thread, possibly after
// Write has returned and after the call has ended. `plan`: a serialised ChunkPlan that travels with
// the data; empty: none. Precondition: offset + size <= segment->bytes().size(). Cost: one small
// allocation for the header, one for the reference.
grpc::ByteBuffer SegmentMessage(uint32_t chunk, uint32_t level, uint64_t offset, uint64_t size,
                                std::shared_ptr<const PinnedBytes> segment,
                                absl::string_view plan = {});

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_SEGMENT_MESSAGE_H_

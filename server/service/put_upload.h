// One Put stream without its transport: checks the order and sizes of messages, gathers segments,
// stores chunks.
#ifndef KVSTREAM_SERVER_SERVICE_PUT_UPLOAD_H_
#define KVSTREAM_SERVER_SERVICE_PUT_UPLOAD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/service/rpc_environment.h"

namespace kvstream {

// Single-threaded; blocks on the store. After an error the upload is over; what was stored before
// stays stored. Memory: the segments of one chunk, reserved from the server's upload budget before
// they are allocated.
class PutUpload {
 public:
  // Borrowed; outlives the upload.
  explicit PutUpload(const RpcEnvironment* environment);

  // INVALID_ARGUMENT for a message out of order or range, NOT_FOUND for an unknown profile,
  // FAILED_PRECONDITION for a segment or stored chunk of another profile, DATA_LOSS for a segment
  // that fails its checksum, RESOURCE_EXHAUSTED for a full upload budget; messages name the chunk.
  // The chunk is durable when the message that completes it has been handled.
  absl::Status OnMessage(const v1::PutRequest& message);

  // The client's half-close. INVALID_ARGUMENT if it came amid a chunk or before the start.
  absl::Status OnEnd() const;

  const v1::PutResponse& response() const { return response_; }

 private:
  absl::Status OnStart(const v1::PutStart& start);
  absl::Status OnChunk(const v1::PutChunk& chunk);
  absl::Status OnData(const v1::PutData& data);
  // Checks the chunk's own fields and fills id_ and info_.
  absl::Status ParseChunk(const v1::PutChunk& chunk);
  absl::Status CheckSegment() const;
  absl::Status StoreChunk();
  std::string ChunkName() const;

  const RpcEnvironment* const environment_;
  std::shared_ptr<const ServiceProfile> profile_;  // null before the start
  std::string model_;
  absl::Duration ttl_;  // 0: the server's default
  v1::PutResponse response_;

  // The chunk that data is awaited for.
  bool in_chunk_ = false;
  bool exists_ = false;  // its bytes are ignored
  ChunkId id_ = {};
  ChunkInfo info_;
  UploadRoom room_;
  std::vector<std::string>
      segments_;         // complete ones and, last, the one that grows; empty where exists_
  size_t level_ = 0;     // whose bytes come next
  uint64_t offset_ = 0;  // and from where
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_PUT_UPLOAD_H_

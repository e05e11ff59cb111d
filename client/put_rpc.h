// Sends a context's encoded chunks in durable steps.
#ifndef KVSTREAM_CLIENT_PUT_RPC_H_
#define KVSTREAM_CLIENT_PUT_RPC_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "client/encode_pipeline.h"
#include "codec/profile.h"
#include "kvstream/v1/kvstream.grpc.pb.h"

namespace kvstream {

struct PutCall {
  v1::KVStream::StubInterface* stub = nullptr;
  std::string server;                      // for messages
  std::shared_ptr<const Profile> profile;  // the server has it
  std::string model;                       // for people
  std::vector<ChunkId> chunk_ids;          // of the whole context
  std::vector<uint32_t> missing;           // indices of those to encode and send, ascending
  int64_t tokens = 0;                      // of the whole context
  absl::Duration ttl;                      // 0: the server's default
  EncodeWork encode;
  absl::Duration stall_max;  // of one write or of the server's answer
  // Optional; is added what the server acknowledges, step by step.
  PutResult* acknowledged = nullptr;
  // Told the tokens up to which all chunks are stored, after every step.
  std::function<void(int64_t)> progress;
};

// Chunks in `missing` that the server turns out to have count as existing; those not in it are not
// counted.
absl::StatusOr<PutResult> RunPut(const PutCall& call);

// Model identity as List shows it, within the proto's limits: "name@revision+adapter", printable
// ASCII, at most 512 bytes.
std::string ModelLabel(const ContextIdentity& identity);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PUT_RPC_H_

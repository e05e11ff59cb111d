// The client's end of one Load, without a decoder.
#ifndef KVSTREAM_TESTS_BENCH_STORE_LOAD_RECEIVER_H_
#define KVSTREAM_TESTS_BENCH_STORE_LOAD_RECEIVER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/load_transport.h"
#include "client/progress_pace.h"
#include "client/segment_frame.h"
#include "grpcpp/channel.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "tests/bench/store/pass.h"
#include "tests/bench/store/values.h"

namespace kvstream::bench {

// The library's transport and parser, and its manner to report; in place of its assembler and
// decoders one value's memory, filled, hashed and used again. Chunks must come one after the other,
// as policy `fixed` sends them. One thread, one call of Run().
class LoadReceiver {
 public:
  // `values` is borrowed.
  LoadReceiver(const std::shared_ptr<grpc::Channel>& channel, const ValueSet* values);

  // Fills bytes, messages and value_seconds. DATA_LOSS: a value is not what was stored. INTERNAL:
  // the stream is not what the protocol says.
  absl::Status Run(Pass* pass);
  // When the last value was whole.
  absl::Duration last_value_at() const { return last_value_at_; }

 private:
  void SendStart();
  void SendProgress();
  absl::Status OnMessage(const grpc::ByteBuffer& message, Pass* pass);
  absl::Status OnData(const SegmentFrame& frame, Pass* pass);

  const ValueSet& values_;
  absl::Duration began_;
  absl::Duration newest_bytes_;
  absl::Duration last_value_at_;
  std::string value_;  // the one being received
  uint64_t filled_ = 0;
  uint32_t chunks_ready_ = 0;
  uint64_t bytes_ = 0;
  ProgressPace pace_;
  bool has_summary_ = false;
  std::vector<SegmentFrame> frames_;
  std::vector<grpc::Slice> slices_;
  std::vector<absl::string_view> pieces_;
  LoadTransport transport_;
};

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_LOAD_RECEIVER_H_

#include "client/put_rpc.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/proto_time.h"
#include "client/rpc_status.h"
#include "client/stream_watchdog.h"

namespace kvstream {
namespace {

constexpr size_t kStepChunks = 32;
constexpr uint64_t kStepBytes = 64 << 20;
constexpr size_t kDataBytes = 1 << 20;  // as in the proto
constexpr size_t kModelBytes = 512;     // as in the proto

std::string AsBytes(const std::array<uint8_t, 32>& id) { return std::string(id.begin(), id.end()); }

// One Put stream: open, add chunks, close.
class PutStep {
 public:
  explicit PutStep(const PutCall& call)
      : call_(call),
        watchdog_(&context_, call.stall_max),
        writer_(call.stub->Put(&context_, &response_)) {
    v1::PutRequest request;
    request.mutable_start()->set_profile_id(AsBytes(call.profile->id()));
    request.mutable_start()->set_model(call.model);
    if (call.ttl > absl::ZeroDuration()) {
      ToProto(call.ttl, request.mutable_start()->mutable_ttl());
    }
    Write(request);
  }

  // Errors surface in Finish(). False: there is one, so more chunks would be for nothing.
  bool Add(uint32_t chunk, const EncodedChunk& encoded) {
    v1::PutRequest request;
    v1::PutChunk* header = request.mutable_chunk();
    header->set_chunk_id(AsBytes(call_.chunk_ids[chunk]));
    if (chunk > 0) header->set_parent_id(AsBytes(call_.chunk_ids[chunk - 1]));
    const int64_t chunk_tokens = call_.profile->chunk_tokens();
    const int64_t first = chunk * chunk_tokens;
    header->set_first_token(static_cast<uint64_t>(first));
    header->set_tokens(static_cast<uint32_t>(std::min(chunk_tokens, call_.tokens - first)));
    for (const std::string& segment : encoded.segments) header->add_segment_bytes(segment.size());
    Write(request);
    for (size_t level = 0; level < encoded.segments.size(); ++level) {
      const absl::string_view segment = encoded.segments[level];
      for (size_t offset = 0; offset < segment.size() && open_; offset += kDataBytes) {
        const absl::string_view piece = segment.substr(offset, kDataBytes);
        v1::PutData* data = request.mutable_data();
        data->set_level(static_cast<uint32_t>(level));
        data->set_offset(offset);
        data->set_data(piece.data(), piece.size());
        Write(request);
      }
      bytes_ += segment.size();
    }
    ++chunks_;
    return open_;
  }

  bool full() const { return chunks_ >= kStepChunks || bytes_ >= kStepBytes; }

  // OK: everything added is durable.
  absl::StatusOr<v1::PutResponse> Finish() {
    StreamWatchdog::Watch watch(&watchdog_);
    writer_->WritesDone();
    const grpc::Status status = writer_->Finish();
    if (watchdog_.bit()) {
      return FromRpcStatus(
          grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED,
                       absl::StrCat("no progress for ", absl::FormatDuration(call_.stall_max))),
          call_.server, "put");
    }
    if (!status.ok()) return FromRpcStatus(status, call_.server, "put");
    return response_;
  }

  void Abandon() {
    context_.TryCancel();
    writer_->Finish();
  }

 private:
  void Write(const v1::PutRequest& request) {
    if (!open_) return;
    StreamWatchdog::Watch watch(&watchdog_);
    open_ = writer_->Write(request);
  }

  const PutCall& call_;
  grpc::ClientContext context_;
  v1::PutResponse response_;
  StreamWatchdog watchdog_;
  std::unique_ptr<grpc::ClientWriterInterface<v1::PutRequest>> writer_;
  bool open_ = true;
  size_t chunks_ = 0;
  uint64_t bytes_ = 0;
};

absl::Status WithProgress(const absl::Status& status, size_t stored, size_t wanted) {
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; ", stored, " of ", wanted,
                                   " chunks were stored before, putting again goes on from there"));
}

}  // namespace

std::string ModelLabel(const ContextIdentity& identity) {
  std::string label = identity.model;
  if (!identity.adapter.empty()) absl::StrAppend(&label, "+", identity.adapter);
  return absl::CHexEscape(label).substr(0, kModelBytes);
}

absl::StatusOr<PutResult> RunPut(const PutCall& call) {
  PutResult result;
  EncodePipeline encoder(call.profile->chunk_tokens(), call.tokens, call.missing, call.encode);
  for (size_t done = 0; done < call.missing.size();) {
    const size_t step_begins = done;
    // The stream is opened for a chunk that is ready: encoding may take longer than a server waits.
    absl::StatusOr<EncodedChunk> encoded = encoder.Next();
    if (!encoded.ok()) return WithProgress(encoded.status(), step_begins, call.missing.size());
    PutStep step(call);
    while (step.Add(call.missing[done++], *encoded) && !step.full() && done < call.missing.size()) {
      encoded = encoder.Next();
      if (!encoded.ok()) {
        step.Abandon();
        return WithProgress(encoded.status(), step_begins, call.missing.size());
      }
    }
    absl::StatusOr<v1::PutResponse> response = step.Finish();
    if (!response.ok()) return WithProgress(response.status(), step_begins, call.missing.size());
    if (response->chunks_stored() + response->chunks_existing() != done - step_begins) {
      return absl::InternalError(
          absl::StrCat(call.server, ": put: the server acknowledged ",
                       response->chunks_stored() + response->chunks_existing(), " chunks of ",
                       done - step_begins));
    }
    result.chunks_stored += response->chunks_stored();
    result.chunks_existing += response->chunks_existing();
    result.bytes_stored += response->bytes_stored();
    if (call.acknowledged != nullptr) {
      call.acknowledged->chunks_stored += response->chunks_stored();
      call.acknowledged->chunks_existing += response->chunks_existing();
      call.acknowledged->bytes_stored += response->bytes_stored();
    }
    if (call.progress) {
      const int64_t stored_chunks = done < call.missing.size()
                                        ? call.missing[done]
                                        : static_cast<int64_t>(call.chunk_ids.size());
      call.progress(std::min<int64_t>(stored_chunks * call.profile->chunk_tokens(), call.tokens));
    }
  }
  return result;
}

}  // namespace kvstream

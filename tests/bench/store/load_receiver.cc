#include "tests/bench/store/load_receiver.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/monotonic_clock.h"
#include "kvstream/v1/kvstream.pb.h"

namespace kvstream::bench {

LoadReceiver::LoadReceiver(const std::shared_ptr<grpc::Channel>& channel, const ValueSet* values)
    : values_(*values), value_(values->value_bytes(), '\0'), transport_(channel) {}

absl::Status LoadReceiver::Run(Pass* pass) {
  pass->value_seconds.reserve(static_cast<size_t>(values_.count()));
  began_ = newest_bytes_ = last_value_at_ = MonotonicNow();
  transport_.Start();
  grpc::ByteBuffer message;
  absl::Status failure;
  while (!transport_.over()) {
    const bool may_report = failure.ok() && transport_.can_write();
    const absl::Duration wait = may_report ? pace_.Wait(MonotonicNow()) : absl::InfiniteDuration();
    const LoadTransport::Event event = transport_.Next(wait, &message);
    if (event == LoadTransport::Event::kStarted) SendStart();
    if (event == LoadTransport::Event::kMessage && failure.ok()) {
      failure = OnMessage(message, pass);
      if (!failure.ok()) transport_.Cancel();
    }
    if (failure.ok() && !transport_.over()) SendProgress();
  }
  if (!failure.ok()) return failure;
  if (!transport_.status().ok()) {
    return absl::InternalError(absl::StrCat("Load: ", transport_.status().error_message()));
  }
  if (!has_summary_ || chunks_ready_ != values_.ids().size()) {
    return absl::InternalError("Load: the stream ended before its values");
  }
  pass->bytes = bytes_;
  return absl::OkStatus();
}

void LoadReceiver::SendStart() {
  v1::LoadRequest request;
  v1::LoadStart* start = request.mutable_start();
  const auto& profile_id = values_.profile().id();
  start->set_profile_id(std::string(profile_id.begin(), profile_id.end()));
  for (const ChunkId& id : values_.ids()) start->add_chunk_ids(id.data(), id.size());
  start->set_policy(v1::POLICY_FIXED);
  start->set_takes_plan_with_data(true);
  start->set_takes_batches(true);
  transport_.Write(request);
}

void LoadReceiver::SendProgress() {
  if (!transport_.can_write()) return;
  if (has_summary_) {
    transport_.WritesDone();
    return;
  }
  const absl::Duration now = MonotonicNow();
  if (!pace_.MaySend(now)) return;
  v1::LoadRequest request;
  v1::LoadProgress* progress = request.mutable_progress();
  progress->set_bytes_received(bytes_);
  progress->set_clock_ns(static_cast<uint64_t>(absl::ToInt64Nanoseconds(newest_bytes_ - began_)));
  progress->set_chunks_ready(chunks_ready_);
  pace_.Sent(now);
  transport_.Write(request);
}

absl::Status LoadReceiver::OnMessage(const grpc::ByteBuffer& message, Pass* pass) {
  slices_.clear();
  pieces_.clear();
  if (!message.Dump(&slices_).ok()) return absl::InternalError("cannot read a message's bytes");
  for (const grpc::Slice& slice : slices_) {
    pieces_.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  if (ParseSegmentFrames(pieces_, &frames_)) {
    ++pass->messages;
    for (const SegmentFrame& frame : frames_) {
      if (absl::Status status = OnData(frame, pass); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  std::string joined;
  for (absl::string_view piece : pieces_) joined.append(piece.data(), piece.size());
  v1::LoadResponse response;
  if (!response.ParseFromString(joined)) return absl::InternalError("not a LoadResponse");
  if (response.has_summary()) has_summary_ = true;
  return absl::OkStatus();
}

absl::Status LoadReceiver::OnData(const SegmentFrame& frame, Pass* pass) {
  if (frame.chunk != chunks_ready_ || frame.offset != filled_ ||
      frame.size > value_.size() - filled_) {
    return absl::InternalError(absl::StrCat("data of chunk ", frame.chunk, " at ", frame.offset,
                                            " while chunk ", chunks_ready_, " has ", filled_));
  }
  for (absl::string_view piece : frame.payload) {
    std::memcpy(&value_[filled_], piece.data(), piece.size());
    filled_ += piece.size();
  }
  bytes_ += frame.size;
  pace_.Due();
  if (filled_ == value_.size()) {
    if (!values_.Matches(static_cast<int>(chunks_ready_), value_)) {
      return absl::DataLossError(
          absl::StrCat("kvstreamd: value ", chunks_ready_, " is not what was stored"));
    }
    filled_ = 0;
    ++chunks_ready_;
    if (chunks_ready_ == values_.ids().size()) pace_.DueAtOnce();
  }
  newest_bytes_ = MonotonicNow();
  if (filled_ == 0) {
    pass->value_seconds.push_back(absl::ToDoubleSeconds(newest_bytes_ - last_value_at_));
    last_value_at_ = newest_bytes_;
  }
  return absl::OkStatus();
}

}  // namespace kvstream::bench

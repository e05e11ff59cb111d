#include "client/load_rpc.h"

#include <google/protobuf/util/time_util.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/busy_backoff.h"
#include "client/load_assembler.h"
#include "client/load_transport.h"
#include "client/monotonic_clock.h"
#include "client/progress_pace.h"
#include "client/recompute_runner.h"
#include "client/rpc_status.h"
#include "client/segment_frame.h"
#include "kvstream/v1/kvstream.pb.h"

namespace kvstream {
namespace {

constexpr size_t kChunksMax = 65536;  // as in the proto
// Well below the time after which a server takes a client for dead, which a long recompute must not
// look like.
constexpr absl::Duration kHeartbeat = absl::Seconds(5);
// For the server's last word when the load is complete here; only its bookkeeping hangs on it.
constexpr absl::Duration kFarewell = absl::Seconds(2);
constexpr uint32_t kRecomputeRunChunksMax = 8;
constexpr absl::Duration kCancelPoll = absl::Milliseconds(50);
constexpr absl::Duration kDeadlineMin = absl::Milliseconds(1);

v1::Policy ToProto(ClientPolicy policy) {
  switch (policy) {
    case ClientPolicy::kDefault:
      return v1::POLICY_UNSPECIFIED;
    case ClientPolicy::kDeadline:
      return v1::POLICY_DEADLINE;
    case ClientPolicy::kFastest:
      return v1::POLICY_FASTEST;
    case ClientPolicy::kCacheGen:
      return v1::POLICY_CACHEGEN;
    case ClientPolicy::kFixed:
      return v1::POLICY_FIXED;
    case ClientPolicy::kRecompute:
      return v1::POLICY_RECOMPUTE;
  }
  return v1::POLICY_UNSPECIFIED;
}

v1::RecomputeAbility ToProto(ClientRecomputeAbility ability) {
  switch (ability) {
    case ClientRecomputeAbility::kNone:
      return v1::RECOMPUTE_ABILITY_NONE;
    case ClientRecomputeAbility::kSuffix:
      return v1::RECOMPUTE_ABILITY_SUFFIX;
    case ClientRecomputeAbility::kAny:
      return v1::RECOMPUTE_ABILITY_ANY;
    case ClientRecomputeAbility::kFront:
      return v1::RECOMPUTE_ABILITY_FRONT;
  }
  return v1::RECOMPUTE_ABILITY_NONE;
}

LoadShape ShapeOf(const LoadCall& call) {
  LoadShape shape;
  shape.chunk_ids = call.chunk_ids;
  shape.tokens = call.tokens;
  shape.chunk_tokens = call.profile->chunk_tokens();
  shape.first_token = int64_t{call.first_chunk} * shape.chunk_tokens;
  shape.levels = call.profile->levels();
  shape.values_per_token = call.profile->geometry().values_per_token();
  shape.floor_level = call.options->floor_level;
  shape.floor_below_share = call.options->floor_below_share;
  if (call.options->policy == ClientPolicy::kFixed) shape.fixed_level = call.options->level;
  shape.ability = call.options->ability;
  // Where chunks are given to recompute one after another, each one's end tells the server how fast
  // that goes; a suffix is given as a whole.
  if (shape.ability == ClientRecomputeAbility::kSuffix ||
      call.options->policy == ClientPolicy::kRecompute) {
    shape.recompute_run_chunks_max = kRecomputeRunChunksMax;
  }
  return shape;
}

LoadEvent RecomputeEvent(LoadEvent::Kind kind, const RecomputeJob& job) {
  LoadEvent event;
  event.kind = kind;
  event.chunk = job.first_chunk;
  event.chunks = job.chunks;
  return event;
}

// The server's view of the load as the observer is promised it; what does not fit is left out.
std::vector<ServerSample> ServerSamples(const v1::LoadSummary& summary) {
  std::vector<ServerSample> samples;
  for (const v1::LoadStorySample& from : summary.story()) {
    if (samples.size() == kStorySamplesMax) break;
    ServerSample sample;
    sample.at = absl::Nanoseconds(
        static_cast<int64_t>(std::min<uint64_t>(from.at_ns(), uint64_t{1} << 62)));
    sample.estimate_bytes_per_second = from.bandwidth_estimate_bytes_per_second();
    sample.promised_bytes_per_second = from.bandwidth_promised_bytes_per_second();
    sample.lower_bound = from.bandwidth_is_lower_bound();
    sample.window_bytes = from.window_bytes();
    sample.bytes_sent = from.bytes_sent();
    sample.bytes_acknowledged = from.bytes_acknowledged();
    const bool in_order = samples.empty() || sample.at >= samples.back().at;
    if (!in_order || !(sample.estimate_bytes_per_second >= 0) ||
        !(sample.promised_bytes_per_second >= 0) ||
        !std::isfinite(sample.estimate_bytes_per_second) ||
        !std::isfinite(sample.promised_bytes_per_second)) {
      continue;
    }
    samples.push_back(sample);
  }
  return samples;
}

class LoadRpc {
 public:
  explicit LoadRpc(const LoadCall& call)
      : call_(call),
        options_(*call.options),
        began_(call.began),
        backoff_(began_ + (options_.deadline.value_or(absl::ZeroDuration()) > absl::ZeroDuration()
                               ? *options_.deadline
                               : call.silence_max)),
        holds_(call.held != nullptr && !call.held->empty()),
        assembler_(ShapeOf(call), holds_ ? std::move(*call.held) : std::vector<HeldChunk>()),
        transport_(std::make_unique<LoadTransport>(call.channel)),
        decoders_(call.make_executor([this] { transport_->Wake(); })),
        recompute_(options_.recompute, [this] { transport_->Wake(); }) {}

  // Once.
  absl::StatusOr<LoadResult> Run();

 private:
  void OnEvent(LoadTransport::Event event, const grpc::ByteBuffer& message);
  // Begins the call anew, after a while, if the server had no room for it and there is time.
  bool ComeAgain();
  void SendStart();
  absl::Status OnMessage(const grpc::ByteBuffer& message);
  absl::Status OnLateMessage(const grpc::ByteBuffer& message);
  void Tell(LoadEvent event) const;
  void TellPlan(const v1::ChunkPlan& plan) const;
  void TellFrame(const SegmentFrame& frame) const;
  void TellData(const v1::SegmentData& data) const;
  void TellMessage(const v1::LoadResponse& response) const;
  void TakeLocalResults();
  void GiveOutWork();
  void SendProgress();
  void TellProgress() const;
  void SendClock(v1::LoadProgress* progress) const;
  void CheckTime();
  // At the deadline, or when all is in place after it, the caller takes what is there.
  void CheckDeadline();
  // The caller's deadline on the clock of MonotonicNow(), where the load is over with it.
  absl::Duration DeadlineAt() const;
  absl::Duration TimeToWait() const;
  // The first failure counts. Ends the call; Run() returns once that and the local work under way
  // are over.
  void Fail(absl::Status status);
  absl::Status FinalStatus() const;
  // Of a load that fails with it.
  void LeaveKept(const absl::Status& status);

  const LoadCall& call_;
  const LoadOptions& options_;
  const absl::Duration began_;
  absl::Duration start_sent_;
  absl::Duration newest_bytes_;  // when they arrived
  absl::Duration last_heard_;
  absl::Duration last_local_work_;
  absl::Duration last_progress_;
  absl::Duration all_ready_at_;
  bool heard_ = false;  // a message came: the load has begun
  BusyBackoff backoff_;
  std::mt19937 random_{std::random_device()()};
  ProgressPace pace_;
  bool recompute_under_way_ = false;
  bool late_ = false;
  bool taken_ = false;  // the message that says so is written
  bool gone_ = false;   // and the stream is half-closed
  absl::Status failure_;
  std::vector<SegmentFrame> frames_;
  std::vector<grpc::Slice> slices_;
  std::vector<absl::string_view> pieces_;
  const bool holds_;  // something since before the load
  LoadAssembler assembler_;
  // In this order: the workers are gone before the transport that they wake.
  std::unique_ptr<LoadTransport> transport_;
  std::unique_ptr<DecodeExecutor> decoders_;
  RecomputeRunner recompute_;
};

bool LoadRpc::ComeAgain() {
  if (!failure_.ok() || heard_ ||
      transport_->status().error_code() != grpc::StatusCode::RESOURCE_EXHAUSTED) {
    return false;
  }
  const absl::optional<absl::Duration> wait =
      backoff_.Next(transport_->trailing("grpc-retry-pushback-ms"),
                    std::uniform_real_distribution<double>()(random_), MonotonicNow());
  if (!wait.has_value()) return false;
  const absl::Duration until = MonotonicNow() + *wait;
  for (absl::Duration now = MonotonicNow(); now < until; now = MonotonicNow()) {
    if (options_.cancelled && options_.cancelled()) {
      failure_ = absl::CancelledError("the caller cancelled the load");
      return false;
    }
    absl::SleepFor(std::min(kCancelPoll, until - now));
  }
  last_heard_ = MonotonicNow();
  transport_->Restart();
  return true;
}

absl::StatusOr<LoadResult> LoadRpc::Run() {
  last_heard_ = MonotonicNow();
  transport_->Start();
  grpc::ByteBuffer message;
  // After the call's end local work may go on: a summary may come before the last decode is done.
  while (!gone_ && (!transport_->over() || assembler_.working() || ComeAgain())) {
    OnEvent(transport_->Next(TimeToWait(), &message), message);
    if (failure_.ok()) CheckTime();
    TakeLocalResults();
    if (failure_.ok()) CheckDeadline();
    // A call that ended without a summary cannot become a load any more; but what has come of it
    // is worth decoding if another server may go on from there.
    if (failure_.ok() && !taken_ &&
        (!transport_->over() || assembler_.has_summary() || call_.kept != nullptr)) {
      GiveOutWork();
      SendProgress();
    }
  }
  if (gone_) {
    // Nothing may wake the transport any more.
    decoders_.reset();
    call_.farewells->Say(std::move(transport_));
  }
  if (absl::Status status = FinalStatus(); !status.ok()) {
    LeaveKept(status);
    return status;
  }

  LoadResult result;
  result.load_delay = all_ready_at_ - began_;
  result.bytes = assembler_.bytes_received();
  result.goodput_bytes_per_second =
      static_cast<double>(result.bytes) / std::max(1e-9, absl::ToDoubleSeconds(result.load_delay));
  result.bandwidth_estimate_bytes_per_second = assembler_.bandwidth_estimate_bytes_per_second();
  if (taken_) {
    result.deadline_missed = late_;
  } else {
    result.deadline_missed = options_.deadline.has_value() &&
                             *options_.deadline > absl::ZeroDuration() &&
                             result.load_delay > *options_.deadline;
  }
  result.chunks = assembler_.Result();
  result.recomputed_tokens = assembler_.recomputed_tokens();
  result.recompute_time = assembler_.recompute_time();
  return result;
}

void LoadRpc::LeaveKept(const absl::Status& status) {
  if (call_.kept == nullptr) return;
  // Refused before it began, a load may still go well that asks for less.
  const bool refused = holds_ && !absl::IsUnavailable(status) && !absl::IsCancelled(status) &&
                       (!heard_ || assembler_.held_refused());
  if (refused) *call_.held_refused = true;
  if (!refused && !absl::IsUnavailable(status)) return;
  *call_.kept = assembler_.Kept();
  if (call_.held != nullptr) *call_.held = assembler_.TakeHeld();
}

void LoadRpc::OnEvent(LoadTransport::Event event, const grpc::ByteBuffer& message) {
  switch (event) {
    case LoadTransport::Event::kStarted:
      last_heard_ = MonotonicNow();
      SendStart();
      break;
    case LoadTransport::Event::kMessage:
      last_heard_ = MonotonicNow();
      heard_ = true;
      if (failure_.ok()) Fail(taken_ ? OnLateMessage(message) : OnMessage(message));
      break;
    case LoadTransport::Event::kWritten:
      // First the message itself, then the half-close.
      if (taken_ && transport_->can_write()) {
        transport_->WritesDone();
      } else if (taken_ && options_.observer == nullptr) {
        gone_ = true;
      }
      break;
    case LoadTransport::Event::kWake:
    case LoadTransport::Event::kTimeout:
    case LoadTransport::Event::kEnd:
      break;
  }
}

void LoadRpc::SendStart() {
  v1::LoadRequest request;
  v1::LoadStart* start = request.mutable_start();
  const auto as_bytes = [](const std::array<uint8_t, 32>& id) {
    return std::string(id.begin(), id.end());
  };
  start->set_profile_id(as_bytes(call_.profile->id()));
  start->mutable_chunk_ids()->Reserve(static_cast<int>(call_.chunk_ids.size()));
  for (const ChunkId& id : call_.chunk_ids) start->add_chunk_ids(as_bytes(id));
  start->set_policy(ToProto(options_.policy));
  start_sent_ = newest_bytes_ = last_progress_ = MonotonicNow();
  if (options_.deadline.has_value() && *options_.deadline > absl::ZeroDuration()) {
    // Counted from the caller's call: connecting has used some of it.
    const absl::Duration left = std::max(kDeadlineMin, *options_.deadline - (start_sent_ - began_));
    *start->mutable_deadline() =
        google::protobuf::util::TimeUtil::NanosecondsToDuration(absl::ToInt64Nanoseconds(left));
  }
  start->set_level(static_cast<uint32_t>(options_.level));
  start->set_floor_level(static_cast<uint32_t>(options_.floor_level));
  start->set_floor_below_share(options_.floor_below_share);
  start->set_recompute_ability(ToProto(options_.ability));
  start->set_prefill_seconds_per_token(options_.prefill_seconds_per_token);
  start->set_prefill_seconds_per_token_pair(options_.prefill_seconds_per_token_pair);
  start->set_decode_seconds_per_token(decoders_->seconds_per_token());
  start->set_takes_plan_with_data(true);
  start->set_takes_batches(true);
  start->set_recompute_can_stop(options_.recompute_watch != nullptr);
  start->set_bandwidth_hint_bytes_per_second(options_.bandwidth_hint_bytes_per_second);
  if (options_.observer != nullptr) start->set_story_samples_max(kStorySamplesMax);
  if (holds_) {
    assembler_.SayHeld(start);
    // With all in place there may be nothing else to report.
    if (assembler_.chunks_ready() == assembler_.chunks()) all_ready_at_ = start_sent_;
    pace_.DueAtOnce();
  }
  transport_->Write(request);
  LoadEvent started;
  started.decode_seconds_per_token = start->decode_seconds_per_token();
  Tell(started);
}

void LoadRpc::Tell(LoadEvent event) const {
  if (options_.observer == nullptr) return;
  event.at = MonotonicNow() - began_;
  event.chunk += call_.first_chunk;
  options_.observer->OnEvent(event);
}

void LoadRpc::TellPlan(const v1::ChunkPlan& plan) const {
  LoadEvent event;
  event.kind = LoadEvent::Kind::kPlan;
  event.chunk = plan.chunk();
  if (plan.has_level()) event.level = static_cast<int>(plan.level());
  Tell(event);
}

// Of frames and messages that the assembler has found good.
void LoadRpc::TellFrame(const SegmentFrame& frame) const {
  if (options_.observer == nullptr) return;
  v1::ChunkPlan plan;
  if (!frame.plan.empty() && plan.ParseFromString(frame.plan)) TellPlan(plan);
  LoadEvent event;
  event.kind = LoadEvent::Kind::kData;
  event.chunk = frame.chunk;
  event.level = static_cast<int>(frame.level);
  event.offset = frame.offset;
  event.bytes = frame.size;
  Tell(event);
}

void LoadRpc::TellData(const v1::SegmentData& data) const {
  if (data.has_plan()) TellPlan(data.plan());
  LoadEvent event;
  event.kind = LoadEvent::Kind::kData;
  event.chunk = data.chunk();
  event.level = static_cast<int>(data.level());
  event.offset = data.offset();
  event.bytes = data.data().size();
  Tell(event);
}

void LoadRpc::TellMessage(const v1::LoadResponse& response) const {
  if (options_.observer == nullptr) return;
  LoadEvent event;
  switch (response.message_case()) {
    case v1::LoadResponse::kPlan:
      TellPlan(response.plan());
      return;
    case v1::LoadResponse::kData:
      TellData(response.data());
      return;
    case v1::LoadResponse::kBatch:
      for (const v1::SegmentData& data : response.batch().data()) TellData(data);
      return;
    case v1::LoadResponse::kOrder:
      event.kind = LoadEvent::Kind::kOrder;
      event.chunk = response.order().first();
      event.chunks = response.order().end() - response.order().first();
      break;
    case v1::LoadResponse::kSummary:
      options_.observer->OnServerSamples(ServerSamples(response.summary()));
      event.kind = LoadEvent::Kind::kSummary;
      break;
    case v1::LoadResponse::kBegun:
    case v1::LoadResponse::MESSAGE_NOT_SET:
      return;
  }
  Tell(event);
}

// After the chunks were taken only who observes the load waits for the summary, for its story.
absl::Status LoadRpc::OnLateMessage(const grpc::ByteBuffer& message) {
  slices_.clear();
  if (options_.observer == nullptr || !message.Dump(&slices_).ok()) return absl::OkStatus();
  std::string joined;
  for (const grpc::Slice& slice : slices_) {
    joined.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  v1::LoadResponse response;
  if (response.ParseFromString(joined) && response.has_summary()) TellMessage(response);
  return absl::OkStatus();
}

absl::Status LoadRpc::OnMessage(const grpc::ByteBuffer& message) {
  slices_.clear();
  pieces_.clear();
  if (!message.Dump(&slices_).ok()) return absl::InternalError("cannot read a message's bytes");
  for (const grpc::Slice& slice : slices_) {
    pieces_.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  const uint64_t bytes_before = assembler_.bytes_received();
  absl::Status status;
  if (ParseSegmentFrames(pieces_, &frames_)) {
    for (const SegmentFrame& frame : frames_) {
      status = assembler_.OnData(frame);
      if (!status.ok()) break;
      TellFrame(frame);
    }
  } else {
    std::string joined;
    joined.reserve(message.Length());
    for (absl::string_view piece : pieces_) joined.append(piece.data(), piece.size());
    v1::LoadResponse response;
    if (!response.ParseFromString(joined)) {
      return absl::InternalError("the server broke the protocol of Load: not a LoadResponse");
    }
    status = assembler_.OnMessage(response);
    if (status.ok()) TellMessage(response);
  }
  if (assembler_.bytes_received() != bytes_before) {
    newest_bytes_ = last_heard_;
    pace_.Due();
    if (options_.recompute_watch && assembler_.recompute_superseded()) {
      options_.recompute_watch->set_superseded(true);
    }
  }
  return status;
}

void LoadRpc::TakeLocalResults() {
  const uint32_t ready_before = assembler_.chunks_ready();
  for (const DecodeResult& result : decoders_->TakeResults()) {
    LoadEvent event;
    event.kind = LoadEvent::Kind::kDecodeEnd;
    event.chunk = result.chunk;
    event.level = result.level;
    event.ok = result.status.ok();
    Tell(event);
    Fail(assembler_.OnDecoded(result.chunk, result.level, result.status));
    if (result.status.ok()) {
      pace_.Due();
    } else {
      pace_.DueAtOnce();
    }
    last_local_work_ = MonotonicNow();
  }
  if (absl::optional<RecomputeResult> result = recompute_.TakeResult(); result.has_value()) {
    LoadEvent event = RecomputeEvent(LoadEvent::Kind::kRecomputeEnd, result->job);
    event.ok = result->status.ok();
    Tell(event);
    Fail(assembler_.OnRecomputed(result->job, result->status, result->took));
    recompute_under_way_ = false;
    pace_.DueAtOnce();
    last_local_work_ = MonotonicNow();
  }
  const uint32_t ready = assembler_.chunks_ready();
  if (ready > ready_before) {
    if (ready == assembler_.chunks()) {
      all_ready_at_ = MonotonicNow();
      pace_.DueAtOnce();
    }
    if (options_.progress && failure_.ok()) options_.progress(ready, assembler_.chunks());
  }
}

void LoadRpc::GiveOutWork() {
  // Recompute first: it decides what may not be decoded while it runs.
  const bool cut_off = transport_->over() && !assembler_.has_summary();
  if (!recompute_under_way_ && options_.recompute && !cut_off) {
    absl::optional<RecomputeJob> job = assembler_.NextRecompute(MonotonicNow() - start_sent_);
    if (job.has_value()) {
      recompute_under_way_ = true;
      if (options_.recompute_watch) options_.recompute_watch->set_superseded(false);
      pace_.DueAtOnce();
      Tell(RecomputeEvent(LoadEvent::Kind::kRecomputeBegin, *job));
      recompute_.Submit(*job);
    }
  }
  // A refinement that would not be done by the deadline would only hold the caller up.
  const double decode_s = decoders_->seconds_per_token() * call_.profile->chunk_tokens();
  const bool may_refine = MonotonicNow() + absl::Seconds(decode_s) <= DeadlineAt();
  while (decoders_->has_room()) {
    absl::optional<DecodeJob> job = assembler_.NextDecode(may_refine);
    if (!job.has_value()) break;
    LoadEvent event;
    event.kind = LoadEvent::Kind::kDecodeBegin;
    event.chunk = job->chunk;
    event.level = job->level;
    Tell(event);
    decoders_->Submit(*std::move(job));
  }
}

// One write at a time; what happens meanwhile goes into the next message.
void LoadRpc::SendProgress() {
  if (!transport_->can_write()) return;
  if (assembler_.finished()) {
    transport_->WritesDone();
    return;
  }
  const absl::Duration now = MonotonicNow();
  if (!pace_.MaySend(now) && !(assembler_.working() && now - last_progress_ >= kHeartbeat)) return;
  v1::LoadRequest request;
  assembler_.TakeProgress(request.mutable_progress());
  SendClock(request.mutable_progress());
  pace_.Sent(now);
  last_progress_ = now;
  TellProgress();
  transport_->Write(request);
}

void LoadRpc::TellProgress() const {
  LoadEvent event;
  event.kind = LoadEvent::Kind::kProgress;
  event.bytes = assembler_.bytes_received();
  event.chunks = assembler_.chunks_ready();
  Tell(event);
}

void LoadRpc::SendClock(v1::LoadProgress* progress) const {
  progress->set_clock_ns(
      static_cast<uint64_t>(absl::ToInt64Nanoseconds(newest_bytes_ - start_sent_)));
}

absl::Duration LoadRpc::DeadlineAt() const {
  const bool taking =
      options_.deadline.has_value() && *options_.deadline > absl::ZeroDuration() &&
      (options_.policy == ClientPolicy::kDeadline || options_.policy == ClientPolicy::kDefault);
  return taking ? began_ + *options_.deadline : absl::InfiniteDuration();
}

void LoadRpc::CheckDeadline() {
  if (taken_ || transport_->over() || assembler_.has_summary()) return;
  const absl::Duration now = MonotonicNow();
  if (now < DeadlineAt()) return;
  if (!assembler_.all_in_place()) {
    late_ = true;
    return;
  }
  if (!heard_) {
    // Held since before the call, and there is no time left to wait for a server.
    Fail(absl::UnavailableError(absl::StrCat(call_.server, ": load: no answer by the deadline")));
    return;
  }
  if (!transport_->can_write()) return;
  v1::LoadRequest request;
  assembler_.TakeProgress(request.mutable_progress());
  SendClock(request.mutable_progress());
  assembler_.Take(late_, request.mutable_progress()->mutable_taken());
  TellProgress();
  transport_->Write(request);
  taken_ = true;
  all_ready_at_ = late_ ? now : DeadlineAt();
}

void LoadRpc::CheckTime() {
  if (options_.cancelled && options_.cancelled()) {
    Fail(absl::CancelledError("the caller cancelled the load"));
    return;
  }
  const bool owed_by_server = !transport_->over() && !assembler_.working();
  if (!owed_by_server) return;
  const absl::Duration silence = MonotonicNow() - std::max(last_heard_, last_local_work_);
  if (taken_ || assembler_.finished()) {
    if (silence > kFarewell) transport_->Cancel();
  } else if (silence > call_.silence_max) {
    Fail(absl::UnavailableError(absl::StrCat(
        call_.server, ": load: no answer for ", absl::FormatDuration(call_.silence_max),
        " (check the server and the link; rpc_timeout can be raised)")));
  }
}

absl::Duration LoadRpc::TimeToWait() const {
  if (!failure_.ok()) return absl::InfiniteDuration();
  const absl::Duration now = MonotonicNow();
  const absl::Duration deadline = DeadlineAt() - now;
  const absl::Duration clock = now - start_sent_;
  absl::Duration order = assembler_.recompute_at(clock);
  if (order != absl::InfiniteDuration()) order = order - clock + absl::Milliseconds(1);
  if (deadline > absl::ZeroDuration()) order = std::min(order, deadline);
  // A report that cannot be written yet is looked at again when the write under way is done.
  if (!taken_ && transport_->can_write()) order = std::min(order, pace_.Wait(now));
  if (options_.cancelled) return std::min(order, kCancelPoll);
  return std::min({order, kHeartbeat, kFarewell, call_.silence_max / 4});
}

void LoadRpc::Fail(absl::Status status) {
  if (status.ok() || !failure_.ok()) return;
  failure_ = std::move(status);
  transport_->Cancel();
}

absl::Status LoadRpc::FinalStatus() const {
  if (taken_ && failure_.ok()) return absl::OkStatus();
  if (!failure_.ok()) {
    if (failure_.code() != absl::StatusCode::kInternal) return failure_;
    return absl::InternalError(absl::StrCat(call_.server, ": load: ", failure_.message()));
  }
  const grpc::Status& status = transport_->status();
  if (status.error_code() == grpc::StatusCode::DATA_LOSS && !assembler_.first_damage().ok()) {
    return assembler_.first_damage();
  }
  // A load that is complete here is good whatever became of the connection afterwards.
  if (assembler_.finished()) return absl::OkStatus();
  if (!status.ok()) return FromRpcStatus(status, call_.server, "load");
  return assembler_.Verdict();
}

}  // namespace

absl::StatusOr<LoadResult> RunLoad(const LoadCall& call) { return LoadRpc(call).Run(); }

absl::Status ValidateLoadMemory(const Profile& profile, size_t tokens, const MutableKvView& out) {
  if (out.tokens != static_cast<int64_t>(tokens)) {
    return absl::InvalidArgumentError(
        absl::StrCat("load: memory for ", out.tokens, " tokens of ", tokens));
  }
  const size_t layers = static_cast<size_t>(profile.geometry().layers);
  const size_t values = profile.geometry().has_values() ? layers : 0;
  if (out.keys.size() != layers || out.values.size() != values) {
    return absl::InvalidArgumentError(
        absl::StrCat("load: memory of ", out.keys.size(), " layers of keys (or latents) and ",
                     out.values.size(), " of values, the profile has ", layers, " and ", values));
  }
  for (const auto* tensors : {&out.keys, &out.values}) {
    for (const MutableKvTensor& tensor : *tensors) {
      if (tensor.data == nullptr) return absl::InvalidArgumentError("load: memory without data");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateLoad(const Profile& profile, size_t tokens, const LoadOptions& options) {
  if (tokens == 0) return absl::InvalidArgumentError("load: no tokens");
  const size_t chunk_tokens = static_cast<size_t>(profile.chunk_tokens());
  if ((tokens - 1) / chunk_tokens >= kChunksMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("load: ", tokens, " tokens are more than ", kChunksMax, " chunks"));
  }
  for (int level : {options.level, options.floor_level}) {
    if (level < 0 || level >= profile.levels()) {
      return absl::InvalidArgumentError(
          absl::StrCat("load: level ", level, " is not in 0 to ", profile.levels() - 1));
    }
  }
  if (options.deadline.has_value() && *options.deadline < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("load: a negative deadline");
  }
  const bool has_deadline =
      options.deadline.has_value() && *options.deadline > absl::ZeroDuration();
  if (!has_deadline &&
      (options.policy == ClientPolicy::kDeadline || options.policy == ClientPolicy::kCacheGen)) {
    return absl::InvalidArgumentError("load: this policy needs a deadline");
  }
  const bool fastest = options.policy == ClientPolicy::kFastest ||
                       (options.policy == ClientPolicy::kDefault && !has_deadline);
  if (!(options.floor_below_share >= 0 && options.floor_below_share <= 1) ||
      (options.floor_below_share > 0 && (!fastest || options.floor_level == 0))) {
    return absl::InvalidArgumentError(
        "load: a floor_below_share that is not 0 to 1, or without policy fastest and a floor_level "
        "above 0");
  }
  const bool can_recompute = options.ability != ClientRecomputeAbility::kNone;
  if (can_recompute != static_cast<bool>(options.recompute)) {
    return absl::InvalidArgumentError(
        can_recompute ? "load: a recompute ability without a recompute callback"
                      : "load: a recompute callback without a recompute ability");
  }
  if (options.policy == ClientPolicy::kRecompute && !can_recompute) {
    return absl::InvalidArgumentError("load: policy recompute needs a recompute ability");
  }
  for (double value : {options.prefill_seconds_per_token, options.prefill_seconds_per_token_pair,
                       options.bandwidth_hint_bytes_per_second}) {
    if (!std::isfinite(value) || value < 0) {
      return absl::InvalidArgumentError("load: a rate that is negative or no number");
    }
  }
  return absl::OkStatus();
}

}  // namespace kvstream

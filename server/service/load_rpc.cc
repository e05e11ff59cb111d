#include "server/service/load_rpc.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/server_context.h"
#include "server/load/link_record.h"
#include "server/service/ids.h"
#include "server/service/rpc_deadline.h"
#include "server/service/status_conversion.h"

namespace kvstream {
namespace {

// A call that is to end waits so long for its outstanding write, so that the client still learns
// why.
constexpr absl::Duration kCutOffAfter = absl::Seconds(1);
// Fewer acknowledged bytes say nothing about a link.
constexpr uint64_t kGoodputMinBytes = 64 << 10;
// What a link carries in this time travels as one message, whatever segments it is of: a message
// costs some 30 us of wake-ups at each end, and its first segment waits for its last.
constexpr double kBatchSeconds = 0.001;
constexpr size_t kBatchPartsMax = 64;  // what clients read without protobuf

LoadOutcome OutcomeOfFailure(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kDataLoss:
      return LoadOutcome::kDataLoss;
    case absl::StatusCode::kDeadlineExceeded:
      return LoadOutcome::kTimedOut;
    case absl::StatusCode::kInvalidArgument:
      return LoadOutcome::kProtocol;
    default:
      return LoadOutcome::kFailed;
  }
}

absl::Status ClientGone() { return absl::CancelledError("the client has gone away"); }

// "0:12,2:40": chunks by level.
std::string LevelsText(const std::vector<ChunkDecision>& chunks) {
  std::map<int, int> counts;
  for (const ChunkDecision& decision : chunks) {
    if (decision.level.has_value()) ++counts[*decision.level];
  }
  return absl::StrJoin(counts, ",", absl::PairFormatter(":"));
}

// For the log: -1 where a stage was not reached.
double SecondsOrNone(const absl::optional<absl::Duration>& duration) {
  return duration.has_value() ? absl::ToDoubleSeconds(*duration) : -1.0;
}

}  // namespace

LoadRpc* LoadRpc::Start(grpc::CallbackServerContext* context, const RpcEnvironment* environment) {
  const std::shared_ptr<LoadRpc> rpc(new LoadRpc(context, environment));
  rpc->self_ = rpc;
  LoadRpc* const raw = rpc.get();
  raw->strand_.Bind(rpc, DeadlineOf(*context),
                    [raw](const CallEvents& events) { raw->Step(events); });
  const std::weak_ptr<LoadRpc> weak = rpc;
  absl::StatusOr<CallTracker::Ticket> ticket = environment->loads->Enter([weak] {
    const std::shared_ptr<LoadRpc> load = weak.lock();
    if (load != nullptr) load->strand_.Aborted();
  });
  LoadRefusal reason = LoadRefusal::kLoads;
  absl::Status status = ticket.status();
  if (ticket.ok()) {
    absl::StatusOr<LoadAdmission::Place> place = environment->admission->Enter(
        HostOfPeer(context->peer()), environment->tenant_loads, &reason);
    status = place.status();
    if (place.ok()) raw->place_ = *std::move(place);
  }
  if (status.ok()) {
    raw->ticket_ = *std::move(ticket);
    raw->StartRead(&raw->read_buffer_);
  } else {
    raw->Refuse(reason, std::move(status));
  }
  raw->strand_.Poke();
  return raw;
}

LoadRpc::LoadRpc(grpc::CallbackServerContext* context, const RpcEnvironment* environment)
    : context_(context),
      environment_(environment),
      started_(MonotonicNow()),
      strand_(environment->readers, environment->timers),
      last_progress_(started_) {}

void LoadRpc::OnDone() {
  // Steps that are still queued hold their own reference and see finished_.
  const std::shared_ptr<LoadRpc> last = std::move(self_);
}

void LoadRpc::Step(const CallEvents& events) {
  if (finished_) return;
  const absl::Duration now = MonotonicNow();
  if (events.write_done.has_value()) {
    write_outstanding_ = false;
    write_buffer_.Clear();
    if (!*events.write_done) {
      End(LoadOutcome::kClientGone, ClientGone());
    } else if (summary_written_) {
      End(LoadOutcome::kOk, absl::OkStatus());
    }
  }
  if (events.cancelled) End(LoadOutcome::kClientGone, ClientGone());
  if (events.aborted) {
    End(LoadOutcome::kDraining, absl::UnavailableError("the server is stopping; try another one"));
  }
  if (events.read_done.has_value()) HandleRead(*events.read_done, now);
  if (!ending_) Pump(now);
  Settle(MonotonicNow());
}

void LoadRpc::HandleRead(bool ok, absl::Duration now) {
  if (ending_) return;
  if (!ok) {
    // Either a half-close, which is legal once the summary is on its way, or the end of the
    // connection.
    reads_closed_ = true;
    if (context_->IsCancelled()) {
      End(LoadOutcome::kClientGone, ClientGone());
    } else if (session_ == nullptr) {
      End(LoadOutcome::kRefused,
          absl::InvalidArgumentError("the stream was half-closed before its start message"));
    }
    return;
  }
  v1::LoadRequest request;
  const grpc::Status parsed =
      grpc::SerializationTraits<v1::LoadRequest>::Deserialize(&read_buffer_, &request);
  const LoadOutcome refusal = session_ == nullptr ? LoadOutcome::kRefused : LoadOutcome::kProtocol;
  if (!parsed.ok()) {
    End(refusal, absl::InvalidArgumentError("a message of the stream is no LoadRequest"));
  } else if (request.has_start()) {
    if (session_ == nullptr) {
      HandleStart(request.start(), now);
    } else {
      End(refusal, absl::InvalidArgumentError("a second start message"));
    }
  } else if (request.has_progress()) {
    if (session_ != nullptr) {
      HandleProgress(request.progress(), now);
    } else {
      End(refusal, absl::InvalidArgumentError("progress came before the start message"));
    }
  } else {
    End(refusal, absl::InvalidArgumentError("a message of the stream is empty"));
  }
  if (!ending_) StartRead(&read_buffer_);
}

void LoadRpc::HandleStart(const v1::LoadStart& start, absl::Duration now) {
  absl::StatusOr<PreparedLoad> load = PrepareLoad(start, *environment_);
  if (!load.ok()) {
    if (absl::IsResourceExhausted(load.status())) {
      Refuse(LoadRefusal::kChunks, load.status());
      return;
    }
    const bool damaged = absl::IsDataLoss(load.status());
    End(damaged ? LoadOutcome::kDataLoss : LoadOutcome::kRefused, load.status());
    return;
  }
  load_ = *std::move(load);
  record_.policy = load_.spec.policy;
  JoinLink(now);
  const ServerOptions& server = *environment_->options;
  LoadSessionOptions options;
  options.frame_bytes = server.frame_bytes;
  options.window_bytes_min = server.window_bytes_min;
  options.window_bytes_max = server.window_bytes_max;
  options.client_idle_limit = server.client_idle_timeout;
  options.gate = gate_.get();
  // The session keeps its own copy. Its clock starts at the receipt of the request, before the
  // store was asked.
  absl::StatusOr<std::unique_ptr<LoadSession>> session =
      environment_->create_session(load_.spec, options, now);
  if (!session.ok()) {
    End(LoadOutcome::kRefused, session.status());
    return;
  }
  session_ = *std::move(session);
  segments_ =
      std::make_unique<SegmentSource>(environment_->store, environment_->readers, &load_.ids,
                                      &load_.spec.chunks, [weak = std::weak_ptr<LoadRpc>(self_)] {
                                        const std::shared_ptr<LoadRpc> load = weak.lock();
                                        if (load != nullptr) load->strand_.Resume();
                                      });
  takes_batches_ = start.takes_batches();
  plan_with_data_ = start.takes_plan_with_data();
  begun_owed_ = !load_.spec.held_levels.empty();
  strand_.StepsDoNotBlock();
  story_ = LoadStory(start.story_samples_max());
  last_progress_ = now;
}

void LoadRpc::JoinLink(absl::Duration now) {
  network_ = NetworkOfPeer(context_->peer());
  const double expected = environment_->links->Expected(network_, now);
  if (load_.spec.bandwidth_hint_bytes_per_second == 0) {
    load_.spec.bandwidth_hint_bytes_per_second = expected;
  }
  load_.spec.round_trip_hint_seconds =
      absl::ToDoubleSeconds(environment_->links->RoundTrip(network_, now));
  std::string link;
  switch (environment_->options->link_sharing) {
    case LinkSharing::kNetwork:
      link = network_;
      break;
    case LinkSharing::kHost:
      link = HostOfPeer(context_->peer());
      break;
    case LinkSharing::kOff:
      break;
  }
  // Called on other loads' threads, and maybe when this one is gone.
  const std::weak_ptr<LoadRpc> weak = self_;
  gate_ = environment_->link_groups->Join(
      link, expected,
      [weak] {
        const std::shared_ptr<LoadRpc> load = weak.lock();
        if (load != nullptr) load->strand_.Poke();
      },
      now);
}

void LoadRpc::HandleProgress(const v1::LoadProgress& progress, absl::Duration now) {
  if (summary_written_) return;  // sent before the client saw the summary
  const absl::StatusOr<ClientProgress> report = ParseProgress(progress);
  const absl::Status status = report.ok() ? session_->OnProgress(*report, now) : report.status();
  if (!status.ok()) {
    End(LoadOutcome::kProtocol, status);
    return;
  }
  if (report->bytes_received > reported_.bytes_received) last_acknowledged_ = now;
  if (report->bytes_received > reported_.bytes_received ||
      report->chunks_ready > reported_.chunks_ready ||
      report->recomputed_tokens > reported_.recomputed_tokens) {
    last_progress_ = now;
  }
  reported_ = *report;
  if (!record_.stages.all_ready.has_value() && reported_.chunks_ready == load_.ids.size()) {
    record_.stages.all_ready = now - started_;
  }
  const LoadSessionState state = session_->state(now);
  record_.stages.round_trip = state.rtt_min;
  record_.stages.window_bytes_max = std::max(record_.stages.window_bytes_max, state.window_bytes);
  if (story_.wants(now - started_)) story_.Add(now - started_, state);
}

void LoadRpc::Pump(absl::Duration now) {
  wait_until_ = absl::InfiniteDuration();
  if (session_ != nullptr && !start_observed_ && first_sent_.has_value()) {
    // Once it has asked for its bytes, its link knows what it needs.
    start_observed_ = true;
    const LinkShareView view = gate_->View(now);
    environment_->metrics->ObserveLoadStart(view.loads, view.slack);
  }
  if (begun_owed_ && !write_outstanding_ && !ending_) {
    begun_owed_ = false;
    v1::LoadResponse response;
    response.mutable_begun();
    WriteProto(response);
  }
  while (session_ != nullptr && !write_outstanding_ && !summary_written_ && !ending_) {
    const LoadAction action =
        unsent_.has_value() ? *std::exchange(unsent_, absl::nullopt) : session_->Next(now);
    if (!Carry(action, now)) break;
    if (DataIsEnough()) break;
  }
  if (!data_.empty()) Write(data_.Take());
}

bool LoadRpc::Carry(const LoadAction& action, absl::Duration now) {
  const auto* const data = absl::get_if<SendData>(&action);
  if (data != nullptr && (!held_plan_.has_value() || held_plan_->chunk() == data->chunk) &&
      AddData(*data, now)) {
    return true;
  }
  const auto* const plan = absl::get_if<SendPlan>(&action);
  if (plan != nullptr && plan_with_data_ && !held_plan_.has_value() &&
      plan->decision.level.has_value()) {
    held_plan_ = NotePlan(*plan);
    return true;
  }
  if (!data_.empty() || held_plan_.has_value()) {
    // Those go first. A Wait may be over by the time that they are written: the session is asked
    // again.
    if (!absl::holds_alternative<Wait>(action)) unsent_ = action;
    if (!data_.empty()) return false;
    v1::LoadResponse response;
    *response.mutable_plan() = *std::exchange(held_plan_, absl::nullopt);
    WriteProto(response);
    return true;
  }
  return CarryOther(action, now);
}

bool LoadRpc::CarryOther(const LoadAction& action, absl::Duration now) {
  if (absl::holds_alternative<SendData>(action)) {
    unsent_ = action;
    return false;
  }
  if (const auto* plan = absl::get_if<SendPlan>(&action)) {
    v1::LoadResponse response;
    *response.mutable_plan() = NotePlan(*plan);
    WriteProto(response);
  } else if (const auto* order = absl::get_if<SendOrder>(&action)) {
    SendOrderMessage(*order);
  } else if (const auto* wait = absl::get_if<Wait>(&action)) {
    wait_until_ = wait->until;
    if (reads_closed_) {
      End(LoadOutcome::kProtocol,
          absl::InvalidArgumentError("the stream was half-closed before its summary, while "
                                     "the server waits for progress"));
    }
    return false;
  } else if (const auto* finish = absl::get_if<kvstream::Finish>(&action)) {
    SendSummary(*finish, now);
  } else {
    const absl::Status& status = absl::get<Fail>(action).status;
    End(OutcomeOfFailure(status.code()), status);
  }
  return true;
}

v1::ChunkPlan LoadRpc::NotePlan(const SendPlan& plan) {
  const bool held = !load_.spec.held_levels.empty() && load_.spec.held_levels[plan.chunk] > 0;
  if (!plan.decision.level.has_value()) {
    ++record_.stages.recompute_told;
  } else if (!plan.first_plan_of_chunk || held) {
    const size_t level = static_cast<size_t>(*plan.decision.level);
    std::vector<uint64_t>& refinements = record_.stages.refinements;
    if (refinements.size() <= level) refinements.resize(level + 1);
    ++refinements[level];
  }
  v1::ChunkPlan message = ToChunkPlan(plan.chunk, plan.decision);
  if (plan.decision.level.has_value()) {
    target_level_ = static_cast<uint32_t>(*plan.decision.level);
  }
  if (plan.first_plan_of_chunk) {
    const StoredChunkSizes& chunk = load_.spec.chunks[plan.chunk];
    message.set_tokens(chunk.tokens);
    for (const uint64_t bytes : chunk.segment_bytes) message.add_segment_bytes(bytes);
  }
  return message;
}

void LoadRpc::SendOrderMessage(const SendOrder& order) {
  v1::LoadResponse response;
  response.mutable_order()->set_first(order.first);
  response.mutable_order()->set_end(order.end);
  if (order.anyway_at != absl::InfiniteDuration()) {
    const int64_t at = absl::ToInt64Nanoseconds(order.anyway_at);
    response.mutable_order()->set_anyway_at_ns(static_cast<uint64_t>(std::max<int64_t>(at, 1)));
  }
  for (const LastMoment& moment : order.last_moments) {
    v1::LastMoment* message = response.mutable_order()->add_last_moments();
    message->set_done_by_ns(
        static_cast<uint64_t>(std::max<int64_t>(absl::ToInt64Nanoseconds(moment.done_by), 1)));
    message->set_token_ns(moment.seconds_per_token * 1e9);
    message->set_pair_ns(moment.seconds_per_token_pair * 1e9);
  }
  WriteProto(response);
}

bool LoadRpc::AddData(const SendData& data, absl::Duration now) {
  const absl::optional<absl::StatusOr<SegmentSource::Segment>> segment =
      segments_->Get(data.chunk, data.level, std::max(data.level, target_level_));
  if (!segment.has_value()) return false;
  const absl::Status status = segment->ok() ? CheckSize(data, ***segment) : segment->status();
  if (!status.ok()) {
    environment_->log->Write(LogLevel::kError, "segment unreadable",
                             {{"chunk", IdHex(load_.ids[data.chunk])},
                              {"level", data.level},
                              {"error", status.ToString()}});
    session_->OnSegmentUnavailable(data.chunk, data.level, status, now);
    return true;
  }
  if (!first_sent_.has_value()) {
    first_sent_ = now;
    record_.stages.first_byte = now - started_;
  }
  if (record_.bytes_by_level.size() <= data.level) record_.bytes_by_level.resize(data.level + 1);
  record_.bytes_by_level[data.level] += data.size;
  std::string plan;
  if (held_plan_.has_value()) plan = std::exchange(held_plan_, absl::nullopt)->SerializeAsString();
  data_.Add(data.chunk, data.level, data.offset, data.size, **segment, plan);
  data_bytes_newest_ = data.size;
  return true;
}

bool LoadRpc::DataIsEnough() const {
  if (data_.empty()) return false;
  if (!takes_batches_ || data_.parts() == kBatchPartsMax) return true;
  const double bytes_max = std::min(kBatchSeconds * session_->bandwidth_estimate_bytes_per_second(),
                                    static_cast<double>(environment_->options->frame_bytes));
  // What follows is likely as large as what came last.
  return static_cast<double>(data_.payload_bytes() + data_bytes_newest_) > bytes_max;
}

absl::Status LoadRpc::CheckSize(const SendData& data, const PinnedBytes& segment) const {
  const uint64_t announced = load_.spec.chunks[data.chunk].segment_bytes[data.level];
  if (segment.bytes().size() == announced) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("chunk ", IdHex(load_.ids[data.chunk]), " level ",
                                          data.level, " has ", segment.bytes().size(),
                                          " bytes in the store instead of ", announced));
}

void LoadRpc::SendSummary(const kvstream::Finish& finish, absl::Duration now) {
  summary_written_ = true;
  segments_.reset();
  // What one load got of a link that it shared says little about the link.
  const BandwidthEstimate link = gate_->LinkEstimate(now);
  const double seconds = absl::ToDoubleSeconds(finish.load_delay);
  if (link.known() && !link.lower_bound) {
    environment_->links->Observe(network_, link.mean, seconds, now);
  } else if (!session_->state(now).bandwidth_is_lower_bound) {
    environment_->links->Observe(network_, finish.bandwidth_estimate_bytes_per_second, seconds,
                                 now);
  }
  environment_->links->ObserveRoundTrip(network_, session_->state(now).rtt_min, now);
  record_.delay = finish.load_delay;
  record_.chunks = finish.chunks;
  record_.bandwidth_estimate_bytes_per_second = finish.bandwidth_estimate_bytes_per_second;
  if (load_.spec.deadline.has_value()) {
    record_.deadline_missed = finish.deadline_missed;
    record_.stages.deadline_slack = *load_.spec.deadline - finish.load_delay;
  }

  v1::LoadResponse response;
  v1::LoadSummary& summary = *response.mutable_summary();
  absl::Duration rest;
  summary.mutable_load_delay()->set_seconds(
      absl::IDivDuration(finish.load_delay, absl::Seconds(1), &rest));
  summary.mutable_load_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  for (size_t i = 0; i < finish.chunks.size(); ++i) {
    *summary.add_chunks() = ToChunkPlan(static_cast<uint32_t>(i), finish.chunks[i]);
  }
  summary.set_bandwidth_estimate_bytes_per_second(finish.bandwidth_estimate_bytes_per_second);
  summary.set_bytes_sent(finish.bytes_sent);
  summary.set_deadline_missed(finish.deadline_missed);
  story_.Write(&summary);
  WriteProto(response);
  last_progress_ = now;  // the client owes nothing but to take the summary
}

void LoadRpc::Write(grpc::ByteBuffer&& message) {
  write_buffer_.Swap(&message);  // a ByteBuffer cannot be moved
  write_outstanding_ = true;
  StartWrite(&write_buffer_);
}

void LoadRpc::WriteProto(const v1::LoadResponse& response) {
  grpc::ByteBuffer message;
  bool own_buffer = false;
  const grpc::Status status =
      grpc::SerializationTraits<v1::LoadResponse>::Serialize(response, &message, &own_buffer);
  if (!status.ok()) {
    End(LoadOutcome::kFailed, absl::InternalError("a response could not be serialised"));
    return;
  }
  Write(std::move(message));
}

void LoadRpc::Refuse(LoadRefusal reason, absl::Status status) {
  if (absl::IsResourceExhausted(status)) {
    environment_->metrics->CountRefusal(reason);
    // gRPC's own word for it (proposal A6), which clients in every language can read.
    const absl::Duration after =
        environment_->admission->RetryAfter(environment_->loads->in_flight(), MonotonicNow());
    context_->AddTrailingMetadata("grpc-retry-pushback-ms",
                                  absl::StrCat(absl::ToInt64Milliseconds(after)));
  }
  End(LoadOutcome::kRefused, std::move(status));
}

void LoadRpc::End(LoadOutcome outcome, absl::Status status) {
  if (ending_) return;
  ending_ = true;
  cut_off_at_ = MonotonicNow() + kCutOffAfter;
  record_.outcome = outcome;
  end_status_ = std::move(status);
}

void LoadRpc::Settle(absl::Duration now) {
  const absl::Duration idle = environment_->options->client_idle_timeout;
  const bool owed_by_client = session_ == nullptr || write_outstanding_;
  if (!ending_ && owed_by_client && now - last_progress_ >= idle) {
    End(LoadOutcome::kTimedOut,
        absl::DeadlineExceededError(
            absl::StrCat("the client showed no progress for ", absl::FormatDuration(idle))));
  }
  if (ending_) {
    if (!write_outstanding_) {
      FinishCall(now);
      return;
    }
    if (now >= cut_off_at_ && !cut_off_) {
      cut_off_ = true;
      context_->TryCancel();  // makes the outstanding write end
    }
    if (!cut_off_) strand_.ArmAt(cut_off_at_);
    return;
  }
  // A waiting session has its own idea of idleness and says when; asking it once per idle time
  // costs nothing.
  strand_.ArmAt(owed_by_client ? last_progress_ + idle : std::min(wait_until_, now + idle));
}

void LoadRpc::FinishCall(absl::Duration now) {
  finished_ = true;
  strand_.Disarm();
  if (!summary_written_) {
    record_.delay = now - started_;
    if (session_ != nullptr) {
      record_.bandwidth_estimate_bytes_per_second = session_->bandwidth_estimate_bytes_per_second();
    }
  }
  if (first_sent_.has_value() && reported_.bytes_received >= kGoodputMinBytes &&
      last_acknowledged_ > *first_sent_) {
    record_.goodput_bytes_per_second = static_cast<double>(reported_.bytes_received) /
                                       absl::ToDoubleSeconds(last_acknowledged_ - *first_sent_);
  }
  if (session_ != nullptr) {
    record_.estimate_log_error = std::sqrt(session_->state(now).estimate_mean_square_log_error);
    environment_->admission->OnEnd(now - started_);
  }
  record_.stages.recomputed_tokens = reported_.recomputed_tokens;
  record_.stages.recompute_time = reported_.recompute_time;
  environment_->metrics->ObserveLoad(record_);
  environment_->metrics->CountError("Load", end_status_.code());
  LogEnd();
  session_.reset();
  segments_.reset();  // before what it borrows
  gate_.reset();
  story_ = LoadStory(0);
  load_ = PreparedLoad();
  place_.Release();
  ticket_.Release();  // before the client learns of the end and comes again
  // The last use of anything here: the reactor may be gone when Finish returns, but for the step's
  // own reference.
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>::Finish(ToGrpcStatus(end_status_));
}

void LoadRpc::LogEnd() const {
  const bool ok = record_.outcome == LoadOutcome::kOk;
  int recomputed = 0;
  for (const ChunkDecision& decision : record_.chunks) recomputed += !decision.level.has_value();
  environment_->log->Write(
      ok ? LogLevel::kInfo : LogLevel::kWarn, ok ? "load finished" : "load failed",
      {{"peer", context_->peer()},
       {"policy", record_.policy.has_value() ? LoadPolicyLabel(*record_.policy) : "none"},
       {"outcome", LoadOutcomeLabel(record_.outcome)},
       {"error", end_status_.message()},
       {"chunks", load_.ids.size()},
       {"levels", LevelsText(record_.chunks)},
       {"recomputed", recomputed},
       {"bytes", record_.bytes()},
       {"delay_seconds", absl::ToDoubleSeconds(record_.delay)},
       {"deadline_seconds",
        load_.spec.deadline.has_value() ? absl::ToDoubleSeconds(*load_.spec.deadline) : 0.0},
       {"deadline_missed", record_.deadline_missed.value_or(false)},
       {"first_byte_seconds", SecondsOrNone(record_.stages.first_byte)},
       {"all_ready_seconds", SecondsOrNone(record_.stages.all_ready)},
       {"round_trip_seconds", absl::ToDoubleSeconds(record_.stages.round_trip)},
       {"window_bytes_max", record_.stages.window_bytes_max},
       {"refinements", std::accumulate(record_.stages.refinements.begin(),
                                       record_.stages.refinements.end(), uint64_t{0})},
       {"recompute_told", record_.stages.recompute_told},
       {"recomputed_tokens", record_.stages.recomputed_tokens},
       {"recompute_seconds", absl::ToDoubleSeconds(record_.stages.recompute_time)},
       {"estimate_bytes_per_second", record_.bandwidth_estimate_bytes_per_second},
       {"goodput_bytes_per_second", record_.goodput_bytes_per_second}});
}

}  // namespace kvstream

// The Load call: moves a load session's decisions to gRPC and the client's reports back.
#ifndef KVSTREAM_SERVER_SERVICE_LOAD_RPC_H_
#define KVSTREAM_SERVER_SERVICE_LOAD_RPC_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "kvstream/v1/kvstream.pb.h"
#include "server/load/load_session.h"
#include "server/service/call_strand.h"
#include "server/service/load_start.h"
#include "server/service/load_story.h"
#include "server/service/metrics.h"
#include "server/service/rpc_environment.h"
#include "server/service/segment_message.h"
#include "server/service/segment_source.h"

namespace kvstream {

// One load. gRPC's reactions only note events; everything else happens in steps, one at a time
// (CallStrand), so that the session and all other members need no lock. Until the session exists
// steps run on the readers' pool, since preparing a load asks the store; from then on on the thread
// that reports the event, since they never wait: what the store has to read from its disk is read
// on the pool, and a step follows (SegmentSource). One read and one write are outstanding at most.
// A step ends as soon as a write is outstanding, hence a load that waits, for its client, for the
// disk or for time, holds no thread.
//
// Exactly one place finishes the call: FinishCall(), in a step. Whatever goes wrong is noted by
// End() and finished when no write is outstanding; a client that does not take its bytes is cut off
// a second later.
//
// Memory: the session's window at most in gRPC, the pinned segments of one message and those read
// ahead, one message of the client.
class LoadRpc final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // Owns itself until OnDone. `environment` outlives it.
  static LoadRpc* Start(grpc::CallbackServerContext* context, const RpcEnvironment* environment);

  void OnReadDone(bool ok) override { strand_.ReadDone(ok); }
  void OnWriteDone(bool ok) override { strand_.WriteDone(ok); }
  void OnCancel() override { strand_.Cancelled(); }
  void OnDone() override;

 private:
  LoadRpc(grpc::CallbackServerContext* context, const RpcEnvironment* environment);

  void Step(const CallEvents& events);
  void HandleRead(bool ok, absl::Duration now);
  void HandleStart(const v1::LoadStart& start, absl::Duration now);
  // Makes the gate and gives the load what is known of its link.
  void JoinLink(absl::Duration now);
  void HandleProgress(const v1::LoadProgress& progress, absl::Duration now);
  // Asks the session until a write is outstanding or there is nothing to do.
  void Pump(absl::Duration now);
  // One of the session's actions. False if it has to wait: for the disk, or for what it says
  // itself.
  bool Carry(const LoadAction& action, absl::Duration now);
  // The same where neither data nor a plan are held back.
  bool CarryOther(const LoadAction& action, absl::Duration now);
  // Counts the plan and makes it the newest.
  v1::ChunkPlan NotePlan(const SendPlan& plan);
  void SendOrderMessage(const SendOrder& order);
  // Adds it to data_. False if the store has yet to read the segment; a step follows once it has.
  bool AddData(const SendData& data, absl::Duration now);
  // Whether data_ had better be written now than be added to.
  bool DataIsEnough() const;
  void SendSummary(const kvstream::Finish& finish, absl::Duration now);
  // Whether it has the size that was announced.
  absl::Status CheckSize(const SendData& data, const PinnedBytes& segment) const;
  void Write(grpc::ByteBuffer&& message);
  void WriteProto(const v1::LoadResponse& response);
  // Ends the call for want of room, with a hint when to try again.
  void Refuse(LoadRefusal reason, absl::Status status);
  // Notes how the call ends; the first one counts.
  void End(LoadOutcome outcome, absl::Status status);
  // Finishes a call that is to end, or arms the timer of the next step.
  void Settle(absl::Duration now);
  void FinishCall(absl::Duration now);
  void LogEnd() const;

  grpc::CallbackServerContext* const context_;
  const RpcEnvironment* const environment_;
  const absl::Duration started_;
  std::shared_ptr<LoadRpc> self_;  // until OnDone
  CallTracker::Ticket ticket_;
  LoadAdmission::Place place_;
  CallStrand strand_;

  grpc::ByteBuffer read_buffer_;   // gRPC's while a read is outstanding
  grpc::ByteBuffer write_buffer_;  // gRPC's while a write is outstanding
  bool write_outstanding_ = false;
  bool reads_closed_ = false;

  PreparedLoad load_;
  std::string network_;                   // of the client, see NetworkOfPeer
  std::unique_ptr<LinkGate> gate_;        // null before the start; outlives the session
  std::unique_ptr<LoadSession> session_;  // null before the start
  bool start_observed_ = false;
  absl::Duration wait_until_ = absl::InfiniteDuration();
  absl::Duration last_progress_;  // when the client last moved on
  ClientProgress reported_;
  bool summary_written_ = false;

  std::unique_ptr<SegmentSource> segments_;  // reads load_'s chunks; null before the start
  uint32_t target_level_ = 0;                // of the newest plan
  // What the session has sent and the store is still reading, or what a plan goes before.
  absl::optional<LoadAction> unsent_;
  bool takes_batches_ = false;
  SegmentMessage data_;             // of this step, empty between steps
  uint64_t data_bytes_newest_ = 0;  // of the part added last
  bool plan_with_data_ = false;     // the client takes it so
  bool begun_owed_ = false;         // a LoadBegun, before anything else
  // Not sent yet: goes with the data that follow, else before whatever follows.
  absl::optional<v1::ChunkPlan> held_plan_;

  LoadStory story_{0};
  absl::optional<absl::Duration> first_sent_;
  absl::Duration last_acknowledged_;
  LoadRecord record_;

  bool ending_ = false;
  bool cut_off_ = false;
  absl::Duration cut_off_at_;
  absl::Status end_status_;
  bool finished_ = false;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_LOAD_RPC_H_

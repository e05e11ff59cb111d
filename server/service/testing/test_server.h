// A server on loopback with a memory store, and clients of it, for tests of the service.
#ifndef KVSTREAM_SERVER_SERVICE_TESTING_TEST_SERVER_H_
#define KVSTREAM_SERVER_SERVICE_TESTING_TEST_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"
#include "kvstream/v1/kvstream.grpc.pb.h"
#include "server/service/kvstream_server.h"
#include "server/service/testing/fake_profile.h"
#include "server/service/testing/faulty_store.h"
#include "server/service/timer_queue.h"

namespace kvstream {

// A context as tests store it: chunk i has `tokens` tokens and segments of these sizes.
struct TestContext {
  char profile_name = 'a';
  char name = 'x';  // part of the chunks' ids
  int chunks = 4;
  int tokens = 16;
  std::vector<size_t> segment_bytes = {1000, 2000, 4000};

  ChunkId id(int chunk) const;
  std::vector<ChunkId> ids() const;
  std::string segment(int chunk, int level) const;
  std::string profile_bytes() const;
  StoredProfileId profile_id() const;
  // Payload of all chunks up to and including the level.
  uint64_t bytes_at(int level) const;
};

class TestServer {
 public:
  // Ports 0, quiet log, the real load sessions unless `sessions` is given, a memory store unless
  // `store` is. `restart_needed`: see KvStreamServer::Parts. Fails the test if it cannot start.
  explicit TestServer(ServerOptions options = {}, LoadSessionFactory sessions = nullptr,
                      std::unique_ptr<ChunkStore> store = nullptr,
                      std::function<void()> restart_needed = nullptr);
  // Stops at once if the test did not.
  ~TestServer();

  // Options that all these servers have; tests change some and pass them on.
  static ServerOptions Options();

  KvStreamServer& server() { return *server_; }
  StoreFaults& faults() { return *faults_; }
  v1::KVStream::Stub& stub() { return *stub_; }
  // A connection of its own.
  std::shared_ptr<grpc::Channel> NewChannel() const;
  std::string http_address() const;

  bool Stop(absl::Duration drain_timeout);

  grpc::Status PutProfile(const std::string& bytes, v1::PutProfileResponse* response = nullptr);
  // Profile and chunks.
  grpc::Status PutContext(const TestContext& context, v1::PutResponse* response = nullptr);
  // The same past the network, for servers whose timeouts a slow machine would meet.
  void StoreContext(const TestContext& context);
  // Sends these messages as one Put stream.
  grpc::Status SendPut(const std::vector<v1::PutRequest>& messages, v1::PutResponse* response);
  // The messages that PutContext sends.
  static std::vector<v1::PutRequest> PutMessages(const TestContext& context);

 private:
  std::shared_ptr<StoreFaults> faults_ = std::make_shared<StoreFaults>();
  std::unique_ptr<KvStreamServer> server_;
  std::unique_ptr<v1::KVStream::Stub> stub_;
  bool stopped_ = false;
};

// What an honest client got from a load.
struct TestLoad {
  grpc::Status status;
  absl::optional<v1::LoadSummary> summary;
  std::vector<std::string> chunks;                   // per chunk its segments, one after the other
  std::vector<std::vector<uint64_t>> segment_bytes;  // per chunk, of its first plan
  std::vector<int> levels;  // of the last plan; -1: recompute, by plan or order
  uint64_t bytes = 0;
  int plans_with_data = 0;
  int batches = 0;
  uint32_t ordered_first = 0, ordered_end = 0;  // of the last RecomputeOrder
  // Order of messages as the protocol promises it; empty: kept.
  std::string violation;
};

// A LoadStart for all of a context.
v1::LoadStart StartOf(const TestContext& context);

// Runs a load as a client that decodes and recomputes in no time, on the calling thread.
TestLoad RunLoad(v1::KVStream::Stub& stub, const v1::LoadStart& start);

// A load of which a test sends every message itself.
class ManualLoad {
 public:
  explicit ManualLoad(v1::KVStream::Stub& stub) : stream_(stub.Load(&context_)) {}

  bool Send(const v1::LoadRequest& request) { return stream_->Write(request); }
  bool SendStart(const v1::LoadStart& start);
  bool SendProgress(uint64_t bytes, uint32_t chunks_ready);
  absl::optional<v1::LoadResponse> Receive();
  bool HalfClose() { return stream_->WritesDone(); }
  void Cancel() { context_.TryCancel(); }
  // Reads what is left, then the status.
  grpc::Status Finish();

 private:
  const absl::Duration begin_ = MonotonicNow();
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::LoadRequest, v1::LoadResponse>> stream_;
};

// Value of a sample line of /metrics such as `kvstream_put_bytes_total` or `name{label="value"}`; 0
// if it is not there.
double MetricValue(const std::string& text, const std::string& sample);

// Waits until the condition holds, at most a minute; for state that changes behind a call's end.
// Returns its last value.
bool Eventually(const std::function<bool()>& condition);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TESTING_TEST_SERVER_H_

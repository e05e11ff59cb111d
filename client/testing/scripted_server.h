// A gRPC server in the test's process that does what the test says, right or wrong.
#ifndef KVSTREAM_CLIENT_TESTING_SCRIPTED_SERVER_H_
#define KVSTREAM_CLIENT_TESTING_SCRIPTED_SERVER_H_

#include <grpcpp/server.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/testing/synthetic_context.h"
#include "codec/encoder.h"
#include "kvstream/v1/kvstream.grpc.pb.h"

namespace kvstream {

using LoadStream = grpc::ServerReaderWriter<v1::LoadResponse, v1::LoadRequest>;

// Methods without a script answer UNIMPLEMENTED. Set the scripts before the first call.
class ScriptedService final : public v1::KVStream::Service {
 public:
  template <typename Request, typename Response>
  using Unary = std::function<grpc::Status(const Request&, Response*)>;

  std::function<grpc::Status(grpc::ServerContext*, LoadStream*)> load;
  std::function<grpc::Status(grpc::ServerReader<v1::PutRequest>*, v1::PutResponse*)> put;
  std::function<grpc::Status(grpc::ServerReader<v1::PutProfileRequest>*, v1::PutProfileResponse*)>
      put_profile;
  std::function<grpc::Status(const v1::GetProfileRequest&,
                             grpc::ServerWriter<v1::GetProfileResponse>*)>
      get_profile;
  Unary<v1::LookupRequest, v1::LookupResponse> lookup;
  Unary<v1::DeleteRequest, v1::DeleteResponse> remove;
  Unary<v1::ListRequest, v1::ListResponse> list;
  Unary<v1::StatsRequest, v1::StatsResponse> stats;

 private:
  grpc::Status Load(grpc::ServerContext* context, LoadStream* stream) override;
  grpc::Status Put(grpc::ServerContext*, grpc::ServerReader<v1::PutRequest>* reader,
                   v1::PutResponse* response) override;
  grpc::Status PutProfile(grpc::ServerContext*, grpc::ServerReader<v1::PutProfileRequest>* reader,
                          v1::PutProfileResponse* response) override;
  grpc::Status GetProfile(grpc::ServerContext*, const v1::GetProfileRequest* request,
                          grpc::ServerWriter<v1::GetProfileResponse>* writer) override;
  grpc::Status Lookup(grpc::ServerContext*, const v1::LookupRequest* request,
                      v1::LookupResponse* response) override;
  grpc::Status Delete(grpc::ServerContext*, const v1::DeleteRequest* request,
                      v1::DeleteResponse* response) override;
  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request,
                    v1::ListResponse* response) override;
  grpc::Status Stats(grpc::ServerContext*, const v1::StatsRequest* request,
                     v1::StatsResponse* response) override;
};

// Serves on a free loopback port, with the standard health service, until destroyed.
class ScriptedServer {
 public:
  ScriptedServer();
  ~ScriptedServer();

  ScriptedService& service() { return service_; }
  std::string address() const;
  // Ends every call at once, as a process that dies does.
  void Kill();

 private:
  ScriptedService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// The words of a Load, for scripts. Not thread-safe.
class LoadScript {
 public:
  // Reads the start message.
  LoadScript(LoadStream* stream, std::vector<EncodedChunk> chunks, const SyntheticContext* context);
  // After a start message that was read, which asks for the first so many chunks of the context.
  LoadScript(const LoadScript& whole, size_t chunks);

  const v1::LoadStart& start() const { return start_; }
  uint64_t bytes_sent() const { return sent_; }
  // All progress messages read so far.
  const std::vector<v1::LoadProgress>& progress() const { return progress_; }

  // To a client that holds chunks, before all else.
  void Begun();
  void Plan(uint32_t chunk, int level);
  void PlanRecompute(uint32_t chunk);
  // The whole segment, in pieces of `piece` bytes.
  void Segment(uint32_t chunk, int level, size_t piece = 100);
  // The same with a byte that is wrong.
  void DamagedSegment(uint32_t chunk, int level);
  // Plan and segments [from, to].
  void Send(uint32_t chunk, int from, int to);
  // Reads progress until it says so; false if the client went away first.
  bool ReadUntil(const std::function<bool(const v1::LoadProgress&)>& done);
  // ... until all chunks are ready and all bytes acknowledged.
  bool ReadUntilReady();
  // What was planned last.
  void Summary();
  void Write(const v1::LoadResponse& response) { stream_->Write(response); }

 private:
  LoadStream* const stream_;
  std::vector<EncodedChunk> chunks_;
  const SyntheticContext* const context_;
  v1::LoadStart start_;
  std::vector<v1::LoadProgress> progress_;
  std::vector<int> planned_;  // -2: not yet, -1: recompute
  uint64_t sent_ = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_TESTING_SCRIPTED_SERVER_H_

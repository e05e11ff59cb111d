#include "client/testing/scripted_server.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

grpc::Status Unscripted() { return {grpc::StatusCode::UNIMPLEMENTED, "not in the test's script"}; }

}  // namespace

grpc::Status ScriptedService::Load(grpc::ServerContext* context, LoadStream* stream) {
  return load ? load(context, stream) : Unscripted();
}
grpc::Status ScriptedService::Put(grpc::ServerContext*, grpc::ServerReader<v1::PutRequest>* reader,
                                  v1::PutResponse* response) {
  return put ? put(reader, response) : Unscripted();
}
grpc::Status ScriptedService::PutProfile(grpc::ServerContext*,
                                         grpc::ServerReader<v1::PutProfileRequest>* reader,
                                         v1::PutProfileResponse* response) {
  return put_profile ? put_profile(reader, response) : Unscripted();
}
grpc::Status ScriptedService::GetProfile(grpc::ServerContext*, const v1::GetProfileRequest* request,
                                         grpc::ServerWriter<v1::GetProfileResponse>* writer) {
  return get_profile ? get_profile(*request, writer) : Unscripted();
}
grpc::Status ScriptedService::Lookup(grpc::ServerContext*, const v1::LookupRequest* request,
                                     v1::LookupResponse* response) {
  return lookup ? lookup(*request, response) : Unscripted();
}
grpc::Status ScriptedService::Delete(grpc::ServerContext*, const v1::DeleteRequest* request,
                                     v1::DeleteResponse* response) {
  return remove ? remove(*request, response) : Unscripted();
}
grpc::Status ScriptedService::List(grpc::ServerContext*, const v1::ListRequest* request,
                                   v1::ListResponse* response) {
  return list ? list(*request, response) : Unscripted();
}
grpc::Status ScriptedService::Stats(grpc::ServerContext*, const v1::StatsRequest* request,
                                    v1::StatsResponse* response) {
  return stats ? stats(*request, response) : Unscripted();
}

ScriptedServer::ScriptedServer() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(&service_);
  server_ = builder.BuildAndStart();
}

ScriptedServer::~ScriptedServer() { Kill(); }

std::string ScriptedServer::address() const { return absl::StrCat("127.0.0.1:", port_); }

void ScriptedServer::Kill() { server_->Shutdown(std::chrono::system_clock::now()); }

LoadScript::LoadScript(LoadStream* stream, std::vector<EncodedChunk> chunks,
                       const SyntheticContext* context)
    : stream_(stream), chunks_(std::move(chunks)), context_(context), planned_(chunks_.size(), -2) {
  v1::LoadRequest request;
  if (stream_->Read(&request)) start_ = request.start();
}

LoadScript::LoadScript(const LoadScript& whole, size_t chunks)
    : stream_(whole.stream_),
      chunks_(whole.chunks_.begin(), whole.chunks_.begin() + static_cast<ptrdiff_t>(chunks)),
      context_(whole.context_),
      start_(whole.start_),
      planned_(chunks, -2) {}

void LoadScript::Begun() {
  v1::LoadResponse response;
  response.mutable_begun();
  Write(response);
}

void LoadScript::Plan(uint32_t chunk, int level) {
  v1::LoadResponse response;
  v1::ChunkPlan* plan = response.mutable_plan();
  plan->set_chunk(chunk);
  plan->set_level(static_cast<uint32_t>(level));
  if (planned_[chunk] == -2) {
    plan->set_tokens(static_cast<uint32_t>(context_->ChunkTokens(chunk)));
    for (const std::string& segment : chunks_[chunk].segments) {
      plan->add_segment_bytes(segment.size());
    }
  }
  planned_[chunk] = level;
  Write(response);
}

void LoadScript::PlanRecompute(uint32_t chunk) {
  v1::LoadResponse response;
  response.mutable_plan()->set_chunk(chunk);
  response.mutable_plan()->mutable_recompute()->set_reason(v1::Recompute::REASON_FASTER);
  planned_[chunk] = -1;
  Write(response);
}

void LoadScript::Segment(uint32_t chunk, int level, size_t piece) {
  const std::string& segment = chunks_[chunk].segments[level];
  for (size_t offset = 0; offset < segment.size(); offset += piece) {
    v1::LoadResponse response;
    v1::SegmentData* data = response.mutable_data();
    data->set_chunk(chunk);
    data->set_level(static_cast<uint32_t>(level));
    data->set_offset(offset);
    data->set_data(segment.substr(offset, piece));
    sent_ += data->data().size();
    Write(response);
  }
}

void LoadScript::DamagedSegment(uint32_t chunk, int level) {
  std::string& segment = chunks_[chunk].segments[level];
  segment.back() = static_cast<char>(segment.back() ^ 1);
  Segment(chunk, level);
}

void LoadScript::Send(uint32_t chunk, int from, int to) {
  Plan(chunk, to);
  for (int level = from; level <= to; ++level) Segment(chunk, level);
}

bool LoadScript::ReadUntil(const std::function<bool(const v1::LoadProgress&)>& done) {
  if (!progress_.empty() && done(progress_.back())) return true;
  v1::LoadRequest request;
  while (stream_->Read(&request)) {
    progress_.push_back(request.progress());
    if (done(request.progress())) return true;
  }
  return false;
}

bool LoadScript::ReadUntilReady() {
  return ReadUntil([this](const v1::LoadProgress& progress) {
    return progress.chunks_ready() == chunks_.size() && progress.bytes_received() == sent_;
  });
}

void LoadScript::Summary() {
  v1::LoadResponse response;
  v1::LoadSummary* summary = response.mutable_summary();
  for (uint32_t chunk = 0; chunk < planned_.size(); ++chunk) {
    v1::ChunkPlan* plan = summary->add_chunks();
    plan->set_chunk(chunk);
    if (planned_[chunk] == -1) {
      plan->mutable_recompute();
    } else {
      const int index = static_cast<int>(chunk);
      const int held =
          index < start_.held_levels_size() ? static_cast<int>(start_.held_levels(index)) : 0;
      plan->set_level(static_cast<uint32_t>(std::max({planned_[chunk], held - 1, 0})));
    }
  }
  summary->set_bandwidth_estimate_bytes_per_second(123456);
  summary->set_bytes_sent(sent_);
  Write(response);
}

}  // namespace kvstream

#include "tests/bench/store/daemon.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/monotonic_clock.h"
#include "tests/bench/store/load_receiver.h"
#include "tests/bench/store/together.h"

namespace kvstream::bench {
namespace {

constexpr size_t kDataBytes = 1 << 20;  // as in the proto

std::string AsBytes(const std::array<uint8_t, 32>& id) { return std::string(id.begin(), id.end()); }

absl::Status FromGrpc(const grpc::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrCat(what, ": ", status.error_message()));
}

// A connection of its own.
std::shared_ptr<grpc::Channel> Connect(int port) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt("grpc.enable_http_proxy", 0);
  return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port),
                                   grpc::InsecureChannelCredentials(), arguments);
}

absl::StatusOr<Pass> LoadAll(const std::shared_ptr<grpc::Channel>& channel,
                             const ValueSet& values) {
  Pass pass;
  const absl::Duration began = MonotonicNow();
  LoadReceiver receiver(channel, &values);
  if (absl::Status status = receiver.Run(&pass); !status.ok()) return status;
  pass.ended_at = receiver.last_value_at();
  pass.seconds = absl::ToDoubleSeconds(pass.ended_at - began);
  return pass;
}

// 0: not written yet.
int GrpcPort(const std::string& ports_file) {
  std::ifstream file(ports_file);
  if (!file) return 0;
  const nlohmann::json ports = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  return ports.is_object() ? ports.value("grpc", 0) : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const DaemonOptions& options) {
  const std::string ports_file = options.work_dir + "/ports.json";
  std::remove(ports_file.c_str());
  std::vector<std::string> argv = {options.binary,
                                   "--listen=127.0.0.1:0",
                                   "--http-listen=127.0.0.1:0",
                                   "--ports-file=" + ports_file,
                                   "--data-dir=" + options.data_dir,
                                   "--log-level=warn"};
  argv.insert(argv.end(), options.flags.begin(), options.flags.end());
  const std::string log = options.work_dir + "/kvstreamd.log";
  auto process = ChildProcess::Start(argv, log);
  if (!process.ok()) return process.status();
  const absl::Time give_up = absl::Now() + absl::Minutes(5);  // a log may have to be replayed
  while ((*process)->Running() && absl::Now() < give_up) {
    const int port = GrpcPort(ports_file);
    if (port > 0) return absl::WrapUnique(new Daemon(*std::move(process), port));
    absl::SleepFor(absl::Milliseconds(10));
  }
  return absl::UnavailableError(absl::StrCat("kvstreamd did not come up, see ", log));
}

Daemon::Daemon(std::unique_ptr<ChildProcess> process, int port)
    : process_(std::move(process)), port_(port), channels_({Connect(port)}) {
  stub_ = v1::KVStream::NewStub(channels_.front());
}

absl::Status Daemon::PutProfile(const Profile& profile) {
  grpc::ClientContext context;
  v1::PutProfileResponse response;
  const auto writer = stub_->PutProfile(&context, &response);
  v1::PutProfileRequest request;
  request.set_data(profile.serialized());
  writer->Write(request);
  writer->WritesDone();
  return FromGrpc(writer->Finish(), "PutProfile");
}

absl::Status Daemon::Put(const ValueSet& values) {
  grpc::ClientContext context;
  v1::PutResponse response;
  const auto writer = stub_->Put(&context, &response);
  v1::PutRequest request;
  request.mutable_start()->set_profile_id(AsBytes(values.profile().id()));
  bool open = writer->Write(request);
  for (int i = 0; i < values.count() && open; ++i) {
    const std::string value = values.Value(i);
    v1::PutChunk* chunk = request.mutable_chunk();
    chunk->Clear();
    chunk->set_chunk_id(AsBytes(values.ids()[static_cast<size_t>(i)]));
    if (i > 0) chunk->set_parent_id(AsBytes(values.ids()[static_cast<size_t>(i) - 1]));
    chunk->set_first_token(static_cast<uint64_t>(i) * kChunkTokens);
    chunk->set_tokens(kChunkTokens);
    chunk->add_segment_bytes(value.size());
    open = writer->Write(request);
    for (size_t offset = 0; offset < value.size() && open; offset += kDataBytes) {
      v1::PutData* data = request.mutable_data();
      data->set_offset(offset);
      data->set_data(value.substr(offset, kDataBytes));
      open = writer->Write(request);
    }
  }
  writer->WritesDone();
  return FromGrpc(writer->Finish(), "Put");
}

absl::StatusOr<Pass> Daemon::Load(const ValueSet& values, int connections) {
  while (channels_.size() < static_cast<size_t>(connections)) channels_.push_back(Connect(port_));
  const double server_cpu = process_->CpuSeconds();
  const double client_cpu = OwnCpuSeconds();
  absl::StatusOr<Pass> pass = RunTogether(connections, [&](int connection) {
    return LoadAll(channels_[static_cast<size_t>(connection)], values);
  });
  if (!pass.ok()) return pass;
  pass->client_cpu_seconds = OwnCpuSeconds() - client_cpu;
  pass->server_cpu_seconds = process_->CpuSeconds() - server_cpu;
  return pass;
}

absl::StatusOr<uint32_t> Daemon::Lookup(const Profile& profile, const std::vector<ChunkId>& ids) {
  v1::LookupRequest request;
  request.set_profile_id(AsBytes(profile.id()));
  for (const ChunkId& id : ids) request.add_chunk_ids(id.data(), id.size());
  grpc::ClientContext context;
  v1::LookupResponse response;
  const absl::Status status = FromGrpc(stub_->Lookup(&context, request, &response), "Lookup");
  if (!status.ok()) return status;
  return response.matched_chunks();
}

}  // namespace kvstream::bench

#include "server/service/testing/test_server.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "server/load/load_session.h"
#include "server/service/ids.h"
#include "server/service/timer_queue.h"
#include "storage/memory/memory_chunk_store.h"

namespace kvstream {
namespace {

constexpr size_t kPutPieceBytes = 1 << 20;

// What the protocol promises about the order of a load's messages.
class LoadReader {
 public:
  explicit LoadReader(size_t chunks) : received_(chunks), sizes_(chunks) {
    load_.chunks.resize(chunks);
    load_.levels.resize(chunks, -2);
    load_.segment_bytes.resize(chunks);
  }

  void OnResponse(const v1::LoadResponse& response) {
    if (load_.summary.has_value()) Violation("a message after the summary");
    if (response.has_plan()) {
      OnPlan(response.plan());
    } else if (response.has_data()) {
      OnData(response.data());
    } else if (response.has_batch()) {
      if (response.batch().data_size() < 2) Violation("a batch of nearly nothing");
      ++load_.batches;
      for (const v1::SegmentData& data : response.batch().data()) OnData(data);
    } else if (response.has_order()) {
      OnOrder(response.order());
    } else if (response.has_summary()) {
      load_.summary = response.summary();
    } else {
      Violation("an empty message");
    }
  }

  uint32_t ChunksReady() const {
    uint32_t ready = 0;
    for (size_t i = 0; i < received_.size(); ++i) {
      const bool decoded = !received_[i].empty() && received_[i][0] == sizes_[i][0];
      ready += decoded || load_.levels[i] == -1;
    }
    return ready;
  }
  uint32_t Recomputed() const {
    return static_cast<uint32_t>(std::count(load_.levels.begin(), load_.levels.end(), -1));
  }
  TestLoad& load() { return load_; }

 private:
  void Violation(const std::string& text) {
    if (load_.violation.empty()) load_.violation = text;
  }

  // As fast as nothing else could be.
  void OnOrder(const v1::RecomputeOrder& order) {
    for (uint32_t chunk = order.first(); chunk < order.end(); ++chunk) {
      if (load_.levels[chunk] == -2) load_.levels[chunk] = -1;
    }
    load_.ordered_first = order.first();
    load_.ordered_end = order.end();
  }

  void OnPlan(const v1::ChunkPlan& plan) {
    if (plan.chunk() >= sizes_.size()) return Violation("plan of a chunk that was not asked for");
    if (load_.levels[plan.chunk()] == -2) {
      sizes_[plan.chunk()].assign(plan.segment_bytes().begin(), plan.segment_bytes().end());
      load_.segment_bytes[plan.chunk()] = sizes_[plan.chunk()];
      if (plan.tokens() == 0) Violation("first plan without tokens");
    }
    if (plan.has_level() && plan.level() >= sizes_[plan.chunk()].size()) {
      return Violation("plan of a level without a size");
    }
    load_.levels[plan.chunk()] = plan.has_level() ? static_cast<int>(plan.level()) : -1;
  }

  void OnData(const v1::SegmentData& data) {
    if (data.has_plan()) {
      if (data.plan().chunk() != data.chunk()) Violation("data with another chunk's plan");
      ++load_.plans_with_data;
      OnPlan(data.plan());
    }
    load_.bytes += data.data().size();
    if (data.chunk() >= received_.size() || load_.levels[data.chunk()] < 0) {
      return Violation("data before its plan");
    }
    if (static_cast<int>(data.level()) > load_.levels[data.chunk()]) {
      return Violation("data above the planned level");
    }
    std::vector<uint64_t>& levels = received_[data.chunk()];
    if (data.offset() == 0) {
      if (data.level() != levels.size()) return Violation("levels out of order");
      if (!levels.empty() && levels.back() != sizes_[data.chunk()][levels.size() - 1]) {
        return Violation("a level begins before the one below is complete");
      }
      levels.push_back(0);
    }
    if (data.level() + 1 != levels.size() || data.offset() != levels.back()) {
      return Violation("offsets with a gap");
    }
    levels.back() += data.data().size();
    if (levels.back() > sizes_[data.chunk()][data.level()]) Violation("more bytes than announced");
    load_.chunks[data.chunk()] += data.data();
  }

  TestLoad load_;
  std::vector<std::vector<uint64_t>> received_;  // [chunk][level]: bytes
  std::vector<std::vector<uint64_t>> sizes_;
};

}  // namespace

ChunkId TestContext::id(int chunk) const {
  ChunkId id = {};
  id[0] = static_cast<uint8_t>(name);
  id[1] = static_cast<uint8_t>(chunk >> 8);
  id[2] = static_cast<uint8_t>(chunk);
  id[31] = 0xfe;
  return id;
}

std::vector<ChunkId> TestContext::ids() const {
  std::vector<ChunkId> all;
  for (int i = 0; i < chunks; ++i) all.push_back(id(i));
  return all;
}

std::string TestContext::segment(int chunk, int level) const {
  return FakeSegment(profile_name, level, tokens, int64_t{chunk} * tokens,
                     segment_bytes[static_cast<size_t>(level)]);
}

std::string TestContext::profile_bytes() const {
  return FakeProfileBytes(static_cast<int>(segment_bytes.size()), tokens, profile_name);
}

StoredProfileId TestContext::profile_id() const { return FakeProfileId(profile_bytes()); }

uint64_t TestContext::bytes_at(int level) const {
  uint64_t bytes = 0;
  for (int i = 0; i <= level; ++i) bytes += segment_bytes[static_cast<size_t>(i)];
  return bytes * static_cast<uint64_t>(chunks);
}

ServerOptions TestServer::Options() {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.http_listen = "127.0.0.1:0";
  options.store = StoreKind::kMemory;
  options.log_level = "off";
  return options;
}

TestServer::TestServer(ServerOptions options, LoadSessionFactory sessions,
                       std::unique_ptr<ChunkStore> store, std::function<void()> restart_needed) {
  options.listen = "127.0.0.1:0";
  options.http_listen = "127.0.0.1:0";
  KvStreamServer::Parts parts;
  if (store == nullptr) store = *MemoryChunkStore::Create();
  parts.store = std::make_unique<FaultyStore>(std::move(store), faults_);
  parts.parse_profile = FakeProfileParser();
  parts.create_session = sessions ? std::move(sessions) : &LoadSession::Create;
  parts.log = std::make_unique<Log>(options.log_level, LogFormat::kText);
  parts.restart_needed = std::move(restart_needed);
  absl::StatusOr<std::unique_ptr<KvStreamServer>> server =
      KvStreamServer::Create(options, std::move(parts));
  EXPECT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  stub_ = v1::KVStream::NewStub(NewChannel());
}

TestServer::~TestServer() {
  if (!stopped_) Stop(absl::ZeroDuration());
}

std::shared_ptr<grpc::Channel> TestServer::NewChannel() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->grpc_port()),
                                   grpc::InsecureChannelCredentials(), arguments);
}

std::string TestServer::http_address() const {
  return absl::StrCat("127.0.0.1:", server_->http_port());
}

bool TestServer::Stop(absl::Duration drain_timeout) {
  stopped_ = true;
  return server_->Stop(drain_timeout);
}

grpc::Status TestServer::PutProfile(const std::string& bytes, v1::PutProfileResponse* response) {
  grpc::ClientContext context;
  v1::PutProfileResponse ignored;
  auto writer = stub_->PutProfile(&context, response != nullptr ? response : &ignored);
  for (size_t offset = 0; offset < bytes.size(); offset += kPutPieceBytes) {
    v1::PutProfileRequest request;
    request.set_data(bytes.substr(offset, kPutPieceBytes));
    if (!writer->Write(request)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

std::vector<v1::PutRequest> TestServer::PutMessages(const TestContext& context) {
  std::vector<v1::PutRequest> messages(1);
  messages[0].mutable_start()->set_profile_id(IdBytes(context.profile_id()));
  messages[0].mutable_start()->set_model("test model");
  for (int i = 0; i < context.chunks; ++i) {
    v1::PutRequest request;
    v1::PutChunk& chunk = *request.mutable_chunk();
    chunk.set_chunk_id(IdBytes(context.id(i)));
    if (i > 0) chunk.set_parent_id(IdBytes(context.id(i - 1)));
    chunk.set_first_token(static_cast<uint64_t>(i) * context.tokens);
    chunk.set_tokens(context.tokens);
    for (const size_t bytes : context.segment_bytes) chunk.add_segment_bytes(bytes);
    messages.push_back(request);
    for (size_t level = 0; level < context.segment_bytes.size(); ++level) {
      const std::string segment = context.segment(i, static_cast<int>(level));
      for (size_t offset = 0; offset < segment.size(); offset += kPutPieceBytes) {
        v1::PutRequest data;
        data.mutable_data()->set_level(static_cast<uint32_t>(level));
        data.mutable_data()->set_offset(offset);
        data.mutable_data()->set_data(segment.substr(offset, kPutPieceBytes));
        messages.push_back(data);
      }
    }
  }
  return messages;
}

grpc::Status TestServer::SendPut(const std::vector<v1::PutRequest>& messages,
                                 v1::PutResponse* response) {
  grpc::ClientContext context;
  auto writer = stub_->Put(&context, response);
  for (const v1::PutRequest& message : messages) {
    if (!writer->Write(message)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

grpc::Status TestServer::PutContext(const TestContext& context, v1::PutResponse* response) {
  const grpc::Status profile = PutProfile(context.profile_bytes());
  if (!profile.ok()) return profile;
  v1::PutResponse ignored;
  return SendPut(PutMessages(context), response != nullptr ? response : &ignored);
}

void TestServer::StoreContext(const TestContext& context) {
  const RpcEnvironment& environment = server_->environment();
  EXPECT_TRUE(environment.profiles->Put(context.profile_bytes()).ok());
  for (int i = 0; i < context.chunks; ++i) {
    ChunkInfo info;
    if (i > 0) info.parent = context.id(i - 1);
    info.profile_id = context.profile_id();
    info.first_token = static_cast<uint64_t>(i) * context.tokens;
    info.tokens = static_cast<uint32_t>(context.tokens);
    info.segment_bytes.assign(context.segment_bytes.begin(), context.segment_bytes.end());
    info.created = absl::Now();
    std::vector<std::string> segments;
    for (size_t level = 0; level < context.segment_bytes.size(); ++level) {
      segments.push_back(context.segment(i, static_cast<int>(level)));
    }
    const std::vector<absl::string_view> views(segments.begin(), segments.end());
    EXPECT_TRUE(environment.store->Put(context.id(i), info, views).ok());
  }
}

v1::LoadStart StartOf(const TestContext& context) {
  v1::LoadStart start;
  start.set_profile_id(IdBytes(context.profile_id()));
  for (const ChunkId& id : context.ids()) start.add_chunk_ids(IdBytes(id));
  return start;
}

TestLoad RunLoad(v1::KVStream::Stub& stub, const v1::LoadStart& start) {
  grpc::ClientContext context;
  auto stream = stub.Load(&context);
  const absl::Duration begin = MonotonicNow();
  LoadReader reader(static_cast<size_t>(start.chunk_ids_size()));
  v1::LoadRequest request;
  *request.mutable_start() = start;
  bool open = stream->Write(request);
  v1::LoadResponse response;
  while (stream->Read(&response)) {
    reader.OnResponse(response);
    if (reader.load().summary.has_value() || !open) continue;
    v1::LoadRequest progress;
    progress.mutable_progress()->set_bytes_received(reader.load().bytes);
    progress.mutable_progress()->set_clock_ns(
        static_cast<uint64_t>(absl::ToInt64Nanoseconds(MonotonicNow() - begin)));
    progress.mutable_progress()->set_chunks_ready(reader.ChunksReady());
    progress.mutable_progress()->set_recomputed_up_to(reader.Recomputed());
    if (reader.load().ordered_end > reader.load().ordered_first) {
      v1::OrderProgress* order = progress.mutable_progress()->mutable_order();
      order->set_first(reader.load().ordered_first);
      order->set_up_to(reader.load().ordered_end);
      order->set_newest(v1::OrderProgress::STATE_DONE);
    }
    progress.mutable_progress()->set_recomputed_tokens(reader.Recomputed());
    progress.mutable_progress()->set_recompute_seconds(1e-6 * reader.Recomputed());
    open = stream->Write(progress);
  }
  stream->WritesDone();
  reader.load().status = stream->Finish();
  return reader.load();
}

bool ManualLoad::SendStart(const v1::LoadStart& start) {
  v1::LoadRequest request;
  *request.mutable_start() = start;
  return Send(request);
}

bool ManualLoad::SendProgress(uint64_t bytes, uint32_t chunks_ready) {
  v1::LoadRequest request;
  request.mutable_progress()->set_bytes_received(bytes);
  request.mutable_progress()->set_clock_ns(
      static_cast<uint64_t>(absl::ToInt64Nanoseconds(MonotonicNow() - begin_)));
  request.mutable_progress()->set_chunks_ready(chunks_ready);
  return Send(request);
}

absl::optional<v1::LoadResponse> ManualLoad::Receive() {
  v1::LoadResponse response;
  if (!stream_->Read(&response)) return absl::nullopt;
  return response;
}

grpc::Status ManualLoad::Finish() {
  while (Receive().has_value()) {
  }
  return stream_->Finish();
}

double MetricValue(const std::string& text, const std::string& sample) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    double value = 0;
    if (absl::StartsWith(line, sample + " ") &&
        absl::SimpleAtod(line.substr(sample.size() + 1), &value)) {
      return value;
    }
  }
  return 0;
}

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time until = absl::Now() + absl::Minutes(1);
  while (!condition()) {
    if (absl::Now() > until) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

}  // namespace kvstream

#include "server/service/kvstream_server.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "server/service/listen_address.h"
#include "server/service/server_credentials.h"
#include "server/service/version.h"
#include "storage/call_deadline.h"

namespace kvstream {
namespace {

// The largest message of the protocol is a LoadStart of 65,536 ids, 2.2 MiB.
constexpr int kMaxReceiveBytes = 4 << 20;
// Calls that were told to end, and gRPC's own threads, get so long.
constexpr absl::Duration kEndGrace = absl::Seconds(5);
constexpr absl::Duration kUnpinTimeout = absl::Seconds(10);
constexpr absl::Duration kMetricsTimeout = absl::Seconds(3);
constexpr absl::Duration kAwaitStep = absl::Milliseconds(20);
// What gRPC health calls the part of the service that writes. Not a service of the protocol.
constexpr char kWritesHealth[] = "kvstream.v1.KVStream.writes";

void SetTransportLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  // Two daemons on one port would share its connections at random.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A client whose machine is gone is noticed within a minute; one that pings more often than every
  // 10 s is cut off.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 5);
}

LinkGroups::Options LinkOptions(const ServerOptions& options) {
  LinkGroups::Options links;
  links.window_bytes_min = options.window_bytes_min;
  links.window_bytes_max = options.window_bytes_max;
  links.egress_bytes_per_second = static_cast<double>(options.egress_bytes_per_second);
  links.in_flight_bytes_max = options.max_in_flight_bytes;
  return links;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvStreamServer>> KvStreamServer::Create(const ServerOptions& options,
                                                                       Parts parts) {
  std::unique_ptr<KvStreamServer> server(new KvStreamServer(options, std::move(parts)));
  absl::Status status = server->OpenTenants();
  if (status.ok()) status = server->Listen();
  if (status.ok()) status = server->WritePortsFile();
  if (status.ok()) server->StartSweeper();
  if (!status.ok()) {
    server->TearDown();
    return status;
  }
  return server;
}

KvStreamServer::KvStreamServer(const ServerOptions& options, Parts parts)
    : options_(options),
      log_(std::move(parts.log)),
      metrics_(kServerVersion, parts.store->driver()),
      store_(std::make_unique<MeasuredStore>(std::move(parts.store), &metrics_)),
      profiles_(store_.get(), parts.parse_profile, options.profile_cache_bytes),
      loads_("loads", "--max-loads", options.max_loads),
      puts_("uploads", "--max-puts", options.max_puts),
      requests_("requests", "--max-requests", options.max_requests),
      load_chunks_(static_cast<uint64_t>(options.max_load_chunks)),
      upload_bytes_(options.put_buffer_bytes),
      link_groups_(LinkOptions(options), MonotonicNow()),
      admission_(options.max_loads_per_peer, options.max_in_flight_bytes,
                 [this] { return link_groups_.in_flight_bytes(); }),
      timers_(std::make_unique<TimerQueue>()),
      writers_(std::make_unique<WorkerPool>(options.write_threads)),
      leases_([this](std::vector<ChunkId> ids) {
        DeleteLater(store_.get(), &leases_, std::move(ids));
      }),
      readers_(std::make_unique<WorkerPool>(options.read_threads)),
      parse_profile_(std::move(parts.parse_profile)),
      restart_needed_(std::move(parts.restart_needed)) {
  environment_.options = &options_;
  environment_.store = store_.get();
  environment_.profiles = &profiles_;
  environment_.leases = &leases_;
  environment_.readers = readers_.get();
  environment_.writers = writers_.get();
  environment_.timers = timers_.get();
  environment_.metrics = &metrics_;
  environment_.log = log_.get();
  environment_.loads = &loads_;
  environment_.puts = &puts_;
  environment_.requests = &requests_;
  environment_.load_chunks = &load_chunks_;
  environment_.upload_bytes = &upload_bytes_;
  environment_.links = &links_;
  environment_.link_groups = &link_groups_;
  environment_.admission = &admission_;
  environment_.create_session = std::move(parts.create_session);
  environment_.started = absl::Now();
  environment_.now = std::move(parts.now);
}

KvStreamServer::~KvStreamServer() = default;

absl::Status KvStreamServer::OpenTenants() {
  if (options_.tenants_file.empty()) {
    const absl::StatusOr<StoreStats> stats = store_->Stats();
    if (!stats.ok()) return stats.status();
    if (stats->tenant_chunks == 0) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "the store has ", stats->tenant_chunks,
        " chunks of tenants, which everybody could reach without --tenants-file; give that "
        "option, or another --data-dir or --rados-namespace"));
  }
  absl::StatusOr<std::vector<TenantEntry>> entries = ReadTenants();
  if (!entries.ok()) return entries.status();
  WarnOfPlainTokens(*entries);
  absl::StatusOr<std::unique_ptr<Tenants>> tenants =
      Tenants::Create(*std::move(entries), environment_, parse_profile_,
                      [this](ChunkStore* store, ChunkLeases* leases, std::vector<ChunkId> ids) {
                        DeleteLater(store, leases, std::move(ids));
                      });
  if (!tenants.ok()) return tenants.status();
  tenants_ = *std::move(tenants);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TenantEntry>> KvStreamServer::ReadTenants() const {
  absl::StatusOr<std::vector<TenantEntry>> entries = ReadTenantsFile(options_.tenants_file);
  if (!entries.ok()) return entries;
  for (const TenantEntry& entry : *entries) {
    if (entry.certificates.empty() || !options_.tls_client_ca.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(options_.tenants_file, ": tenant ", entry.name,
                     " has certificates, which clients show only with --tls-client-ca"));
  }
  return entries;
}

absl::Status KvStreamServer::ReloadFiles() {
  // All are read before any is used.
  absl::StatusOr<TlsFiles> tls = TlsFiles();
  if (tls_ != nullptr) tls = ReadTlsFiles(options_);
  if (!tls.ok()) return tls.status();
  absl::StatusOr<std::vector<TenantEntry>> entries = std::vector<TenantEntry>();
  if (tenants_ != nullptr) entries = ReadTenants();
  if (!entries.ok()) return entries.status();
  if (tenants_ != nullptr) {
    if (absl::Status status = tenants_->Replace(*std::move(entries)); !status.ok()) return status;
  }
  return tls_ != nullptr ? tls_->Replace(*tls) : absl::OkStatus();
}

absl::Status KvStreamServer::Reload() {
  const absl::Status status = ReloadFiles();
  metrics_.CountReload(status.ok());
  if (status.ok()) {
    log_->Write(LogLevel::kInfo, "files read again",
                {{"tenants", tenants_ != nullptr}, {"tls", tls_ != nullptr}});
  } else {
    log_->Write(LogLevel::kError, "files read again are wrong; the old ones stay",
                {{"error", status.ToString()}});
  }
  return status;
}

void KvStreamServer::WarnOfPlainTokens(const std::vector<TenantEntry>& entries) const {
  if (!options_.tls_cert.empty() || IsLoopback(options_.listen)) return;
  for (const TenantEntry& entry : entries) {
    if (entry.token_hashes.empty()) continue;
    log_->Write(LogLevel::kWarn,
                "tokens travel unprotected: who reads the network can use them; set --tls-cert",
                {{"listen", options_.listen}});
    return;
  }
}

absl::Status KvStreamServer::Listen() {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (!options_.tls_cert.empty()) {
    const absl::StatusOr<TlsFiles> files = ReadTlsFiles(options_);
    if (!files.ok()) return files.status();
    absl::StatusOr<std::unique_ptr<TlsCredentials>> tls = TlsCredentials::Create(*files);
    if (!tls.ok()) return tls.status();
    tls_ = *std::move(tls);
    credentials = tls_->credentials();
  }
  const absl::Status listenable = CheckListenable("listen", options_.listen);
  if (!listenable.ok()) return listenable;
  absl::StatusOr<std::unique_ptr<HttpServer>> http = HttpServer::Create(
      options_.http_listen,
      {{"/metrics",
        [this] {
          return HttpResponse{200, "text/plain; version=0.0.4; charset=utf-8", MetricsText()};
        }},
       {"/health", [this] {
          return HttpResponse{ready() ? 200 : 503, "application/json", HealthText()};
        }}});
  if (!http.ok()) return http.status();
  http_ = *std::move(http);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetTransportLimits(builder);
  builder.AddListeningPort(options_.listen, std::move(credentials), &grpc_port_);
  service_ = std::make_unique<KvStreamService>(&environment_, tenants_.get());
  builder.RegisterService(service_.get());
  grpc_ = builder.BuildAndStart();
  if (grpc_ == nullptr || grpc_port_ == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on --listen ", options_.listen,
                     "; give a free port and an address of this machine"));
  }
  grpc_->GetHealthCheckService()->SetServingStatus(std::string(v1::KVStream::service_full_name()),
                                                   true);
  grpc_->GetHealthCheckService()->SetServingStatus(kWritesHealth, true);
  {
    absl::MutexLock lock(&mutex_);
    ready_ = true;
  }
  log_->Write(LogLevel::kInfo, "serving",
              {{"version", kServerVersion},
               {"grpc_port", grpc_port_},
               {"http_port", http_->port()},
               {"listen", options_.listen},
               {"http_listen", options_.http_listen},
               {"store", store_->driver()},
               {"tls", !options_.tls_cert.empty()},
               {"tenants", tenants_ != nullptr}});
  return absl::OkStatus();
}

absl::Status KvStreamServer::WritePortsFile() const {
  if (options_.ports_file.empty()) return absl::OkStatus();
  const nlohmann::json ports = {{"grpc", grpc_port_}, {"http", http_->port()}};
  // Renamed into place, so that a reader never sees half of it.
  const std::string temporary = options_.ports_file + ".tmp";
  std::ofstream file(temporary, std::ios::trunc);
  file << ports.dump() << "\n";
  file.close();
  if (!file || std::rename(temporary.c_str(), options_.ports_file.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot write --ports-file ", options_.ports_file,
                                               "; check its directory and permissions"));
  }
  return absl::OkStatus();
}

bool KvStreamServer::ready() const {
  absl::MutexLock lock(&mutex_);
  return ready_;
}

void KvStreamServer::Hurry() {
  absl::MutexLock lock(&mutex_);
  hurried_ = true;
}

bool KvStreamServer::AwaitCalls(absl::Duration timeout) {
  const absl::Duration until = MonotonicNow() + timeout;
  while (true) {
    const absl::Duration left = until - MonotonicNow();
    const absl::Duration step = std::max(absl::ZeroDuration(), std::min(left, kAwaitStep));
    // One after the other is enough: neither admits anything new.
    if (loads_.AwaitNone(step) && puts_.AwaitNone(step)) return true;
    if (left <= absl::ZeroDuration()) return false;
    absl::MutexLock lock(&mutex_);
    if (hurried_) return false;
  }
}

bool KvStreamServer::Stop(absl::Duration drain_timeout) {
  {
    absl::MutexLock lock(&mutex_);
    ready_ = false;
  }
  if (grpc_ != nullptr) grpc_->GetHealthCheckService()->SetServingStatus(false);
  loads_.Close();
  puts_.Close();
  log_->Write(LogLevel::kInfo, "draining",
              {{"loads", loads_.in_flight()}, {"uploads", puts_.in_flight()}});
  const bool drained = AwaitCalls(drain_timeout);
  if (!drained) {
    log_->Write(LogLevel::kWarn, "ending calls in flight",
                {{"loads", loads_.in_flight()}, {"uploads", puts_.in_flight()}});
    loads_.AbortAll();
    puts_.AbortAll();
  }
  TearDown();
  log_->Write(LogLevel::kInfo, "stopped", {{"drained", drained}});
  return drained;
}

void KvStreamServer::TearDown() {
  requests_.Close();
  if (grpc_ != nullptr) {
    // Whatever is still there after the grace is cancelled by gRPC.
    grpc_->Shutdown(absl::ToChronoTime(absl::Now() + kEndGrace));
    grpc_->Wait();
    grpc_.reset();
  }
  http_.reset();
  sweeper_.reset();
  // Calls are over, but their last steps may still be queued. Timers queue with the pools and
  // readers with the writers, hence the order.
  timers_->Stop();
  readers_.reset();
  writers_.reset();
  if (!store_->AwaitUnpinned(kUnpinTimeout)) {
    log_->Write(LogLevel::kError, "gRPC holds on to stored bytes; the store is left open", {});
    static_cast<void>(
        store_.release());  // closing it under a reader would be worse than a leak at exit
  }
  store_.reset();
}

void KvStreamServer::StartSweeper() {
  ExpirySweeper::Options sweeper;
  sweeper.interval = options_.expiry_interval;
  sweeper.now = environment_.now;
  sweeper.report = [this, failing = false](const absl::StatusOr<size_t>& expired) mutable {
    if (expired.ok() && *expired > 0) {
      metrics_.CountExpired(*expired);
      log_->Write(LogLevel::kDebug, "chunks expired", {{"chunks", *expired}});
    }
    // Once, not at every look. A disk that is behind for a moment is none of the operator's.
    const bool fails = !expired.ok() && !absl::IsUnavailable(expired.status());
    if (fails && !failing) {
      log_->Write(LogLevel::kWarn, "chunks cannot expire; tried again",
                  {{"error", expired.status().ToString()}});
    }
    failing = fails;
    WatchWrites();
  };
  sweeper_ = std::make_unique<ExpirySweeper>(store_.get(), std::move(sweeper));
}

void KvStreamServer::WatchWrites() {
  const absl::StatusOr<StoreStats> stats = store_->Stats();
  if (!stats.ok()) return;
  {
    absl::MutexLock lock(&mutex_);
    // Once it drains, nothing is served, and gRPC's server goes.
    if (!ready_ || stats->writes == writes_) return;
    writes_ = stats->writes;
    grpc_->GetHealthCheckService()->SetServingStatus(kWritesHealth,
                                                     stats->writes == WriteState::kTaken);
  }
  switch (stats->writes) {
    case WriteState::kTaken:
      log_->Write(LogLevel::kInfo, "the store takes writes again", {});
      break;
    case WriteState::kRefused:
      log_->Write(LogLevel::kError, "the store takes no writes; tried again", {});
      break;
    case WriteState::kRefusedForGood:
      log_->Write(LogLevel::kError, "the store takes no writes until kvstreamd is restarted", {});
      if (restart_needed_) restart_needed_();
      break;
  }
}

void KvStreamServer::DeleteLater(ChunkStore* store, ChunkLeases* leases, std::vector<ChunkId> ids) {
  writers_->Submit([this, store, leases, ids = std::move(ids)] {
    const absl::StatusOr<size_t> deleted = store->Delete(ids);
    leases->EndDelete(ids);
    if (!deleted.ok()) {
      log_->Write(LogLevel::kError, "deferred deletion failed; the chunks are still stored",
                  {{"chunks", ids.size()}, {"error", deleted.status().ToString()}});
    }
  });
}

std::string KvStreamServer::MetricsText() {
  GaugeValues gauges;
  gauges.loads_in_flight = loads_.in_flight();
  gauges.puts_in_flight = puts_.in_flight();
  gauges.in_flight_bytes = link_groups_.in_flight_bytes();
  gauges.links = link_groups_.links();
  gauges.put_buffer_bytes = upload_bytes_.used();
  // A store that does not answer must not take the other figures along: a scrape waits some 10 s.
  const CallDeadline soon(absl::Now() + kMetricsTimeout);
  const absl::StatusOr<StoreStats> stats = store_->Stats();
  if (stats.ok()) {
    gauges.store_chunks = stats->chunks;
    gauges.store_payload_bytes = stats->payload_bytes;
    gauges.store_disk_bytes = stats->disk_bytes;
    gauges.store_pins = stats->pins;
    gauges.store_pinned_bytes = stats->pinned_bytes;
    gauges.store_writable = stats->writes == WriteState::kTaken;
    gauges.store_restart_needed = stats->writes == WriteState::kRefusedForGood;
    gauges.store_damaged_files = stats->damaged_files;
    gauges.store_capacity_bytes = stats->capacity_bytes;
    gauges.evicted_segments = stats->evicted_segments;
    gauges.evicted_bytes = stats->evicted_bytes;
    gauges.evicted_chunks = stats->evicted_chunks;
  }
  if (tenants_ != nullptr) gauges.tenants = tenants_->FiguresOfAll();
  metrics_.SetGauges(gauges);
  return metrics_.Text();
}

std::string KvStreamServer::HealthText() const {
  const bool is_ready = ready();
  WriteState writes = WriteState::kTaken;
  {
    absl::MutexLock lock(&mutex_);
    writes = writes_;
  }
  const nlohmann::json health = {
      {"role", "kvstreamd"},
      {"version", std::string(kServerVersion)},
      {"ready", is_ready},
      {"status", is_ready ? "serving" : "draining"},
      {"store", std::string(store_->driver())},
      {"writable", writes == WriteState::kTaken},
      {"restart_needed", writes == WriteState::kRefusedForGood},
      {"uptime_seconds", absl::ToDoubleSeconds(absl::Now() - environment_.started)},
      {"loads_in_flight", loads_.in_flight()},
      {"puts_in_flight", puts_.in_flight()}};
  return health.dump() + "\n";
}

}  // namespace kvstream

// The daemon without its main(): the service on a gRPC port, health, reflection, and metrics on an
// HTTP port.
#ifndef KVSTREAM_SERVER_SERVICE_KVSTREAM_SERVER_H_
#define KVSTREAM_SERVER_SERVICE_KVSTREAM_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/load/link_groups.h"
#include "server/load/link_record.h"
#include "server/service/expiry_sweeper.h"
#include "server/service/http_server.h"
#include "server/service/kvstream_service.h"
#include "server/service/load_admission.h"
#include "server/service/log.h"
#include "server/service/measured_store.h"
#include "server/service/options.h"
#include "server/service/rpc_environment.h"
#include "server/service/server_credentials.h"
#include "server/service/tenants.h"

namespace kvstream {

// Thread-safe. Serves from Create() to Stop(), which must have been called before it is destroyed.
class KvStreamServer {
 public:
  // What differs between the daemon and tests.
  struct Parts {
    std::unique_ptr<ChunkStore> store;
    ProfileParser parse_profile;
    LoadSessionFactory create_session;
    std::unique_ptr<Log> log;
    // As RpcEnvironment::now, also for what has expired.
    std::function<absl::Time()> now = absl::Now;
    // Told once, on a thread of the server, that the store takes no writes any more until the
    // process is restarted. It must not call the server. May be null.
    std::function<void()> restart_needed;
  };

  // `options` are valid. UNAVAILABLE if a port cannot be listened on or the ports file cannot be
  // written; NOT_FOUND or INVALID_ARGUMENT for the files of TLS and tenants; FAILED_PRECONDITION if
  // there is no tenants file but the store has tenants' chunks, which everybody could then reach.
  // The message says what to do.
  static absl::StatusOr<std::unique_ptr<KvStreamServer>> Create(const ServerOptions& options,
                                                                Parts parts);
  ~KvStreamServer();
  KvStreamServer(const KvStreamServer&) = delete;
  KvStreamServer& operator=(const KvStreamServer&) = delete;

  // Reads the files of tenants and of TLS again, as at SIGHUP: from now on calls are whose the new
  // files say, and connections that begin get the new certificates within two seconds. Calls and
  // connections that are there go on. All of it or, with the error of the file that is wrong,
  // nothing: the old ones stay. UNAVAILABLE where there is no memory for certificates; then the
  // tenants are new already. Logged and counted. Whether there are tenants, TLS and client
  // certificates is settled at the start. One call at a time; not for signal handlers.
  absl::Status Reload();

  int grpc_port() const { return grpc_port_; }
  int http_port() const { return http_->port(); }

  // Ends the service and returns whether all calls ended by themselves. Health turns to NOT_SERVING
  // and new loads and uploads are refused at once; those in flight get `drain_timeout`, or less
  // once Hurry() is called, and are then ended with UNAVAILABLE. Blocks until nothing of the server
  // runs any more and the store is closed. Once.
  bool Stop(absl::Duration drain_timeout);

  // Ends the patience of a Stop() that is running or comes later. Not for signal handlers.
  void Hurry();

  // True from Create() to the beginning of Stop().
  bool ready() const;

  // For tests.
  const RpcEnvironment& environment() const { return environment_; }
  std::string MetricsText();
  std::string HealthText() const;

 private:
  // Networks of clients whose links are remembered.
  static constexpr size_t kNetworksMax = 4096;

  KvStreamServer(const ServerOptions& options, Parts parts);

  absl::Status OpenTenants();
  // The tenants file, which must go with the options.
  absl::StatusOr<std::vector<TenantEntry>> ReadTenants() const;
  absl::Status ReloadFiles();
  absl::Status Listen();
  void WarnOfPlainTokens(const std::vector<TenantEntry>& entries) const;
  // Joins every thread and closes the store; no call may be admitted any more.
  void TearDown();
  absl::Status WritePortsFile() const;
  // Deletes chunks whose last load has ended.
  void DeleteLater(ChunkStore* store, ChunkLeases* leases, std::vector<ChunkId> ids);
  void StartSweeper();
  // Tells health, the log and Parts::restart_needed whether the store takes writes.
  void WatchWrites();
  // False at the timeout or when hurried.
  bool AwaitCalls(absl::Duration timeout);

  const ServerOptions options_;
  const std::unique_ptr<Log> log_;
  Metrics metrics_;
  std::unique_ptr<MeasuredStore> store_;
  ProfileCache profiles_;
  CallTracker loads_;
  CallTracker puts_;
  CallTracker requests_;
  Budget load_chunks_;
  Budget upload_bytes_;
  LinkRecord links_{kNetworksMax};
  LinkGroups link_groups_;
  LoadAdmission admission_;
  std::unique_ptr<TimerQueue> timers_;
  std::unique_ptr<WorkerPool> writers_;
  ChunkLeases leases_;
  std::unique_ptr<WorkerPool> readers_;
  std::unique_ptr<ExpirySweeper> sweeper_;
  RpcEnvironment environment_;
  const ProfileParser parse_profile_;
  const std::function<void()> restart_needed_;
  std::unique_ptr<Tenants> tenants_;     // null: there are none
  std::unique_ptr<TlsCredentials> tls_;  // null: there is none
  std::unique_ptr<KvStreamService> service_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<HttpServer> http_;
  int grpc_port_ = 0;

  mutable absl::Mutex mutex_;
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
  bool hurried_ ABSL_GUARDED_BY(mutex_) = false;
  WriteState writes_ ABSL_GUARDED_BY(mutex_) = WriteState::kTaken;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_KVSTREAM_SERVER_H_

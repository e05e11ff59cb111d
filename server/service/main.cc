// kvstreamd: reads its options, serves until SIGTERM or SIGINT, drains, exits. A second signal ends
// the draining. SIGHUP: reads the files of tenants and TLS again. Exit status: 0 after a clean
// drain (or --help and the like), 1 if it could not start, 2 for wrong options, 3 if calls had to
// be cut off, 4 if it stopped because only a restart lets its store take writes again.
#include <grpc/support/log.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/load/load_session.h"
#include "server/service/codec_profile_gate.h"
#include "server/service/kvstream_server.h"
#include "server/service/log.h"
#include "server/service/open_store.h"
#include "server/service/options_sources.h"

namespace kvstream {
namespace {

enum ExitStatus { kClean = 0, kStartFailed = 1, kWrongOptions = 2, kCutOff = 3, kReadOnly = 4 };

int Complain(const absl::Status& status, ExitStatus exit_status) {
  std::fprintf(stderr, "kvstreamd: %s\n", std::string(status.message()).c_str());
  return exit_status;
}

// Blocked in every thread, so that only sigwait sees them; before any thread exists.
struct Signals {
  sigset_t stop;  // SIGTERM, SIGINT
  sigset_t all;   // and SIGHUP
};
Signals BlockSignals() {
  Signals signals;
  sigemptyset(&signals.stop);
  sigaddset(&signals.stop, SIGTERM);
  sigaddset(&signals.stop, SIGINT);
  signals.all = signals.stop;
  sigaddset(&signals.all, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals.all, nullptr);
  return signals;
}

void ServeUntilStopped(const Signals& signals, KvStreamServer* server) {
  int signal = SIGHUP;
  while (sigwait(&signals.all, &signal) == 0 && signal == SIGHUP) {
    server->Reload().IgnoreError();  // it says so itself
  }
}

// Waits for a second signal beside a server that stops.
class SecondSignal {
 public:
  SecondSignal(const sigset_t& signals, KvStreamServer* server)
      : thread_([this, signals, server] {
          const timespec step = {0, 50 * 1000 * 1000};
          while (!done_.load()) {
            if (sigtimedwait(&signals, nullptr, &step) > 0) server->Hurry();
          }
        }) {}
  ~SecondSignal() {
    done_.store(true);
    thread_.join();
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

int Main(const std::vector<std::string>& arguments) {
  // Segments come and go by the megabyte in the block cache; giving the memory of each back to the
  // system costs a page fault per 4 KiB of the next.
  mallopt(M_MMAP_THRESHOLD, 256 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#ifdef NDEBUG
  // Debian's Abseil keeps a graph of all lock orders, at each lock, which tests use and daemons
  // pay.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  const Signals signals = BlockSignals();
  // gRPC's own lines would come beside the structured ones; what matters of them comes back as
  // statuses.
  gpr_set_log_function([](gpr_log_func_args*) {});
  const absl::StatusOr<CommandLine> line = ReadOptions(arguments, ProcessEnvironment());
  if (!line.ok()) return Complain(line.status(), kWrongOptions);
  if (line->text.has_value()) {
    std::fputs(line->text->c_str(), stdout);
    return kClean;
  }
  const ServerOptions& options = line->options;
  if (!options.restore_from.empty()) {
    const absl::StatusOr<std::string> restored = RestoreFromBackup(options);
    if (!restored.ok()) return Complain(restored.status(), kStartFailed);
    std::fputs(restored->c_str(), stdout);
    return kClean;
  }
  if (!options.salvage_from.empty()) {
    const absl::StatusOr<std::string> salvaged = SalvageFromDamaged(
        options, [](const auto& line) { std::fprintf(stderr, "%s\n", std::string(line).c_str()); });
    if (!salvaged.ok()) return Complain(salvaged.status(), kStartFailed);
    std::fputs(salvaged->c_str(), stdout);
    return kClean;
  }
  KvStreamServer::Parts parts;
  parts.log = std::make_unique<Log>(options.log_level, options.log_format);
  absl::StatusOr<std::unique_ptr<ChunkStore>> store =
      OpenStore(options, [&parts](const absl::Status& error) {
        parts.log->Write(LogLevel::kError, "no tier: every segment comes from Ceph",
                         {{"error", error.ToString()}});
      });
  if (!store.ok()) return Complain(store.status(), kStartFailed);
  parts.store = *std::move(store);
  parts.parse_profile = CodecProfileParser();
  parts.create_session = &LoadSession::Create;
  std::atomic<bool> read_only{false};
  if (options.exit_when_read_only) {
    parts.restart_needed = [&read_only] {
      read_only.store(true);
      kill(getpid(), SIGTERM);  // blocked everywhere: ServeUntilStopped gets it
    };
  }
  absl::StatusOr<std::unique_ptr<KvStreamServer>> server =
      KvStreamServer::Create(options, std::move(parts));
  if (!server.ok()) return Complain(server.status(), kStartFailed);

  ServeUntilStopped(signals, server->get());
  const SecondSignal second(signals.stop, server->get());
  const bool drained = (*server)->Stop(options.drain_timeout);
  if (read_only.load()) return kReadOnly;
  return drained ? kClean : kCutOff;
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  return kvstream::Main(std::vector<std::string>(argv + 1, argv + argc));
}

// What TLS and tenants cost: loads from a server in a process of its own, in the clear, with TLS
// and with client certificates, one after the other, so that each is compared with its neighbours
// of the same minute.
//
//   bazel run -c opt //tests/tenants:tls_benchmark -- [GiB per pass] [rounds]
//
// Prints GB/s, and CPU-seconds per GB of the server and of the client, which parses and copies
// every message, so that the GB/s are below what the client library reaches. Loopback TCP, memory
// store, segments of 1 MiB, one connection.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "server/service/testing/test_server.h"
#include "storage/tenant_view.h"
#include "tests/tenants/tenant_server.h"
#include "tests/tenants/test_certificates.h"

namespace kvstream {
namespace {

constexpr int kChunks = 32;

TestContext Context() {
  TestContext context;
  context.chunks = kChunks;
  context.segment_bytes = {1 << 20, 1 << 20, 1 << 20, 1 << 20};
  return context;
}

struct Mode {
  std::string name;
  ServerOptions server;
  ConnectionSecurity client;
};

// CPU-seconds of a process so far.
double CpuSeconds(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string line;
  std::getline(file, line);
  // Behind the name, which may hold anything: state, then 10 numbers, then user and system ticks.
  const std::vector<std::string> fields = absl::StrSplit(line.substr(line.rfind(')') + 2), ' ');
  double user = 0, system = 0;
  if (fields.size() < 13 || !absl::SimpleAtod(fields[11], &user) ||
      !absl::SimpleAtod(fields[12], &system)) {
    return 0;
  }
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// The child of a fork: serves until it is killed, and says on which port.
[[noreturn]] void Serve(const ServerOptions& options, int report) {
  TestServer server(options);
  server.StoreContext(Context());
  const int port = server.server().grpc_port();
  if (write(report, &port, sizeof(port)) != sizeof(port)) _exit(1);
  while (true) pause();
}

struct Figures {
  double gb_per_second = 0;
  double server_cpu_per_gb = 0;
  double client_cpu_per_gb = 0;
};

// One load after the other; the server's process has loaded once before.
Figures Measure(Caller& caller, pid_t server, double gigabytes) {
  const TestContext context = Context();
  caller.Load(context);
  const double server_before = CpuSeconds(server), client_before = CpuSeconds(getpid());
  const absl::Time begin = absl::Now();
  double bytes = 0;
  while (bytes < gigabytes * 1e9) {
    const TestLoad load = caller.Load(context);
    if (!load.status.ok()) {
      std::fprintf(stderr, "a load failed: %s\n", load.status.error_message().c_str());
      std::exit(1);
    }
    bytes += static_cast<double>(load.bytes);
  }
  Figures figures;
  figures.gb_per_second = bytes / 1e9 / absl::ToDoubleSeconds(absl::Now() - begin);
  figures.server_cpu_per_gb = (CpuSeconds(server) - server_before) / (bytes / 1e9);
  figures.client_cpu_per_gb = (CpuSeconds(getpid()) - client_before) / (bytes / 1e9);
  return figures;
}

// CPU time of this thread.
double ThreadSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void MeasureIds() {
  constexpr int kIds = 1000000;
  ChunkId id = {};
  const double begin = ThreadSeconds();
  for (int i = 0; i < kIds; ++i) id = TenantView::StoredId("team-a", id);
  const double seconds = ThreadSeconds() - begin;
  absl::PrintF("A tenant's id: %.0f ns of CPU each (last byte %d)\n", seconds / kIds * 1e9, id[31]);
}

int Main(double gigabytes, int rounds) {
  TestCertificates certificates;
  const TestCertificates::Pair server = certificates.Sign("server", "IP:127.0.0.1");
  const TestCertificates::Pair client = certificates.Sign("client", "DNS:client");
  std::vector<Mode> modes(3);
  for (Mode& mode : modes) mode.server = TestServer::Options();
  modes[0].name = "in the clear";
  modes[1].name = "TLS";
  modes[1].server.tls_cert = server.certificate;
  modes[1].server.tls_key = server.key;
  modes[1].client.tls_ca_file = certificates.authority();
  modes[2] = modes[1];
  modes[2].name = "TLS, client certificate";
  modes[2].server.tls_client_ca = certificates.authority();
  modes[2].client.tls_cert_file = client.certificate;
  modes[2].client.tls_key_file = client.key;

  // All servers first: a process that speaks gRPC must not fork.
  std::vector<pid_t> servers;
  std::vector<int> ports;
  for (const Mode& mode : modes) {
    int report[2];
    if (pipe(report) != 0) return 1;
    const pid_t pid = fork();
    if (pid < 0) return 1;
    if (pid == 0) Serve(mode.server, report[1]);
    close(report[1]);
    int port = 0;
    if (read(report[0], &port, sizeof(port)) != sizeof(port)) return 1;
    close(report[0]);
    servers.push_back(pid);
    ports.push_back(port);
  }
  absl::PrintF("%-24s %8s %16s %16s\n", "", "GB/s", "server CPU-s/GB", "client CPU-s/GB");
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < modes.size(); ++i) {
      Caller caller(ports[i], modes[i].client);
      const Figures figures = Measure(caller, servers[i], gigabytes);
      absl::PrintF("%-24s %8.2f %16.2f %16.2f\n", modes[i].name, figures.gb_per_second,
                   figures.server_cpu_per_gb, figures.client_cpu_per_gb);
    }
  }
  for (const pid_t pid : servers) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  MeasureIds();
  return 0;
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  double gigabytes = 2;
  int rounds = 3;
  if (argc > 1 && !absl::SimpleAtod(argv[1], &gigabytes)) return 2;
  if (argc > 2 && !absl::SimpleAtoi(argv[2], &rounds)) return 2;
  return kvstream::Main(gigabytes, rounds);
}

#include "tests/bench/store/socket_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "absl/memory/memory.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/monotonic_clock.h"
#include "tests/bench/store/private_network.h"
#include "tests/bench/store/together.h"

namespace kvstream::bench {
namespace {

constexpr int kAhead = 1;  // requests

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool SendAll(int socket, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t sent = send(socket, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    size -= static_cast<size_t>(sent);
  }
  return true;
}

bool ReceiveAll(int socket, char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t got = recv(socket, bytes, size, 0);
    if (got <= 0) return false;
    bytes += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

void Serve(int connection, const std::vector<std::string>& values) {
  uint32_t index = 0;
  while (ReceiveAll(connection, reinterpret_cast<char*>(&index), sizeof(index)) &&
         index < values.size() && SendAll(connection, values[index].data(), values[index].size())) {
  }
  close(connection);
}

bool Ask(int connection, int index) {
  const auto number = static_cast<uint32_t>(index);
  return SendAll(connection, reinterpret_cast<const char*>(&number), sizeof(number));
}

absl::StatusOr<Pass> GetAll(int connection, const ValueSet& values) {
  Pass pass;
  pass.value_seconds.reserve(static_cast<size_t>(values.count()));
  std::string value(values.value_bytes(), '\0');
  const absl::Duration began = MonotonicNow();
  absl::Duration last = began;
  int asked = 0;
  for (int i = 0; i < values.count(); ++i) {
    for (; asked < std::min(values.count(), i + 1 + kAhead); ++asked) {
      if (!Ask(connection, asked)) return absl::UnavailableError("socket: the connection broke");
    }
    if (!ReceiveAll(connection, value.data(), value.size())) {
      return absl::UnavailableError("socket: the connection broke");
    }
    if (!values.Matches(i, value)) {
      return absl::DataLossError(absl::StrCat("socket: value ", i, " is not what was stored"));
    }
    pass.bytes += value.size();
    const absl::Duration now = MonotonicNow();
    pass.value_seconds.push_back(absl::ToDoubleSeconds(now - last));
    last = now;
  }
  pass.ended_at = last;
  pass.seconds = absl::ToDoubleSeconds(last - began);
  return pass;
}

}  // namespace

int ServeValues(const std::vector<std::string>& words) {
  uint64_t kib = 0;
  int count = 0, port = 0;
  if (words.size() != 3 || !absl::SimpleAtoi(words[0], &kib) ||
      !absl::SimpleAtoi(words[1], &count) || !absl::SimpleAtoi(words[2], &port)) {
    return 2;
  }
  std::vector<std::string> values;
  {
    const ValueSet set(BenchProfile(), kib << 10, count);
    for (int i = 0; i < count; ++i) values.push_back(set.Value(i));
  }
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(port);
  if (listener < 0 ||
      bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener, 64) != 0) {
    std::perror("cannot listen");
    return 1;
  }
  while (true) {
    const int connection = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection >= 0) std::thread(Serve, connection, std::cref(values)).detach();
  }
}

absl::StatusOr<std::unique_ptr<SocketPeer>> SocketPeer::Start(const ValueSet& values,
                                                              const std::string& dir) {
  const absl::StatusOr<int> port = FreePort();
  if (!port.ok()) return port.status();
  auto process =
      ChildProcess::Start({"/proc/self/exe", kServeValues, absl::StrCat(values.value_bytes() >> 10),
                           absl::StrCat(values.count()), absl::StrCat(*port)},
                          dir + "/socket.log");
  if (!process.ok()) return process.status();
  auto peer = absl::WrapUnique(new SocketPeer(*std::move(process), *port));
  const absl::Time give_up = absl::Now() + absl::Seconds(120);
  while (peer->process_->Running() && absl::Now() < give_up) {
    if (peer->Connect().ok()) return peer;
    absl::SleepFor(absl::Milliseconds(20));
  }
  return absl::UnavailableError("socket: the server of bare values did not come up");
}

SocketPeer::~SocketPeer() {
  for (const int connection : connections_) close(connection);
  // It has nothing to tidy up.
  (void)process_->Stop();
}

absl::Status SocketPeer::Connect() {
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(port_);
  if (connection >= 0 &&
      connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    const int yes = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    connections_.push_back(connection);
    return absl::OkStatus();
  }
  if (connection >= 0) close(connection);
  return absl::UnavailableError("socket: cannot connect");
}

absl::StatusOr<Pass> SocketPeer::Get(const ValueSet& values, int connections) {
  while (connections_.size() < static_cast<size_t>(connections)) {
    if (absl::Status status = Connect(); !status.ok()) return status;
  }
  const double server_cpu = process_->CpuSeconds();
  const double client_cpu = OwnCpuSeconds();
  absl::StatusOr<Pass> pass = RunTogether(connections, [&](int connection) {
    return GetAll(connections_[static_cast<size_t>(connection)], values);
  });
  if (!pass.ok()) return pass;
  pass->client_cpu_seconds = OwnCpuSeconds() - client_cpu;
  pass->server_cpu_seconds = process_->CpuSeconds() - server_cpu;
  return pass;
}

}  // namespace kvstream::bench

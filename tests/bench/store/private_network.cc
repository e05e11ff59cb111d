#include "tests/bench/store/private_network.h"

#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace kvstream::bench {
namespace {

sockaddr_in Loopback() {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Of the accepted end of a connection over loopback, which is the one that sends values.
std::string CongestionControl() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback();
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  char name[16] = "unknown";
  if (bind(listener, generic, size) == 0 && listen(listener, 1) == 0 &&
      getsockname(listener, generic, &size) == 0 && connect(client, generic, size) == 0) {
    const int accepted = accept(listener, nullptr, nullptr);
    socklen_t length = sizeof(name) - 1;
    getsockopt(accepted, IPPROTO_TCP, TCP_CONGESTION, name, &length);
    close(accepted);
  }
  close(client);
  close(listener);
  return name;
}

bool RaiseLoopback() {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  ifreq request = {};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  const bool raised = ioctl(fd, SIOCSIFFLAGS, &request) == 0;
  close(fd);
  return raised;
}

bool IsName(const std::string& text) {
  return !text.empty() && text.size() < 16 && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_';
  });
}

// By route, since not every kernel lets a namespace have a default of its own.
bool SetCongestionControl(const std::string& name) {
  for (const char* prefix : {"127.0.0.1", "127.0.0.0/8"}) {
    const std::string command =
        absl::StrCat("ip route replace local ", prefix,
                     " dev lo table local proto kernel scope host src 127.0.0.1 congctl ", name);
    if (std::system(command.c_str()) != 0) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::string> EnterPrivateNetwork(const std::string& congestion_control) {
  if (!IsName(congestion_control)) {
    return absl::InvalidArgumentError("congestion control is no name");
  }
  if (unshare(CLONE_NEWNET) != 0) {
    const std::string why = strerror(errno);
    return absl::StrCat("loopback of the machine, congestion control ", CongestionControl(),
                        " (no network namespace: ", why, ")");
  }
  if (!RaiseLoopback()) return absl::UnavailableError("cannot raise lo in a network namespace");
  const bool wanted = SetCongestionControl(congestion_control);
  return absl::StrCat("loopback TCP in a network namespace, congestion control ",
                      CongestionControl(),
                      wanted && CongestionControl() == congestion_control
                          ? ""
                          : absl::StrCat(" (", congestion_control, " is not to be had)"));
}

absl::StatusOr<int> FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::UnavailableError("cannot make a socket");
  sockaddr_in address = Loopback();
  socklen_t size = sizeof(address);
  const bool ok = bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  if (!ok) return absl::UnavailableError("no free port");
  return ntohs(address.sin_port);
}

}  // namespace kvstream::bench

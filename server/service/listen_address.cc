#include "server/service/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/service/options.h"

namespace kvstream {
namespace {

// "[::1]" -> "::1".
std::string WithoutBrackets(const std::string& host) {
  return std::string(absl::StripSuffix(absl::StripPrefix(host, "["), "]"));
}

// 0 or the errno of binding.
int TryBind(const addrinfo& address) {
  const int fd = socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC, address.ai_protocol);
  if (fd < 0) return errno;
  const int on = 1;
  int error = 0;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(fd, address.ai_addr, address.ai_addrlen) != 0 || listen(fd, 1) != 0) {
    error = errno;
  }
  close(fd);
  return error;
}

}  // namespace

absl::Status CheckListenable(absl::string_view option, const std::string& address) {
  std::string host;
  int port = 0;
  const absl::Status split = SplitHostPort(address, host, port);
  if (!split.ok()) return split;
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int resolved =
      getaddrinfo(WithoutBrackets(host).c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (resolved != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--", option, " ", address, ": ",
                                                   gai_strerror(resolved),
                                                   "; give an address of this machine"));
  }
  const int error = TryBind(*found);
  freeaddrinfo(found);
  if (error == 0) return absl::OkStatus();
  const char* advice = error == EADDRINUSE
                           ? "; stop what listens there or give another port, 0 takes a free one"
                       : error == EACCES ? "; give a port from 1024 up"
                                         : "; give an address of this machine";
  return absl::UnavailableError(absl::StrCat("cannot listen on --", option, " ", address, ": ",
                                             std::strerror(error), advice));
}

bool IsLoopback(const std::string& address) {
  std::string host;
  int ignored = 0;
  if (!SplitHostPort(address, host, ignored).ok()) return false;
  host = WithoutBrackets(host);
  return host == "localhost" || host == "::1" || absl::StartsWith(host, "127.");
}

void TouchListener(const std::string& address, int port) {
  std::string host;
  int ignored = 0;
  if (!SplitHostPort(address, host, ignored).ok()) return;
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(WithoutBrackets(host).c_str(), absl::StrCat(port).c_str(), &hints, &found) != 0) {
    return;
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0) {
    static_cast<void>(connect(fd, found->ai_addr, found->ai_addrlen));
    close(fd);
  }
  freeaddrinfo(found);
}

}  // namespace kvstream

#include "client/relay.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/link_model.h"

namespace kvstream {
namespace {

constexpr absl::Duration kDelayMax = absl::Seconds(10);
constexpr int64_t kBytesUnderWayMax = int64_t{1} << 30;
constexpr size_t kReadBytes = 16 << 10;
constexpr int kSocketBufferMin = 64 << 10;
constexpr int kSocketBufferMax = 4 << 20;
constexpr absl::Duration kSocketBufferTime = absl::Milliseconds(5);
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);

// A file descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { Reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  int get() const { return fd_; }
  void Reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

struct Address {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

absl::StatusOr<Address> Resolve(const HostPort& from, bool passive) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(from.host.c_str(), absl::StrCat(from.port).c_str(), &hints, &list);
  if (error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot resolve ", FormatHostPort(from), ": ", gai_strerror(error)));
  }
  Address address;
  std::memcpy(&address.storage, list->ai_addr, list->ai_addrlen);
  address.size = list->ai_addrlen;
  freeaddrinfo(list);
  return address;
}

absl::Duration MonotonicTime() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now);
}

// One of a connection's two sockets.
struct Side {
  Fd fd;
  // Edge-triggered: true until the system says EAGAIN.
  bool readable = false;
  bool writable = false;
  bool read_ended = false;    // end or error seen; nothing more is read
  bool write_failed = false;  // the peer is gone; what is for it is thrown away
  bool end_wanted = false;    // send the end once `out` is empty
  bool end_sent = false;
  bool reset_sent = false;  // over the link, to the other side
  std::deque<std::string> out;
  size_t out_offset = 0;  // into out.front()
  // Bytes read here that were not yet written to the other side.
  int64_t under_way = 0;
};

struct Connection {
  uint64_t id = 0;
  // 0: the client's socket, 1: the target's. Link direction d carries what was read from side d.
  std::array<Side, 2> sides;
  bool connecting = true;
  bool dead = false;
};

class RelayImpl final : public Relay {
 public:
  RelayImpl(Options options, Address target, Fd listener, Fd epoll, Fd timer, Fd stop,
            HostPort address)
      : options_(std::move(options)),
        target_(target),
        address_(std::move(address)),
        links_{LinkModel(options_.trace, options_.delay),
               LinkModel(options_.trace, options_.delay)},
        listener_(std::move(listener)),
        epoll_(std::move(epoll)),
        timer_(std::move(timer)),
        stop_(std::move(stop)) {}

  HostPort address() const override { return address_; }
  absl::Status Run() override;
  void Stop() override {
    const uint64_t one = 1;
    // Cannot fail but by overflow of the counter, which means that it is set already.
    [[maybe_unused]] const ssize_t written = write(stop_.get(), &one, sizeof(one));
  }
  Counts counts() const override { return counts_; }

 private:
  // Tags of epoll events; connections have larger ids.
  enum : uint64_t { kListenerTag = 0, kTimerTag = 1, kStopTag = 2, kFirstConnection = 4 };

  absl::Duration Now() const { return started_ ? MonotonicTime() - epoch_ : absl::ZeroDuration(); }
  void Warn(const std::string& text) const {
    if (options_.warn) options_.warn(text);
  }
  bool Watch(int fd, uint32_t events, uint64_t tag) const {
    epoll_event event = {};
    event.events = events;
    event.data.u64 = tag;
    return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  }
  void WatchListener(bool on) const {
    epoll_event event = {};
    event.events = on ? uint32_t{EPOLLIN} : 0;
    event.data.u64 = kListenerTag;
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &event);
  }
  void SetUp(int fd) const;
  void Accept();
  void Adopt(Fd client);
  void OnSocket(const epoll_event& event);
  void Pump();
  void Deliver(int direction, LinkItem item);
  void Flush(Connection& connection, int side);
  bool ReadFrom(absl::Duration now, Connection& connection, int side);
  void ReadAll(absl::Duration now);
  void Abort(Connection& connection);
  void PeerIsGone(Connection& connection, int side);
  void SetTimer();

  const Options options_;
  const Address target_;
  const HostPort address_;
  std::array<LinkModel, 2> links_;
  Fd listener_;
  Fd epoll_;
  Fd timer_;
  Fd stop_;
  bool started_ = false;
  absl::Duration epoch_;  // monotonic time of the first connection
  absl::Duration accept_again_ =
      absl::InfiniteDuration();  // monotonic; finite while accepting pauses
  uint64_t next_connection_ = kFirstConnection;
  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;
  // Order of reading; rotates so that connections share a direction evenly.
  std::deque<uint64_t> turns_;
  std::array<char, kReadBytes> scratch_;
  Counts counts_;
};

void RelayImpl::SetUp(int fd) const {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const double bytes =
      absl::ToDoubleSeconds(kSocketBufferTime) * options_.trace.max_bytes_per_second();
  const int size =
      static_cast<int>(std::clamp(bytes, double{kSocketBufferMin}, double{kSocketBufferMax}));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

void RelayImpl::Accept() {
  // A bounded number, so that a flood of connections does not starve those that are open.
  for (int i = 0; i < 64; ++i) {
    Fd client(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (client.get() < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        Warn(absl::StrCat("cannot accept a connection: ", std::strerror(errno)));
        WatchListener(false);
        accept_again_ = MonotonicTime() + kAcceptPause;
      }
      return;
    }
    if (connections_.size() >= static_cast<size_t>(options_.connections_max)) {
      Warn(absl::StrCat("refused a connection: ", options_.connections_max, " are open"));
      continue;
    }
    Adopt(std::move(client));
  }
}

void RelayImpl::Adopt(Fd client) {
  if (!started_) {
    started_ = true;
    epoch_ = MonotonicTime();
  }
  auto connection = std::make_unique<Connection>();
  connection->id = next_connection_;
  // Two tags a connection: one for each side.
  next_connection_ += 2;
  ++counts_.connections;
  SetUp(client.get());
  Fd target(socket(target_.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (target.get() >= 0) SetUp(target.get());
  if (target.get() < 0 ||
      (connect(target.get(), target_.get(), target_.size) != 0 && errno != EINPROGRESS)) {
    Warn(absl::StrCat("cannot connect to ", FormatHostPort(options_.target), ": ",
                      std::strerror(errno)));
    return;
  }
  constexpr uint32_t kEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  if (!Watch(client.get(), kEvents, connection->id) ||
      !Watch(target.get(), kEvents, connection->id + 1)) {
    Warn(absl::StrCat("cannot watch a connection: ", std::strerror(errno)));
    return;
  }
  connection->sides[0].fd = std::move(client);
  connection->sides[1].fd = std::move(target);
  turns_.push_back(connection->id);
  connections_.emplace(connection->id, std::move(connection));
}

void RelayImpl::OnSocket(const epoll_event& event) {
  const auto it = connections_.find(event.data.u64 & ~uint64_t{1});
  if (it == connections_.end()) return;
  Connection& connection = *it->second;
  const int side = static_cast<int>(event.data.u64 & 1);
  if (side == 1 && connection.connecting) {
    if ((event.events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return;
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(connection.sides[1].fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      Warn(absl::StrCat("cannot connect to ", FormatHostPort(options_.target), ": ",
                        std::strerror(error)));
      Abort(connection);
      return;
    }
    connection.connecting = false;
  }
  // After the peer's end no read would show its reset.
  if ((event.events & EPOLLERR) != 0 && connection.sides[side].read_ended) {
    PeerIsGone(connection, side);
  }
  // Else an error or hang-up shows itself in the next read and write.
  const bool broken = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
  if (broken || (event.events & (EPOLLIN | EPOLLRDHUP)) != 0)
    connection.sides[side].readable = true;
  if (broken || (event.events & EPOLLOUT) != 0) connection.sides[side].writable = true;
}

// Both ends see a reset. The connection is erased at the end of Pump().
void RelayImpl::Abort(Connection& connection) {
  const linger reset = {1, 0};
  for (Side& side : connection.sides) {
    if (side.fd.get() >= 0) setsockopt(side.fd.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    side.fd.Reset();
    side.out.clear();
  }
  connection.dead = true;
}

// What is still to come for this side's peer is thrown away; that it is gone travels over the link,
// in order behind what it had sent before.
void RelayImpl::PeerIsGone(Connection& connection, int side) {
  Side& gone = connection.sides[side];
  gone.write_failed = true;
  gone.read_ended = true;
  if (std::exchange(gone.reset_sent, true)) return;
  links_[side].Push(Now(), {connection.id, LinkItem::Kind::kReset, ""});
}

void RelayImpl::Deliver(int direction, LinkItem item) {
  const auto it = connections_.find(item.connection);
  if (it == connections_.end() || it->second->dead) return;
  Connection& connection = *it->second;
  Side& to = connection.sides[1 - direction];
  switch (item.kind) {
    case LinkItem::Kind::kReset:
      Abort(connection);
      return;
    case LinkItem::Kind::kEnd:
      to.end_wanted = true;
      break;
    case LinkItem::Kind::kBytes:
      to.out.push_back(std::move(item.bytes));
      break;
  }
  Flush(connection, 1 - direction);
}

// Writes what a side has waiting, as far as its socket takes it.
void RelayImpl::Flush(Connection& connection, int side) {
  Side& to = connection.sides[side];
  Side& from = connection.sides[1 - side];
  if (connection.dead || (side == 1 && connection.connecting)) return;
  while (!to.out.empty() && (to.writable || to.write_failed)) {
    const std::string& front = to.out.front();
    const size_t left = front.size() - to.out_offset;
    ssize_t written = static_cast<ssize_t>(left);
    if (!to.write_failed) {
      written = send(to.fd.get(), front.data() + to.out_offset, left, MSG_NOSIGNAL);
      if (written < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
          to.writable = false;
          return;
        }
        PeerIsGone(connection, side);
        continue;
      }
      (side == 1 ? counts_.bytes_to_target : counts_.bytes_to_client) +=
          static_cast<uint64_t>(written);
    }
    from.under_way -= written;
    to.out_offset += static_cast<size_t>(written);
    if (to.out_offset == front.size()) {
      to.out.pop_front();
      to.out_offset = 0;
    }
  }
  if (to.out.empty() && to.end_wanted && !to.end_sent) {
    to.end_sent = true;
    if (!to.write_failed) shutdown(to.fd.get(), SHUT_WR);
  }
  if (to.end_sent && from.end_sent) connection.dead = true;
}

// One read from one side; false if there was nothing to do.
bool RelayImpl::ReadFrom(absl::Duration now, Connection& connection, int side) {
  Side& from = connection.sides[side];
  if (connection.dead || connection.connecting || from.read_ended || !from.readable) return false;
  LinkModel& link = links_[side];
  const int64_t room =
      std::min({link.Room(now), link.capacity_bytes() - from.under_way, int64_t{kReadBytes}});
  if (room <= 0) return false;
  const ssize_t got = recv(from.fd.get(), scratch_.data(), static_cast<size_t>(room), 0);
  if (got > 0) {
    from.under_way += got;
    link.Push(now, {connection.id, LinkItem::Kind::kBytes,
                    std::string(scratch_.data(), static_cast<size_t>(got))});
    return true;
  }
  if (got < 0 && errno == EINTR) return true;
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    from.readable = false;
    return false;
  }
  if (got < 0) {
    PeerIsGone(connection, side);
    return true;
  }
  from.read_ended = true;
  link.Push(now, {connection.id, LinkItem::Kind::kEnd, ""});
  return true;
}

void RelayImpl::ReadAll(absl::Duration now) {
  bool any = true;
  while (any) {
    any = false;
    for (const uint64_t id : turns_) {
      Connection& connection = *connections_.at(id);
      for (const int side : {0, 1}) any |= ReadFrom(now, connection, side);
    }
    if (turns_.size() > 1) {
      turns_.push_back(turns_.front());
      turns_.pop_front();
    }
  }
}

void RelayImpl::Pump() {
  if (!started_) return;
  const absl::Duration now = Now();
  for (const int direction : {0, 1}) {
    while (absl::optional<LinkItem> item = links_[direction].Pop(now)) {
      Deliver(direction, *std::move(item));
    }
  }
  for (const auto& [id, connection] : connections_) {
    for (const int side : {0, 1}) Flush(*connection, side);
  }
  ReadAll(now);
  const auto is_dead = [this](uint64_t id) { return connections_.at(id)->dead; };
  if (std::any_of(turns_.begin(), turns_.end(), is_dead)) {
    turns_.erase(std::remove_if(turns_.begin(), turns_.end(), is_dead), turns_.end());
    for (auto it = connections_.begin(); it != connections_.end();) {
      it = it->second->dead ? connections_.erase(it) : std::next(it);
    }
  }
}

void RelayImpl::SetTimer() {
  absl::Duration next = accept_again_;
  if (started_) {
    next = std::min({next, epoch_ + links_[0].NextEvent(), epoch_ + links_[1].NextEvent()});
  }
  itimerspec when = {};
  if (next != absl::InfiniteDuration()) {
    // Rounded up; all zero would disarm it.
    when.it_value = absl::ToTimespec(std::max(next, absl::Nanoseconds(1)) + absl::Nanoseconds(1));
  }
  timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

absl::Status RelayImpl::Run() {
  std::array<epoll_event, 256> events;
  while (true) {
    SetTimer();
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    if (count < 0) {
      if (errno == EINTR) continue;
      return absl::ErrnoToStatus(errno, "relay: epoll_wait");
    }
    for (int i = 0; i < count; ++i) {
      uint64_t ignored;
      switch (events[static_cast<size_t>(i)].data.u64) {
        case kStopTag:
          connections_.clear();
          turns_.clear();
          listener_.Reset();
          return absl::OkStatus();
        case kTimerTag:
          // Only to clear it; epoll has said that there is something to read.
          if (read(timer_.get(), &ignored, sizeof(ignored)) < 0) break;
          break;
        case kListenerTag:
          Accept();
          break;
        default:
          OnSocket(events[static_cast<size_t>(i)]);
      }
    }
    if (MonotonicTime() >= accept_again_) {
      accept_again_ = absl::InfiniteDuration();
      WatchListener(true);
    }
    Pump();
  }
}

absl::Status Failed(absl::string_view operation) {
  return absl::ErrnoToStatus(errno, absl::StrCat("relay: ", operation));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Relay>> Relay::Create(Options options) {
  if (options.delay < absl::ZeroDuration() || options.delay > kDelayMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("relay: the delay must be 0 to ", absl::FormatDuration(kDelayMax)));
  }
  if (options.connections_max < 1) {
    return absl::InvalidArgumentError("relay: connections_max must be at least 1");
  }
  if (options.trace.max_bytes_per_second() <= 0) {
    return absl::InvalidArgumentError("relay: the rate must be above 0");
  }
  if (LinkModel(options.trace, options.delay).capacity_bytes() > kBytesUnderWayMax) {
    return absl::InvalidArgumentError(
        "relay: rate times delay exceeds 1 GiB under way; choose a lower rate or delay");
  }
  if (options.target.port == 0) return absl::InvalidArgumentError("relay: the target needs a port");
  absl::StatusOr<Address> target = Resolve(options.target, /*passive=*/false);
  if (!target.ok()) return target.status();
  absl::StatusOr<Address> listen_at = Resolve(options.listen, /*passive=*/true);
  if (!listen_at.ok()) return listen_at.status();

  Fd listener(socket(listen_at->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (listener.get() < 0) return Failed("socket");
  const int on = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(listener.get(), listen_at->get(), listen_at->size) != 0 ||
      listen(listener.get(), 128) != 0) {
    return Failed(absl::StrCat("cannot listen at ", FormatHostPort(options.listen)));
  }
  sockaddr_storage bound = {};
  socklen_t bound_size = sizeof(bound);
  getsockname(listener.get(), reinterpret_cast<sockaddr*>(&bound), &bound_size);
  HostPort address = options.listen;
  address.port =
      ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port
                                        : reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);

  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  Fd timer(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  Fd stop(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (epoll.get() < 0 || timer.get() < 0 || stop.get() < 0) return Failed("cannot set up");
  const std::pair<int, uint64_t> watched[] = {
      {listener.get(), 0}, {timer.get(), 1}, {stop.get(), 2}};
  for (const auto& [fd, tag] : watched) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return Failed("epoll_ctl");
  }
  return std::unique_ptr<Relay>(new RelayImpl(std::move(options), *target, std::move(listener),
                                              std::move(epoll), std::move(timer), std::move(stop),
                                              std::move(address)));
}

}  // namespace kvstream

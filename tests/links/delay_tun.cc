// Delays the packets that go from one network namespace to another, where the kernel has no netem.
//
// delay_tun FROM_NAMESPACE FROM_DEVICE TO_NAMESPACE TO_DEVICE
//
// Makes a TUN device in each of the two namespaces (files of /run/netns, as `ip netns` makes them).
// What is sent into the first leaves the second, in order, after the delay. The way back is not
// here: it goes where the routes say. A delay on one way alone is to both ends the same as half of
// it on each.
//
// Prints "ready" when both devices exist; the caller gives them routes. Reads delays in
// microseconds from stdin, one a line; the newest holds for the packets that come after it, and
// order is kept. Ends with stdin. Holds at most 64 MiB of packets; what comes beyond is dropped, as
// a router would.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kQueuedBytesMax = 64 << 20;
constexpr size_t kPacketBytesMax = 65536;
constexpr int64_t kDelayMaxUs = 10 * 1000 * 1000;

struct Packet {
  Clock::time_point due;
  std::vector<char> bytes;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "delay_tun: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

// A device of that name in that namespace, which this process then stays in.
int OpenTun(const std::string& space, const char* device) {
  const std::string path = "/run/netns/" + space;
  const int netns = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (netns < 0) Die(path);
  if (setns(netns, CLONE_NEWNET) != 0) Die("entering " + space);
  close(netns);
  const int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (tun < 0) Die("/dev/net/tun");
  ifreq request = {};
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  std::strncpy(request.ifr_name, device, IFNAMSIZ - 1);
  if (ioctl(tun, TUNSETIFF, &request) != 0) Die(std::string("making ") + device);
  return tun;
}

class Delayer {
 public:
  Delayer(int from, int to) : from_(from), to_(to) {}

  // Until stdin ends.
  void Run() {
    for (;;) {
      pollfd files[2] = {{from_, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
      const timespec wait = Wait();
      if (ppoll(files, 2, queue_.empty() ? nullptr : &wait, nullptr) < 0 && errno != EINTR) {
        Die("poll");
      }
      if (files[0].revents != 0) Take();
      if (files[1].revents != 0 && !ReadDelay()) return;
      Release();
    }
  }

 private:
  timespec Wait() const {
    if (queue_.empty()) return {0, 0};
    const auto left = std::max(Clock::duration::zero(), queue_.front().due - Clock::now());
    const int64_t ns = std::chrono::duration_cast<std::chrono::nanoseconds>(left).count();
    return {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
  }

  void Take() {
    for (;;) {
      const ssize_t size = read(from_, buffer_.data(), buffer_.size());
      if (size <= 0) return;
      if (queued_bytes_ + static_cast<size_t>(size) > kQueuedBytesMax) continue;
      Packet packet;
      packet.due = Clock::now() + delay_;
      // A shorter delay overtakes nothing.
      if (!queue_.empty()) packet.due = std::max(packet.due, queue_.back().due);
      packet.bytes.assign(buffer_.data(), buffer_.data() + size);
      queued_bytes_ += packet.bytes.size();
      queue_.push_back(std::move(packet));
    }
  }

  void Release() {
    const Clock::time_point now = Clock::now();
    while (!queue_.empty() && queue_.front().due <= now) {
      const std::vector<char>& bytes = queue_.front().bytes;
      // A device that does not take it loses it, as networks do.
      const ssize_t written = write(to_, bytes.data(), bytes.size());
      static_cast<void>(written);
      queued_bytes_ -= bytes.size();
      queue_.pop_front();
    }
  }

  bool ReadDelay() {
    char text[256];
    const ssize_t size = read(STDIN_FILENO, text, sizeof(text));
    if (size <= 0) return false;
    for (ssize_t i = 0; i < size; ++i) {
      if (text[i] != '\n') {
        if (line_.size() < 32) line_ += text[i];
        continue;
      }
      const int64_t us = std::strtoll(line_.c_str(), nullptr, 10);
      delay_ = std::chrono::microseconds(std::clamp<int64_t>(us, 0, kDelayMaxUs));
      line_.clear();
    }
    return true;
  }

  const int from_;
  const int to_;
  Clock::duration delay_ = Clock::duration::zero();
  std::deque<Packet> queue_;
  size_t queued_bytes_ = 0;
  std::vector<char> buffer_ = std::vector<char>(kPacketBytesMax);
  std::string line_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: delay_tun FROM_NAMESPACE FROM_DEVICE TO_NAMESPACE TO_DEVICE\n");
    return 2;
  }
  const int from = OpenTun(argv[1], argv[2]);
  const int to = OpenTun(argv[3], argv[4]);
  std::printf("ready\n");
  std::fflush(stdout);
  Delayer(from, to).Run();
  return 0;
}

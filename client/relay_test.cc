#include "client/relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// A listening socket on a port that the system chose.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = Loopback(0);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd_, 16), 0);
    socklen_t size = sizeof(address);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  int port() const { return port_; }
  int Accept() const { return accept(fd_, nullptr, nullptr); }

 private:
  int fd_;
  int port_;
};

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(port);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

bool SendAll(int fd, const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

// Until the end; *reset tells whether it was an error instead.
std::string ReceiveAll(int fd, bool* reset = nullptr) {
  std::string out;
  char buffer[65536];
  ssize_t n;
  while ((n = recv(fd, buffer, sizeof(buffer), 0)) > 0) out.append(buffer, static_cast<size_t>(n));
  if (reset != nullptr) *reset = n < 0;
  return out;
}

std::string RandomBytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

class RelayTest : public testing::Test {
 protected:
  void Start(int target_port, double bytes_per_second = 250e6,
             absl::Duration delay = absl::Milliseconds(2), int connections_max = 1024) {
    Relay::Options options;
    options.listen = {"127.0.0.1", 0};
    options.target = {"127.0.0.1", target_port};
    options.trace = RateTrace::Constant(bytes_per_second);
    options.delay = delay;
    options.connections_max = connections_max;
    options.warn = [this](const std::string& line) { warnings_.push_back(line); };
    auto relay = Relay::Create(std::move(options));
    ASSERT_TRUE(relay.ok()) << relay.status();
    relay_ = *std::move(relay);
    thread_ = std::thread([this] { status_ = relay_->Run(); });
  }
  void Stop() {
    if (!thread_.joinable()) return;
    relay_->Stop();
    thread_.join();
    EXPECT_TRUE(status_.ok()) << status_;
  }
  void TearDown() override { Stop(); }

  std::unique_ptr<Relay> relay_;
  std::thread thread_;
  absl::Status status_;
  std::vector<std::string> warnings_;  // of the relay's thread until Stop()
};

TEST_F(RelayTest, PassesBytesUnmodifiedBothWaysAtOnce) {
  Listener target;
  Start(target.port());
  const std::string up = RandomBytes(3000001, 1);
  const std::string down = RandomBytes(2000003, 2);
  const int client = Connect(relay_->address().port);
  const int server = target.Accept();
  std::string got_up;
  std::string got_down;
  std::thread threads[] = {
      std::thread([&] { SendAll(client, up), shutdown(client, SHUT_WR); }),
      std::thread([&] { SendAll(server, down), shutdown(server, SHUT_WR); }),
      std::thread([&] { got_up = ReceiveAll(server); }),
      std::thread([&] { got_down = ReceiveAll(client); }),
  };
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(got_up == up);
  EXPECT_TRUE(got_down == down);
  close(client);
  close(server);
  Stop();
  EXPECT_EQ(relay_->counts().connections, 1);
  EXPECT_EQ(relay_->counts().bytes_to_target, up.size());
  EXPECT_EQ(relay_->counts().bytes_to_client, down.size());
}

TEST_F(RelayTest, HalfClosedConnectionsStillCarryTheAnswer) {
  Listener target;
  Start(target.port());
  const int client = Connect(relay_->address().port);
  const int server = target.Accept();
  ASSERT_TRUE(SendAll(client, "question"));
  shutdown(client, SHUT_WR);
  EXPECT_EQ(ReceiveAll(server), "question");
  ASSERT_TRUE(SendAll(server, "answer"));
  close(server);
  EXPECT_EQ(ReceiveAll(client), "answer");
  close(client);
}

TEST_F(RelayTest, ConnectionsDoNotMix) {
  Listener target;
  Start(target.port());
  constexpr int kConnections = 5;
  std::vector<std::thread> threads;
  std::vector<std::string> sent;
  std::vector<std::string> received(kConnections);
  std::vector<int> servers;
  for (int i = 0; i < kConnections; ++i) sent.push_back(RandomBytes(200000 + i, 10 + i));
  for (int i = 0; i < kConnections; ++i) {
    const int client = Connect(relay_->address().port);
    servers.push_back(target.Accept());
    threads.emplace_back([&, i, client] {
      SendAll(client, sent[i]);
      close(client);
    });
  }
  for (int i = 0; i < kConnections; ++i) {
    threads.emplace_back([&, i] { received[i] = ReceiveAll(servers[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kConnections; ++i) {
    EXPECT_TRUE(received[i] == sent[i]) << i;
    close(servers[i]);
  }
}

TEST_F(RelayTest, AReceiverThatReadsNothingStopsTheSender) {
  Listener target;
  Start(target.port());
  const int client = Connect(relay_->address().port);
  const int server = target.Accept();
  // Much more than every buffer in between; the relay must neither grow nor lose a byte.
  const std::string bytes = RandomBytes(60 << 20, 3);
  std::thread sender([&] {
    SendAll(client, bytes);
    close(client);
  });
  // Another connection is served meanwhile.
  const int other_client = Connect(relay_->address().port);
  const int other_server = target.Accept();
  ASSERT_TRUE(SendAll(other_client, "hello"));
  shutdown(other_client, SHUT_WR);
  EXPECT_EQ(ReceiveAll(other_server), "hello");
  EXPECT_TRUE(ReceiveAll(server) == bytes);
  sender.join();
  for (const int fd : {server, other_client, other_server}) close(fd);
}

TEST_F(RelayTest, AnEndpointThatResetsResetsTheOther) {
  Listener target;
  Start(target.port());
  const int client = Connect(relay_->address().port);
  const int server = target.Accept();
  const linger reset = {1, 0};
  setsockopt(server, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  close(server);
  bool was_reset = false;
  EXPECT_EQ(ReceiveAll(client, &was_reset), "");
  EXPECT_TRUE(was_reset);
  close(client);
}

TEST_F(RelayTest, ATargetThatRefusesCostsOnlyThatConnection) {
  Listener target;
  const int port = target.port();
  target.Close();
  Start(port);
  for (int i = 0; i < 3; ++i) {
    const int client = Connect(relay_->address().port);
    EXPECT_EQ(ReceiveAll(client), "");
    close(client);
  }
  Stop();
  ASSERT_EQ(warnings_.size(), 3);
  EXPECT_THAT(warnings_[0], HasSubstr("cannot connect to 127.0.0.1"));
}

TEST_F(RelayTest, MoreConnectionsThanAllowedAreClosed) {
  Listener target;
  Start(target.port(), 250e6, absl::ZeroDuration(), 1);
  const int first = Connect(relay_->address().port);
  const int server = target.Accept();
  const int second = Connect(relay_->address().port);
  EXPECT_EQ(ReceiveAll(second), "");
  ASSERT_TRUE(SendAll(first, "still here"));
  shutdown(first, SHUT_WR);
  EXPECT_EQ(ReceiveAll(server), "still here");
  for (const int fd : {first, second, server}) close(fd);
  Stop();
  ASSERT_EQ(warnings_.size(), 1);
}

TEST_F(RelayTest, StopEndsConnectionsThatAreUnderWay) {
  Listener target;
  Start(target.port(), 1000, absl::Seconds(5));
  const int client = Connect(relay_->address().port);
  const int server = target.Accept();
  ASSERT_TRUE(SendAll(client, "never arrives"));
  Stop();
  EXPECT_EQ(ReceiveAll(server), "");
  close(client);
  close(server);
}

TEST_F(RelayTest, StopBeforeAnyConnectionReturns) {
  Listener target;
  Start(target.port());
  Stop();
}

TEST(RelayOptionsTest, NamesTheOptionThatIsWrong) {
  const auto error = [](void (*change)(Relay::Options&)) {
    Relay::Options options;
    options.listen = {"127.0.0.1", 0};
    options.target = {"127.0.0.1", 1};
    change(options);
    const auto relay = Relay::Create(std::move(options));
    EXPECT_EQ(relay.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(relay.status().message());
  };
  EXPECT_THAT(error([](Relay::Options& o) { o.delay = absl::Seconds(11); }), HasSubstr("delay"));
  EXPECT_THAT(error([](Relay::Options& o) { o.delay = -absl::Seconds(1); }), HasSubstr("delay"));
  EXPECT_THAT(error([](Relay::Options& o) { o.target.port = 0; }), HasSubstr("port"));
  EXPECT_THAT(error([](Relay::Options& o) { o.connections_max = 0; }),
              HasSubstr("connections_max"));
  EXPECT_THAT(error([](Relay::Options& o) {
                o.trace = RateTrace::Constant(125e9);
                o.delay = absl::Seconds(1);
              }),
              HasSubstr("1 GiB under way"));
  EXPECT_THAT(error([](Relay::Options& o) { o.target.host = "no such host"; }),
              HasSubstr("cannot resolve no such host:1"));
}

TEST(RelayOptionsTest, AnAddressInUseIsAnError) {
  Listener taken;
  Relay::Options options;
  options.listen = {"127.0.0.1", taken.port()};
  options.target = {"127.0.0.1", 1};
  const auto relay = Relay::Create(std::move(options));
  EXPECT_FALSE(relay.ok());
  EXPECT_THAT(std::string(relay.status().message()),
              HasSubstr(absl::StrCat("listen at 127.0.0.1:", taken.port())));
}

}  // namespace
}  // namespace kvstream

#include "tests/bench/store/redis_peer.h"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/monotonic_clock.h"
#include "tests/bench/store/private_network.h"
#include "tests/bench/store/together.h"

namespace kvstream::bench {
namespace {

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

Reply NextReply(redisContext* connection) {
  void* reply = nullptr;
  if (redisGetReply(connection, &reply) != REDIS_OK) return nullptr;
  return Reply(static_cast<redisReply*>(reply));
}

absl::StatusOr<Pass> GetAll(redisContext* connection, const ValueSet& values, int depth) {
  Pass pass;
  pass.value_seconds.reserve(static_cast<size_t>(values.count()));
  const absl::Duration began = MonotonicNow();
  absl::Duration last = began;
  int asked = 0;
  for (int i = 0; i < values.count(); ++i) {
    for (; asked < std::min(values.count(), i + depth); ++asked) {
      const ChunkId& id = values.ids()[static_cast<size_t>(asked)];
      redisAppendCommand(connection, "GET %b", id.data(), id.size());
    }
    const Reply reply = NextReply(connection);
    if (reply == nullptr) return absl::UnavailableError("redis: the connection broke");
    if (reply->type != REDIS_REPLY_STRING ||
        !values.Matches(i, absl::string_view(reply->str, reply->len))) {
      return absl::DataLossError(absl::StrCat("redis: value ", i, " is not what was stored"));
    }
    pass.bytes += reply->len;
    const absl::Duration now = MonotonicNow();
    pass.value_seconds.push_back(absl::ToDoubleSeconds(now - last));
    last = now;
  }
  pass.ended_at = last;
  pass.seconds = absl::ToDoubleSeconds(last - began);
  return pass;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedisPeer>> RedisPeer::Start(const std::string& dir) {
  const absl::StatusOr<int> port = FreePort();
  if (!port.ok()) return port.status();
  auto process = ChildProcess::Start(
      {"redis-server", "--bind", "127.0.0.1", "--port", absl::StrCat(*port), "--save", "",
       "--appendonly", "no", "--dir", dir, "--loglevel", "warning"},
      dir + "/redis.log");
  if (!process.ok()) return process.status();
  auto peer = absl::WrapUnique(new RedisPeer(*std::move(process), *port));
  const absl::Time give_up = absl::Now() + absl::Seconds(60);
  while (peer->process_->Running() && absl::Now() < give_up) {
    if (peer->Connect().ok()) return peer;
    absl::SleepFor(absl::Milliseconds(20));
  }
  return absl::UnavailableError("redis-server did not come up (Debian package redis-server)");
}

absl::Status RedisPeer::Connect() {
  redisContext* const connection = redisConnect("127.0.0.1", port_);
  if (connection != nullptr && connection->err == 0) {
    connections_.push_back(connection);
    return absl::OkStatus();
  }
  if (connection != nullptr) redisFree(connection);
  return absl::UnavailableError("redis: cannot connect");
}

RedisPeer::~RedisPeer() {
  for (redisContext* connection : connections_) redisFree(connection);
}

absl::Status RedisPeer::Store(const ValueSet& values) {
  for (int i = 0; i < values.count(); ++i) {
    const ChunkId& id = values.ids()[static_cast<size_t>(i)];
    const std::string value = values.Value(i);
    const Reply reply(static_cast<redisReply*>(redisCommand(
        connections_.front(), "SET %b %b", id.data(), id.size(), value.data(), value.size())));
    if (reply == nullptr || reply->type == REDIS_REPLY_ERROR) {
      return absl::UnavailableError("redis: SET failed");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Pass> RedisPeer::Get(const ValueSet& values, int depth, int connections) {
  while (connections_.size() < static_cast<size_t>(connections)) {
    if (absl::Status status = Connect(); !status.ok()) return status;
  }
  const double server_cpu = process_->CpuSeconds();
  const double client_cpu = OwnCpuSeconds();
  absl::StatusOr<Pass> pass = RunTogether(connections, [&](int connection) {
    return GetAll(connections_[static_cast<size_t>(connection)], values, depth);
  });
  if (!pass.ok()) return pass;
  pass->client_cpu_seconds = OwnCpuSeconds() - client_cpu;
  pass->server_cpu_seconds = process_->CpuSeconds() - server_cpu;
  return pass;
}

}  // namespace kvstream::bench

// Puts that are moved from a daemon that goes to one that serves the same chunks.
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/client.h"
#include "client/testing/scripted_server.h"
#include "client/testing/synthetic_context.h"

namespace kvstream {
namespace {

// What the daemons of one pool share.
struct Pool {
  absl::Mutex mutex;
  std::set<std::string> chunks ABSL_GUARDED_BY(mutex);
  std::set<std::string> profiles ABSL_GUARDED_BY(mutex);
  uint64_t bytes ABSL_GUARDED_BY(mutex) = 0;
  std::vector<int> sent ABSL_GUARDED_BY(mutex);  // chunks of each Put, in their order
};

// A daemon that acknowledges so many Puts and is then gone, amid the next.
void Script(ScriptedServer* server, Pool* pool, int puts) {
  ScriptedService& service = server->service();
  service.put_profile = [pool](grpc::ServerReader<v1::PutProfileRequest>* reader,
                               v1::PutProfileResponse* response) {
    std::string bytes;
    v1::PutProfileRequest request;
    while (reader->Read(&request)) bytes += request.data();
    const auto profile = Profile::Parse(bytes);
    if (!profile.ok()) return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no profile");
    const std::string id((*profile)->id().begin(), (*profile)->id().end());
    absl::MutexLock lock(&pool->mutex);
    response->set_profile_id(id);
    response->set_created(pool->profiles.insert(id).second);
    return grpc::Status::OK;
  };
  service.lookup = [pool](const v1::LookupRequest& request, v1::LookupResponse* response) {
    absl::MutexLock lock(&pool->mutex);
    if (pool->profiles.count(request.profile_id()) == 0) {
      return grpc::Status(grpc::StatusCode::NOT_FOUND, "profile");
    }
    for (const std::string& id : request.chunk_ids()) {
      if (pool->chunks.count(id) == 0) break;
      response->set_matched_chunks(response->matched_chunks() + 1);
    }
    return grpc::Status::OK;
  };
  service.stats = [pool](const v1::StatsRequest&, v1::StatsResponse* response) {
    absl::MutexLock lock(&pool->mutex);
    for (const std::string& id : pool->profiles) response->add_profile_ids(id);
    return grpc::Status::OK;
  };
  const auto left = std::make_shared<int>(puts);
  service.put = [pool, left](grpc::ServerReader<v1::PutRequest>* reader,
                             v1::PutResponse* response) {
    std::vector<std::string> ids;
    uint64_t bytes = 0;
    v1::PutRequest request;
    while (reader->Read(&request)) {
      if (request.has_chunk()) ids.push_back(request.chunk().chunk_id());
      if (request.has_data()) bytes += request.data().data().size();
    }
    if ((*left)-- == 0) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
    absl::MutexLock lock(&pool->mutex);
    pool->sent.push_back(static_cast<int>(ids.size()));
    for (const std::string& id : ids) {
      const bool created = pool->chunks.insert(id).second;
      response->set_chunks_stored(response->chunks_stored() + (created ? 1 : 0));
      response->set_chunks_existing(response->chunks_existing() + (created ? 0 : 1));
    }
    pool->bytes += bytes;
    response->set_bytes_stored(bytes);
    return grpc::Status::OK;
  };
}

TEST(FailoverPutTest, GoesOnFromWhatIsAcknowledgedAndCountsAllOfIt) {
  Pool pool;
  ScriptedServer first, second;
  Script(&first, &pool, /*puts=*/1);
  Script(&second, &pool, /*puts=*/100);
  Client::Options options;
  options.server = absl::StrCat(first.address(), ",", second.address());
  const auto client = *Client::Create(options);
  const SyntheticContext context(16 * 70 + 3);  // 71 chunks, sent 32 at a time
  std::vector<int64_t> progress;
  const auto put = client->Put(context.profile, context.identity, context.tokens, context.kv.view(),
                               [&](int64_t tokens) { progress.push_back(tokens); });
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->chunks_stored, 71);
  EXPECT_EQ(put->chunks_existing, 0);
  absl::MutexLock lock(&pool.mutex);
  EXPECT_EQ(put->bytes_stored, pool.bytes);
  EXPECT_EQ(pool.chunks.size(), 71);
  EXPECT_EQ(pool.sent, (std::vector<int>{32, 32, 7})) << "nothing acknowledged is sent again";
  for (size_t i = 1; i < progress.size(); ++i) EXPECT_GE(progress[i], progress[i - 1]);
  ASSERT_FALSE(progress.empty());
  EXPECT_EQ(progress.back(), static_cast<int64_t>(context.tokens.size()));
}

TEST(FailoverPutTest, WhatWasThereBeforeIsExisting) {
  Pool pool;
  ScriptedServer first, second;
  Script(&first, &pool, /*puts=*/0);
  Script(&second, &pool, /*puts=*/100);
  const SyntheticContext context(16 * 10);
  Client::Options options;
  options.server = second.address();
  ASSERT_TRUE((*Client::Create(options))
                  ->Put(context.profile, context.identity,
                        absl::MakeConstSpan(context.tokens).first(16 * 4),
                        context.kv.view().Slice(0, 16 * 4))
                  .ok());
  options.server = absl::StrCat(first.address(), ",", second.address());
  const auto put = (*Client::Create(options))
                       ->Put(context.profile, context.identity, context.tokens, context.kv.view());
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->chunks_stored, 6);
  EXPECT_EQ(put->chunks_existing, 4);
}

TEST(FailoverPutTest, EndsWhereNobodyIsLeft) {
  Pool pool;
  ScriptedServer first, second;
  Script(&first, &pool, /*puts=*/0);
  Script(&second, &pool, /*puts=*/0);
  Client::Options options;
  options.server = absl::StrCat(first.address(), ",", second.address());
  const SyntheticContext context(16 * 3);
  const auto put = (*Client::Create(options))
                       ->Put(context.profile, context.identity, context.tokens, context.kv.view());
  EXPECT_EQ(put.status().code(), absl::StatusCode::kUnavailable) << put.status();
}

}  // namespace
}  // namespace kvstream

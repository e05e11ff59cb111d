// Tenants with tokens, over loopback: what neighbours must not be able to do to each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/service/ids.h"
#include "storage/tenant_view.h"
#include "tests/tenants/tenant_server.h"

namespace kvstream {
namespace {

constexpr uint64_t kQuota = 100000;

std::string Tenants() {
  return absl::StrCat("tenants:\n  - name: a\n", TokenLine("token-a"), "  - name: b\n",
                      TokenLine("token-b"), "    quota-bytes: ", kQuota, "\n  - name: operator\n",
                      TokenLine("token-admin"), "    admin: true\n  - name: gone\n");
}

ServerOptions Options() {
  ServerOptions options = TestServer::Options();
  options.tenants_file = TestFile("tenants.yaml", Tenants());
  return options;
}

class TenantsTest : public testing::Test {
 protected:
  Caller As(const std::string& token, const std::string& acting_for = "") {
    ConnectionSecurity security;
    security.token = token;
    security.acting_for = acting_for;
    return Caller(server_.server().grpc_port(), security);
  }
  // Everything that the store knows, under the ids that it has there.
  std::vector<ChunkId> StoredIds() {
    std::vector<ChunkId> ids;
    const auto listed = server_.server().environment().store->List(absl::nullopt, 10000);
    EXPECT_TRUE(listed.ok()) << listed.status();
    for (const auto& [id, info] : *listed) ids.push_back(id);
    return ids;
  }
  double Metric(const std::string& sample) {
    return MetricValue(server_.server().MetricsText(), sample);
  }

  TestServer server_{Options()};
  TestContext context_;
};

// Each method once; the code that all of them end with, or a failure.
void ExpectAll(Caller& caller, grpc::StatusCode code, const TestContext& context) {
  v1::LookupResponse lookup;
  v1::DeleteResponse deleted;
  v1::ListResponse list;
  v1::StatsResponse stats;
  std::string bytes;
  EXPECT_EQ(caller.PutProfile(context).error_code(), code);
  EXPECT_EQ(caller.Put(context).error_code(), code);
  EXPECT_EQ(caller.Lookup(context.ids(), context.profile_id(), &lookup).error_code(), code);
  EXPECT_EQ(caller.Load(context).status.error_code(), code);
  EXPECT_EQ(caller.Delete(context.ids(), &deleted).error_code(), code);
  EXPECT_EQ(caller.List(&list).error_code(), code);
  EXPECT_EQ(caller.Stats(&stats).error_code(), code);
  EXPECT_EQ(caller.GetProfile(context.profile_id(), &bytes).error_code(), code);
}

TEST_F(TenantsTest, NobodyIsLetInWithoutAKnownToken) {
  ASSERT_TRUE(As("token-a").Put(context_).ok());
  for (const std::string& token :
       {std::string(), std::string("token"), std::string("token-a2"), std::string(4000, 't')}) {
    Caller nobody = As(token);
    ExpectAll(nobody, grpc::StatusCode::UNAUTHENTICATED, context_);
  }
  EXPECT_EQ(StoredIds().size(), 4);
  EXPECT_GT(Metric("kvstream_rpc_errors_total{code=\"UNAUTHENTICATED\",method=\"Load\"}"), 0);
  // Nothing of the calls that were refused is left behind.
  EXPECT_EQ(Metric("kvstream_loads_in_flight"), 0);
  EXPECT_EQ(Metric("kvstream_puts_in_flight"), 0);
}

TEST_F(TenantsTest, ATenantHasWhatItStored) {
  Caller a = As("token-a");
  v1::PutResponse put;
  ASSERT_TRUE(a.Put(context_, &put).ok());
  EXPECT_EQ(put.chunks_stored(), 4);
  v1::LookupResponse lookup;
  ASSERT_TRUE(a.Lookup(context_.ids(), context_.profile_id(), &lookup).ok());
  EXPECT_EQ(lookup.matched_chunks(), 4);
  const TestLoad load = a.Load(context_);
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.violation, "");
  EXPECT_EQ(load.bytes, context_.bytes_at(2));
  std::string profile;
  ASSERT_TRUE(a.GetProfile(context_.profile_id(), &profile).ok());
  EXPECT_EQ(profile, context_.profile_bytes());

  // Page by page, in whatever order, with the ids and parents that the client knows.
  std::vector<std::string> ids;
  std::string token;
  do {
    v1::ListResponse page;
    ASSERT_TRUE(a.List(&page, token, 3).ok());
    for (const v1::StoredChunk& chunk : page.chunks()) {
      const auto known = context_.ids();
      for (size_t i = 0; i < known.size(); ++i) {
        if (chunk.chunk_id() != IdBytes(known[i])) continue;
        EXPECT_EQ(chunk.parent_id(), i == 0 ? "" : IdBytes(known[i - 1]));
      }
      ids.push_back(chunk.chunk_id());
    }
    token = page.next_page_token();
  } while (!token.empty());
  std::vector<std::string> expected;
  for (const ChunkId& id : context_.ids()) expected.push_back(IdBytes(id));
  std::sort(ids.begin(), ids.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(ids, expected);

  v1::DeleteResponse deleted;
  ASSERT_TRUE(a.Delete(context_.ids(), &deleted).ok());
  EXPECT_EQ(deleted.chunks_deleted(), 4);
  EXPECT_TRUE(StoredIds().empty());
}

TEST_F(TenantsTest, ANeighbourWithAllIdsHasNothing) {
  Caller a = As("token-a"), b = As("token-b");
  ASSERT_TRUE(a.Put(context_).ok());
  std::vector<ChunkId> ids = context_.ids();
  for (const ChunkId& id : context_.ids()) {
    ids.push_back(TenantView::StoredId("a", id));
    ids.push_back(TenantView::StoredId("b", id));
  }
  for (const ChunkId& id : StoredIds()) ids.push_back(id);
  for (const ChunkId& id : ids) {
    v1::LookupResponse lookup;
    ASSERT_TRUE(b.Lookup({id}, context_.profile_id(), &lookup).ok());
    EXPECT_EQ(lookup.matched_chunks(), 0);
    v1::DeleteResponse deleted;
    ASSERT_TRUE(b.Delete({id}, &deleted).ok());
    EXPECT_EQ(deleted.chunks_deleted(), 0);
    v1::LoadStart start;
    start.set_profile_id(IdBytes(context_.profile_id()));
    start.add_chunk_ids(IdBytes(id));
    EXPECT_EQ(RunLoad(b.stub(), start).status.error_code(), grpc::StatusCode::NOT_FOUND);
    v1::ListResponse list;
    ASSERT_TRUE(b.List(&list, IdBytes(id)).ok());
    EXPECT_EQ(list.chunks_size(), 0);
    std::string profile;
    EXPECT_EQ(b.GetProfile(id, &profile).error_code(), grpc::StatusCode::NOT_FOUND);
  }
  std::string profile;
  EXPECT_EQ(b.GetProfile(context_.profile_id(), &profile).error_code(),
            grpc::StatusCode::NOT_FOUND);
  const auto stored_profiles = server_.server().environment().store->ListProfiles();
  ASSERT_TRUE(stored_profiles.ok()) << stored_profiles.status();
  for (const StoredProfileId& id : *stored_profiles) {
    EXPECT_EQ(b.GetProfile(id, &profile).error_code(), grpc::StatusCode::NOT_FOUND);
  }
  v1::ListResponse list;
  ASSERT_TRUE(b.List(&list).ok());
  EXPECT_EQ(list.chunks_size(), 0);
  v1::StatsResponse stats;
  ASSERT_TRUE(b.Stats(&stats).ok());
  EXPECT_EQ(stats.chunks(), 0);
  EXPECT_EQ(stats.payload_bytes(), 0);
  EXPECT_EQ(stats.disk_bytes(), 0);
  EXPECT_EQ(stats.profile_ids_size(), 0);
  EXPECT_EQ(stats.loads_finished() + stats.loads_failed(), 0);
  EXPECT_EQ(stats.tenants_size(), 0);
  // The profile cache does not tell either: with the chunks' profile unknown, Put is refused.
  grpc::ClientContext call;
  v1::PutResponse put;
  auto writer = b.stub().Put(&call, &put);
  writer->Write(TestServer::PutMessages(context_)[0]);
  writer->WritesDone();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::NOT_FOUND);

  const TestLoad load = a.Load(context_);
  EXPECT_TRUE(load.status.ok()) << load.status.error_message();
  EXPECT_EQ(load.bytes, context_.bytes_at(2));
}

TEST_F(TenantsTest, TheSameContextIsStoredForEachAndDeletedForOne) {
  Caller a = As("token-a"), b = As("token-b");
  for (Caller* caller : {&a, &b}) {
    v1::PutProfileResponse profile;
    ASSERT_TRUE(caller->PutProfile(context_, &profile).ok());
    EXPECT_TRUE(profile.created());
    v1::PutResponse put;
    ASSERT_TRUE(caller->Put(context_, &put).ok());
    EXPECT_EQ(put.chunks_stored(), 4);
    ASSERT_TRUE(caller->Put(context_, &put).ok());
    EXPECT_EQ(put.chunks_existing(), 4);
  }
  EXPECT_EQ(StoredIds().size(), 8);
  // While a's load goes on, a deletes: hidden from a, and b notices nothing of either.
  ManualLoad load(a.stub());
  ASSERT_TRUE(load.SendStart(StartOf(context_)));
  ASSERT_TRUE(load.Receive().has_value());
  v1::DeleteResponse deleted;
  ASSERT_TRUE(b.Delete({TenantView::StoredId("a", context_.id(0))}, &deleted).ok());
  EXPECT_EQ(deleted.chunks_deleted(), 0);
  ASSERT_TRUE(a.Delete(context_.ids(), &deleted).ok());
  EXPECT_EQ(deleted.chunks_deleted(), 4);
  v1::LookupResponse lookup;
  ASSERT_TRUE(a.Lookup(context_.ids(), context_.profile_id(), &lookup).ok());
  EXPECT_EQ(lookup.matched_chunks(), 0);
  EXPECT_TRUE(b.Load(context_).status.ok());
  load.Cancel();
  load.Finish();
  EXPECT_TRUE(Eventually([&] { return StoredIds().size() == 4; }));
  EXPECT_TRUE(b.Load(context_).status.ok());
}

TEST_F(TenantsTest, APutBeyondTheQuotaIsRefusedWithItsFigures) {
  Caller b = As("token-b");
  TestContext large = context_;
  large.chunks = 10;
  large.segment_bytes = {3000, 4000, 5000};
  v1::PutResponse put;
  const grpc::Status refused = b.Put(large, &put);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const std::string& part : {std::string("12000 bytes"), std::string("tenant b"),
                                  absl::StrCat("of ", kQuota, " bytes")}) {
    EXPECT_TRUE(absl::StrContains(refused.error_message(), part)) << refused.error_message();
  }
  v1::StatsResponse stats;
  ASSERT_TRUE(b.Stats(&stats).ok());
  EXPECT_EQ(stats.tenant(), "b");
  EXPECT_EQ(stats.tenant_quota_bytes(), kQuota);
  EXPECT_EQ(stats.capacity_bytes(), kQuota);
  EXPECT_EQ(stats.chunks(), 8);
  EXPECT_EQ(stats.payload_bytes(), 96000);
  EXPECT_EQ(stats.tenant_bytes(), 96000 + large.profile_bytes().size());
  EXPECT_EQ(Metric("kvstream_tenant_bytes{tenant=\"b\"}"), stats.tenant_bytes());
  EXPECT_EQ(Metric("kvstream_tenant_quota_bytes{tenant=\"b\"}"), kQuota);
  EXPECT_EQ(Metric("kvstream_tenant_chunks{tenant=\"b\"}"), 8);
  EXPECT_EQ(Metric("kvstream_tenant_quota_refusals_total{tenant=\"b\"}"), 1);
  EXPECT_EQ(Metric("kvstream_tenant_quota_refusals_total{tenant=\"b\"}"), 1);
  // Others have room, and so has b once it has deleted.
  ASSERT_TRUE(As("token-a").Put(large).ok());
  v1::DeleteResponse deleted;
  ASSERT_TRUE(b.Delete({large.id(6), large.id(7)}, &deleted).ok());
  EXPECT_EQ(deleted.chunks_deleted(), 2);
  TestContext small = context_;
  small.name = 'y';
  EXPECT_EQ(b.PutProfile(small).error_code(), grpc::StatusCode::OK);
}

TEST_F(TenantsTest, PinsAreOfTheTenant) {
  Caller a = As("token-a"), b = As("token-b");
  ASSERT_TRUE(a.Put(context_).ok());
  v1::PinRequest pin;
  for (const ChunkId& id : context_.ids()) pin.add_chunk_ids(IdBytes(id));
  for (const ChunkId& id : StoredIds()) pin.add_chunk_ids(IdBytes(id));
  pin.set_owner("somebody");
  pin.mutable_ttl()->set_seconds(600);
  v1::UnpinRequest unpin;
  *unpin.mutable_chunk_ids() = pin.chunk_ids();
  unpin.set_all_owners(true);
  for (const bool own : {false, true}) {
    Caller& caller = own ? a : b;
    grpc::ClientContext pinning, listing;
    v1::PinResponse pinned;
    ASSERT_TRUE(caller.stub().Pin(&pinning, pin, &pinned).ok());
    EXPECT_EQ(pinned.chunks(), own ? 4 : 0);
    v1::ListPinsResponse pins;
    ASSERT_TRUE(caller.stub().ListPins(&listing, v1::ListPinsRequest(), &pins).ok());
    EXPECT_EQ(pins.pins_size(), own ? 4 : 0);
  }
  grpc::ClientContext unpinning, listing;
  v1::UnpinResponse unpinned;
  ASSERT_TRUE(b.stub().Unpin(&unpinning, unpin, &unpinned).ok());
  EXPECT_EQ(unpinned.pins(), 0);
  v1::ListPinsResponse pins;
  ASSERT_TRUE(As("token-admin", "a").stub().ListPins(&listing, v1::ListPinsRequest(), &pins).ok());
  EXPECT_EQ(pins.pins_size(), 4);
  EXPECT_EQ(pins.pins(0).owner(), "somebody");
}

TEST_F(TenantsTest, ScrubIsAnAdminsAndKnowsEveryTenantsProfiles) {
  Caller a = As("token-a"), admin = As("token-admin");
  ASSERT_TRUE(a.Put(context_).ok());
  ASSERT_TRUE(As("token-b").Put(context_).ok());
  v1::ScrubResponse scrubbed;
  grpc::ClientContext by_a, by_admin, backup;
  EXPECT_EQ(a.stub().Scrub(&by_a, v1::ScrubRequest(), &scrubbed).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  ASSERT_TRUE(admin.stub().Scrub(&by_admin, v1::ScrubRequest(), &scrubbed).ok());
  EXPECT_EQ(scrubbed.chunks(), 8);
  EXPECT_EQ(scrubbed.damage_size(), 0);
  v1::BackupResponse copied;
  v1::BackupRequest request;
  request.set_name("copy");
  EXPECT_EQ(a.stub().Backup(&backup, request, &copied).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(TenantsTest, AnAdminListsAndDeletesForOthers) {
  ASSERT_TRUE(As("token-a").Put(context_).ok());
  ASSERT_TRUE(As("token-b").Put(context_).ok());
  Caller admin = As("token-admin"), for_a = As("token-admin", "a");
  v1::StatsResponse stats;
  ASSERT_TRUE(admin.Stats(&stats).ok());
  EXPECT_EQ(stats.chunks(), 8);
  ASSERT_EQ(stats.tenants_size(), 4);
  EXPECT_EQ(stats.tenants(0).name(), "a");
  EXPECT_EQ(stats.tenants(0).chunks(), 4);
  EXPECT_EQ(stats.tenants(1).quota_bytes(), kQuota);
  ASSERT_TRUE(for_a.Stats(&stats).ok());
  EXPECT_EQ(stats.tenant(), "a");
  EXPECT_EQ(stats.chunks(), 4);
  v1::ListResponse list;
  ASSERT_TRUE(admin.List(&list).ok());
  EXPECT_EQ(list.chunks_size(), 0);
  ASSERT_TRUE(for_a.List(&list).ok());
  EXPECT_EQ(list.chunks_size(), 4);
  // Nobody reads or writes in another's name.
  v1::LookupResponse lookup;
  EXPECT_EQ(for_a.Lookup(context_.ids(), context_.profile_id(), &lookup).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(for_a.Load(context_).status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(for_a.PutProfile(context_).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  v1::DeleteResponse deleted;
  ASSERT_TRUE(for_a.Delete(context_.ids(), &deleted).ok());
  EXPECT_EQ(deleted.chunks_deleted(), 4);
  EXPECT_TRUE(As("token-b").Load(context_).status.ok());
  // Only an admin acts for another, and only for one that there is.
  for (const std::string& name : {std::string("b"), std::string("a"), std::string("x")}) {
    Caller curious = As("token-a", name);
    ExpectAll(curious, grpc::StatusCode::PERMISSION_DENIED, context_);
  }
  EXPECT_EQ(As("token-admin", "x").List(&list).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(As("token-admin", "gone").List(&list).ok());
}

}  // namespace
}  // namespace kvstream

// What a store keeps of tenants: the fields of infos, lists by tenant, and what each has.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/conformance/chunk_store_conformance.h"

namespace kvstream {
namespace {

TestChunk OfTenant(const std::string& tenant, uint64_t number) {
  TestChunk chunk = MakeTestChunk(number);
  chunk.info.tenant = tenant;
  chunk.info.outer_id = TestId(number + 1000);
  if (chunk.info.parent.has_value()) chunk.info.outer_parent = TestId(number + 999);
  return chunk;
}

TEST_P(ChunkStoreConformance, KeepsTheFieldsOfTenants) {
  if (target().of_tenant()) return;
  if (target().over_protocol()) return;  // a tenant is who calls
  TestChunk least = MakeTestChunk(1);
  least.info.tenant = "t";
  TestChunk most = OfTenant(std::string(kMaxTenantBytes, '\0'), 2);
  most.info.outer_parent = ChunkId{};
  for (const TestChunk& chunk : {least, most}) EXPECT_TRUE(Put(chunk));
  for (const TestChunk& chunk : {least, most}) ExpectStored(chunk);
  Reopen();
  for (const TestChunk& chunk : {least, most}) ExpectStored(chunk);
}

TEST_P(ChunkStoreConformance, RefusesFieldsOfTenantsThatDoNotFit) {
  if (target().over_protocol()) return;  // a tenant is who calls
  TestChunk bad = OfTenant(std::string(kMaxTenantBytes + 1, 't'), 1);
  EXPECT_TRUE(absl::IsInvalidArgument(store().Put(bad.id, bad.info, bad.views()).status()));
  bad = OfTenant("", 1);
  EXPECT_TRUE(absl::IsInvalidArgument(store().Put(bad.id, bad.info, bad.views()).status()));
  ExpectAbsent(bad);
}

TEST_P(ChunkStoreConformance, ListsAndCountsByTenant) {
  if (target().of_tenant()) return;
  if (target().over_protocol()) return;  // a tenant is who calls
  if (absl::IsUnimplemented(store().GetTenantUse("a").status())) return;
  // One name is the beginning of another.
  const std::vector<std::string> names = {"", "a", "ab", std::string("a\0", 2)};
  std::map<std::string, std::map<ChunkId, TestChunk>> model;
  for (uint64_t number = 0; number < 60; ++number) {
    const std::string& name = names[number * 7 % names.size()];
    const TestChunk chunk = name.empty() ? MakeTestChunk(number) : OfTenant(name, number);
    EXPECT_TRUE(Put(chunk));
    EXPECT_FALSE(Put(chunk));
    model[name].emplace(chunk.id, chunk);
  }
  const auto expect_agreement = [&] {
    uint64_t of_tenants = 0;
    for (const std::string& name : names) {
      SCOPED_TRACE(absl::StrCat("tenant '", name, "'"));
      for (size_t page : {1, 4, 1000}) {
        absl::optional<ChunkId> after;
        auto expected = model[name].begin();
        while (true) {
          const auto listed = store().ListTenant(name, after, page);
          ASSERT_TRUE(listed.ok()) << listed.status();
          ASSERT_LE(listed->size(), page);
          for (const auto& [id, info] : *listed) {
            ASSERT_TRUE(expected != model[name].end());
            EXPECT_EQ(id, expected->first);
            EXPECT_TRUE(Same(info, expected->second.info));
            ++expected;
          }
          if (listed->empty()) break;
          after = listed->back().first;
        }
        EXPECT_TRUE(expected == model[name].end());
      }
      if (name.empty()) continue;
      uint64_t bytes = 0;
      for (const auto& [id, chunk] : model[name]) bytes += PayloadBytes(chunk.info);
      of_tenants += model[name].size();
      const auto use = store().GetTenantUse(name);
      ASSERT_TRUE(use.ok()) << use.status();
      EXPECT_EQ(use->chunks, model[name].size());
      EXPECT_EQ(use->payload_bytes, bytes);
    }
    const auto stats = store().Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    EXPECT_EQ(stats->tenant_chunks, of_tenants);
  };
  expect_agreement();
  Reopen();
  expect_agreement();

  // Takes levels off some, and deletes some of what is left.
  for (const std::string& name : names) {
    std::vector<ChunkId> trimmed, deleted;
    for (auto& [id, chunk] : model[name]) {
      if (id[0] % 2 == 0) continue;
      trimmed.push_back(id);
      TrimInfo(&chunk.info, 1);
      chunk.segments.resize(1);
    }
    ASSERT_TRUE(store().Trim(trimmed, 1).ok());
    for (const auto& [id, chunk] : model[name]) {
      if (id[1] % 3 == 0) deleted.push_back(id);
    }
    for (const ChunkId& id : deleted) model[name].erase(id);
    EXPECT_EQ(store().Delete(deleted).value_or(99), deleted.size());
  }
  expect_agreement();
  Reopen();
  expect_agreement();

  for (const std::string& name : names) {
    std::vector<ChunkId> ids;
    for (const auto& [id, chunk] : model[name]) ids.push_back(id);
    EXPECT_EQ(store().Delete(ids).value_or(99), ids.size());
    model[name].clear();
  }
  expect_agreement();
  Reopen();
  expect_agreement();
  EXPECT_EQ(store().GetTenantUse(std::string(1000, 'x'))->chunks, 0);
}

TEST_P(ChunkStoreConformance, RestoredLevelsCountForTheirTenant) {
  if (target().of_tenant()) return;
  if (target().over_protocol()) return;  // a tenant is who calls
  if (absl::IsUnimplemented(store().GetTenantUse("a").status())) return;
  TestChunk chunk = OfTenant("a", 1);
  chunk.segments = {TestBytes(1, 100), TestBytes(2, 200)};
  chunk.info.segment_bytes = {100, 200};
  EXPECT_TRUE(Put(chunk));
  EXPECT_EQ(store().Trim({chunk.id}, 1).value_or(0), 1);
  EXPECT_EQ(store().GetTenantUse("a")->payload_bytes, 100);
  EXPECT_TRUE(Put(chunk));
  EXPECT_EQ(store().GetTenantUse("a")->payload_bytes, 300);
  EXPECT_EQ(store().GetTenantUse("a")->chunks, 1);
  ExpectStored(chunk);
}

}  // namespace
}  // namespace kvstream

#include "client/chunk_id.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"

namespace kvstream {
namespace {

std::vector<std::string> Hex(const std::vector<ChunkId>& ids) {
  std::vector<std::string> out;
  for (const ChunkId& id : ids) {
    out.push_back(absl::BytesToHexString(
        absl::string_view(reinterpret_cast<const char*>(id.data()), id.size())));
  }
  return out;
}

ProfileId CountingProfileId() {
  ProfileId id;
  for (size_t i = 0; i < id.size(); ++i) id[i] = static_cast<uint8_t>(i);
  return id;
}

// The expected ids of both golden tests were computed with Python's hashlib and struct from the
// formula in the header.
TEST(ChunkIdTest, GoldenIdsOfAnUnsaltedContextWithAShortLastChunk) {
  ContextIdentity identity;
  identity.model = "toy@1";
  EXPECT_EQ(Hex(ContextChunkIds(identity, CountingProfileId(), 4, {1, 2, 3, 4, 5, -6, 70000})),
            (std::vector<std::string>{
                "24ef2303d0fdd00eb7c823aca245a402139b0207faae6addc3d5c5a9ab92a81b",
                "ec5286807af9d66646db3e31a04193fa873c3110f55472356d97cacc1e16d66c",
            }));
}

TEST(ChunkIdTest, GoldenIdsWithEveryFieldInUse) {
  ContextIdentity identity;
  identity.model = "llama@r2";
  identity.adapter = "lora-7";
  identity.tenant_salt = "acme";
  identity.extra_keys = {"", std::string("img:\x00\xff", 6)};
  EXPECT_EQ(Hex(ContextChunkIds(identity, ProfileId{}, 3, {7, 8, 9, 10, 11, 12})),
            (std::vector<std::string>{
                "2e45126f2c8b68ed809778f607a36b1bba98f8ecc4365c525b12fa47256a129e",
                "5312736128dcbc0f2c0df9afbff151c6b02f83ce13ecaffdd86b9366a3c4e669",
            }));
}

TEST(ChunkIdTest, EqualPrefixesShareIdsUpToTheFirstDifference) {
  const ContextIdentity identity{"m", "", "", {}};
  const auto a = ContextChunkIds(identity, {}, 2, {1, 2, 3, 4, 5, 6, 7, 8});
  const auto b = ContextChunkIds(identity, {}, 2, {1, 2, 3, 4, 5, 9, 7, 8});
  const auto prefix = ContextChunkIds(identity, {}, 2, {1, 2, 3, 4});
  ASSERT_EQ(a.size(), 4);
  ASSERT_EQ(b.size(), 4);
  EXPECT_EQ(a[0], b[0]);
  EXPECT_EQ(a[1], b[1]);
  EXPECT_NE(a[2], b[2]);
  EXPECT_NE(a[3], b[3]) << "the last chunk's tokens are equal, but not what came before";
  EXPECT_EQ(prefix, (std::vector<ChunkId>{a[0], a[1]}));
}

TEST(ChunkIdTest, AShortLastChunkDoesNotShareTheIdOfAFullOne) {
  const ContextIdentity identity{"m", "", "", {}};
  EXPECT_NE(ContextChunkIds(identity, {}, 4, {1, 2, 3, 0}),
            ContextChunkIds(identity, {}, 4, {1, 2, 3}));
}

TEST(ChunkIdTest, EveryFieldChangesEveryId) {
  const ContextIdentity base{"model", "adapter", "salt", {"k0", "k1"}};
  const std::vector<int32_t> tokens = {1, 2, 3, 4};
  const auto reference = ContextChunkIds(base, CountingProfileId(), 2, tokens);
  ASSERT_EQ(reference.size(), 2);
  const auto expect_all_differ = [&](const std::vector<ChunkId>& other, absl::string_view what) {
    ASSERT_EQ(other.size(), 2);
    EXPECT_NE(other[0], reference[0]) << what;
    EXPECT_NE(other[1], reference[1]) << what;
  };
  ContextIdentity changed = base;
  changed.model = "model2";
  expect_all_differ(ContextChunkIds(changed, CountingProfileId(), 2, tokens), "model");
  changed = base;
  changed.adapter = "";
  expect_all_differ(ContextChunkIds(changed, CountingProfileId(), 2, tokens), "adapter");
  changed = base;
  changed.tenant_salt = "other";
  expect_all_differ(ContextChunkIds(changed, CountingProfileId(), 2, tokens), "salt");
  changed = base;
  changed.extra_keys[0] = "x";
  expect_all_differ(ContextChunkIds(changed, CountingProfileId(), 2, tokens), "extra key");
  expect_all_differ(ContextChunkIds(base, ProfileId{}, 2, tokens), "profile");
  expect_all_differ(ContextChunkIds(base, CountingProfileId(), 2, {9, 2, 3, 4}), "tokens");
  // A later extra key leaves the chunks before it alone.
  changed = base;
  changed.extra_keys[1] = "x";
  const auto later = ContextChunkIds(changed, CountingProfileId(), 2, tokens);
  EXPECT_EQ(later[0], reference[0]);
  EXPECT_NE(later[1], reference[1]);
}

TEST(ChunkIdTest, BytesCannotMoveFromOneFieldToTheNext) {
  EXPECT_NE(ContextChunkIds({"ab", "c", "", {}}, {}, 2, {1}),
            ContextChunkIds({"a", "bc", "", {}}, {}, 2, {1}));
  EXPECT_NE(ContextChunkIds({"m", "x", "", {}}, {}, 2, {1}),
            ContextChunkIds({"m", "", "x", {}}, {}, 2, {1}));
}

TEST(ChunkIdTest, NoTokensOrNoChunkSizeGiveNoIds) {
  EXPECT_TRUE(ContextChunkIds({}, {}, 4, {}).empty());
  EXPECT_TRUE(ContextChunkIds({}, {}, 0, {1, 2}).empty());
}

}  // namespace
}  // namespace kvstream

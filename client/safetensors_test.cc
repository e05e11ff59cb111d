#include "client/safetensors.h"

#include <cstdio>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/atomic_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace kvstream {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string TempPath(const std::string& name) {
  return absl::StrCat(testing::TempDir(), "/", name);
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

// A file of this header and data.
std::string Bytes(const std::string& header, size_t data_bytes) {
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(uint64_t{header.size()} >> (8 * i));
  return out + header + std::string(data_bytes, 'd');
}

std::string ErrorOf(const std::string& file) {
  const auto header = ParseSafetensorsHeader(file);
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument) << file;
  return std::string(header.status().message());
}

const char kGood[] =
    R"({"__metadata__":{"format":"kv"},"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},)"
    R"("b":{"dtype":"I64","shape":[],"data_offsets":[12,20]},)"
    R"("empty":{"dtype":"U8","shape":[0,9],"data_offsets":[5,5]}})";

TEST(SafetensorsTest, ParsesTensorsAndMetadata) {
  const auto header = ParseSafetensorsHeader(Bytes(kGood, 20));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->metadata.at("format"), "kv");
  const TensorEntry& a = header->tensors.at("a");
  EXPECT_EQ(a.dtype, TensorDtype::kF16);
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_EQ(a.offset, 8 + sizeof(kGood) - 1);
  EXPECT_EQ(a.size_bytes, 12);
  EXPECT_EQ(header->tensors.at("b").size_bytes, 8);
  EXPECT_EQ(header->tensors.at("empty").size_bytes, 0);
}

TEST(SafetensorsTest, RejectsTruncatedFiles) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("only 0 bytes"));
  EXPECT_THAT(ErrorOf("1234567"), HasSubstr("only 7 bytes"));
  const std::string whole = Bytes(kGood, 20);
  for (size_t size = 0; size < whole.size(); ++size) ErrorOf(whole.substr(0, size));
  EXPECT_THAT(ErrorOf(whole.substr(0, whole.size() - 1)), HasSubstr("tensor \"b\""));
}

TEST(SafetensorsTest, RejectsHostileHeaderLengths) {
  for (const uint64_t length :
       {uint64_t{1} << 20, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::string file = Bytes(kGood, 20);
    for (int i = 0; i < 8; ++i) file[i] = static_cast<char>(length >> (8 * i));
    EXPECT_THAT(ErrorOf(file), HasSubstr(absl::StrCat("length of ", length)));
  }
  EXPECT_THAT(ErrorOf(Bytes(std::string(5 << 20, ' '), 0)), HasSubstr("exceeds 4194304"));
}

TEST(SafetensorsTest, NamesTheTensorThatIsWrong) {
  const auto error = [](const std::string& entry) {
    return ErrorOf(Bytes(absl::StrCat("{\"t\":", entry, "}"), 64));
  };
  EXPECT_THAT(error("7"), HasSubstr("tensor \"t\": its entry is not an object"));
  EXPECT_THAT(error("{}"), HasSubstr("tensor \"t\": has no dtype"));
  EXPECT_THAT(error(R"({"dtype":"F17","shape":[1],"data_offsets":[0,2]})"),
              HasSubstr("unknown dtype \"F17\""));
  EXPECT_THAT(error(R"({"dtype":"F16","data_offsets":[0,2]})"), HasSubstr("has no shape"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[-1],"data_offsets":[0,2]})"),
              HasSubstr("not a list of counts"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[1.0],"data_offsets":[0,2]})"),
              HasSubstr("not a list of counts"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[18446744073709551615],"data_offsets":[0,2]})"),
              HasSubstr("not a list of counts"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[1]})"), HasSubstr("no data_offsets"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[1],"data_offsets":[2]})"),
              HasSubstr("no data_offsets"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[1],"data_offsets":[4,2]})"),
              HasSubstr("lie outside"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[32],"data_offsets":[2,66]})"),
              HasSubstr("lie outside"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[2],"data_offsets":[0,2]})"),
              HasSubstr("not what its shape and dtype need"));
  // 2^62 * 4 elements of 2 bytes overflow to 0 and to small numbers.
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[4611686018427387904,4],"data_offsets":[0,0]})"),
              HasSubstr("not what its shape and dtype need"));
  EXPECT_THAT(error(R"({"dtype":"F16","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],
                       "data_offsets":[0,2]})"),
              HasSubstr("at most 16 dimensions"));
}

TEST(SafetensorsTest, RejectsOverlapDuplicatesAndForeignStructure) {
  EXPECT_THAT(ErrorOf(Bytes(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                                "b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
                            16)),
              HasSubstr("tensor \"b\": overlaps tensor \"a\""));
  EXPECT_THAT(ErrorOf(Bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                                "a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                            16)),
              HasSubstr("tensor \"a\": occurs twice"));
  EXPECT_THAT(ErrorOf(Bytes("[]", 0)), HasSubstr("is not a JSON object"));
  EXPECT_THAT(ErrorOf(Bytes("{", 0)), HasSubstr("is not a JSON object"));
  EXPECT_THAT(ErrorOf(Bytes(R"({"__metadata__":[]})", 0)), HasSubstr("__metadata__"));
  EXPECT_THAT(ErrorOf(Bytes(R"({"__metadata__":{"a":1}})", 0)), HasSubstr("__metadata__"));
  EXPECT_THAT(ErrorOf(Bytes("{\"a\":" + std::string(1 << 20, '['), 0)), HasSubstr("too deep"));
  EXPECT_THAT(ErrorOf(Bytes("{\"\\u0007bell\":{}}", 0)), HasSubstr("tensor \"?bell\""));
}

TEST(SafetensorsTest, WritesWhatItReads) {
  const std::string path = TempPath("round.safetensors");
  const std::string data = "0123456789ab";
  const absl::Status written = WriteSafetensors(
      path,
      {{"z", TensorDtype::kI32, {3}, {data}},
       {"a", TensorDtype::kF16, {1, 2}, {absl::string_view("xy"), absl::string_view("zw")}}},
      {{"model", "m"}});
  ASSERT_TRUE(written.ok()) << written;
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->header().metadata.at("model"), "m");
  ASSERT_NE((*file)->Find("z"), nullptr);
  EXPECT_EQ((*file)->Find("z")->offset % 8, 0);
  EXPECT_EQ((*file)->Bytes(*(*file)->Find("z")), data);
  EXPECT_EQ((*file)->Bytes(*(*file)->Find("a")), "xyzw");
  EXPECT_EQ((*file)->Find("b"), nullptr);
}

TEST(SafetensorsTest, RefusesToWriteInconsistentTensorsAndLeavesNoFile) {
  const std::string path = TempPath("never.safetensors");
  std::remove(path.c_str());
  EXPECT_EQ(WriteSafetensors(path, {{"a", TensorDtype::kF16, {2}, {"abc"}}}, {}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      WriteSafetensors(
          path, {{"a", TensorDtype::kU8, {1}, {"a"}}, {"a", TensorDtype::kU8, {1}, {"b"}}}, {})
          .code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(std::ifstream(path).good());
}

TEST(SafetensorsTest, OpenNamesThePath) {
  EXPECT_EQ(SafetensorsFile::Open(TempPath("absent")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(SafetensorsFile::Open(TempPath("absent")).status().message()),
              HasSubstr("absent"));
  EXPECT_THAT(std::string(SafetensorsFile::Open(testing::TempDir()).status().message()),
              HasSubstr("not a regular file"));
  const std::string path = TempPath("empty.safetensors");
  ASSERT_TRUE(WriteFileAtomically(path, "").ok());
  EXPECT_THAT(std::string(SafetensorsFile::Open(path).status().message()),
              HasSubstr("empty.safetensors: safetensors header: the file has only 0 bytes"));
}

TEST(AtomicFileTest, ShowsTheOldContentUntilCommit) {
  const std::string path = TempPath("atomic");
  ASSERT_TRUE(WriteFileAtomically(path, "old").ok());
  {
    auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Append("new").ok());
    EXPECT_EQ(ReadAll(path), "old");
  }
  EXPECT_EQ(ReadAll(path), "old");
  ASSERT_TRUE(WriteFileAtomically(path, "new").ok());
  EXPECT_EQ(ReadAll(path), "new");
}

TEST(AtomicFileTest, RefusesDevicesAndMissingFolders) {
  EXPECT_EQ(WriteFileAtomically("/dev/null", "x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(WriteFileAtomically(TempPath("no/such/folder"), "x").code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(WriteFileAtomically("", "x").code(), absl::StatusCode::kInvalidArgument);
}

// The fuzz target over a corpus and random damage to it; with --config=fuzz libFuzzer goes on from
// here.
TEST(SafetensorsFuzzTest, SurvivesMutations) {
  constexpr uint32_t kSeed = 20261121;
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  std::mt19937 random(kSeed);
  const std::vector<std::string> corpus = {
      Bytes(kGood, 20), Bytes("{}", 0),
      Bytes(R"({"layers.0.key":{"dtype":"BF16","shape":[1,1,2],"data_offsets":[0,4]}})", 4)};
  const std::string characters = "\"{}[],:-.0123456789eEFBIU\\u\n\x00\xff";
  for (const std::string& seed : corpus) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
    for (int round = 0; round < 20000; ++round) {
      std::string bytes = seed;
      for (int change = random() % 4; change >= 0 && !bytes.empty(); --change) {
        const size_t at = random() % bytes.size();
        switch (random() % 4) {
          case 0:
            bytes[at] = characters[random() % characters.size()];
            break;
          case 1:
            bytes.erase(at, 1 + random() % 8);
            break;
          case 2:
            bytes.insert(at, 1, characters[random() % characters.size()]);
            break;
          default:
            bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
            break;
        }
      }
      // Most changes alter the length; keep the parser behind the length check busy.
      if (random() % 2 == 0 && bytes.size() >= 8) {
        const uint64_t length =
            bytes.size() - 8 - std::min<size_t>(bytes.size() - 8, random() % 24);
        for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
      }
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    }
  }
}

}  // namespace
}  // namespace kvstream

#include "server/service/testing/fake_profile.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace kvstream {
namespace {

constexpr size_t kHeaderBytes = 32;
constexpr size_t kChecksumBytes = 8;

uint64_t Checksum(absl::string_view bytes) {
  uint64_t hash = 1469598103934665603u;
  for (const char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211u;
  return hash;
}

std::string Header(char name, int level, int64_t tokens, int64_t first_position) {
  std::string header = absl::StrFormat("S%c:%d:%d:%d:", name, level, tokens, first_position);
  header.resize(kHeaderBytes, '.');
  return header;
}

class FakeProfile final : public ServiceProfile {
 public:
  FakeProfile(std::string bytes, int levels, int chunk_tokens, char name)
      : bytes_(std::move(bytes)),
        id_(FakeProfileId(bytes_)),
        levels_(levels),
        chunk_tokens_(chunk_tokens),
        name_(name) {}

  const StoredProfileId& id() const override { return id_; }
  int levels() const override { return levels_; }
  int chunk_tokens() const override { return chunk_tokens_; }
  absl::string_view serialized() const override { return bytes_; }

  absl::StatusOr<SegmentHeader> ValidateSegment(absl::string_view segment) const override {
    if (segment.size() < kHeaderBytes + kChecksumBytes) return absl::DataLossError("truncated");
    uint64_t checksum = 0;
    std::memcpy(&checksum, segment.data() + segment.size() - kChecksumBytes, kChecksumBytes);
    if (checksum != Checksum(segment.substr(0, segment.size() - kChecksumBytes))) {
      return absl::DataLossError("checksum");
    }
    const std::vector<std::string> fields = absl::StrSplit(segment.substr(0, kHeaderBytes), ':');
    SegmentHeader header;
    if (fields.size() < 4 || fields[0].size() != 2 || fields[0][0] != 'S' ||
        !absl::SimpleAtoi(fields[1], &header.level) ||
        !absl::SimpleAtoi(fields[2], &header.tokens) ||
        !absl::SimpleAtoi(fields[3], &header.first_position)) {
      return absl::InvalidArgumentError("header");
    }
    if (fields[0][1] != name_) return absl::FailedPreconditionError("another profile");
    return header;
  }

 private:
  const std::string bytes_;
  const StoredProfileId id_;
  const int levels_;
  const int chunk_tokens_;
  const char name_;
};

}  // namespace

std::string FakeProfileBytes(int levels, int chunk_tokens, char name) {
  return absl::StrCat("profile:", levels, ":", chunk_tokens, ":", std::string(1, name));
}

StoredProfileId FakeProfileId(absl::string_view profile_bytes) {
  StoredProfileId id;
  for (size_t i = 0; i < id.size(); i += 8) {
    const uint64_t part = Checksum(absl::StrCat(profile_bytes, i));
    std::memcpy(id.data() + i, &part, 8);
  }
  return id;
}

ProfileParser FakeProfileParser() {
  return [](absl::string_view bytes) -> absl::StatusOr<std::shared_ptr<const ServiceProfile>> {
    // Anything after a '#' is padding, for tests of size.
    const std::string head(bytes.substr(0, bytes.find('#')));
    const std::vector<std::string> fields = absl::StrSplit(head, ':');
    int levels = 0;
    int chunk_tokens = 0;
    if (fields.size() != 4 || fields[0] != "profile" || !absl::SimpleAtoi(fields[1], &levels) ||
        !absl::SimpleAtoi(fields[2], &chunk_tokens) || fields[3].size() != 1) {
      return absl::DataLossError("no profile");
    }
    return std::make_shared<const FakeProfile>(std::string(bytes), levels, chunk_tokens,
                                               fields[3][0]);
  };
}

std::string FakeSegment(char profile_name, int level, int64_t tokens, int64_t first_position,
                        size_t size) {
  std::string segment = Header(profile_name, level, tokens, first_position);
  uint64_t state = Checksum(segment);
  while (segment.size() < size - kChecksumBytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    segment.push_back(static_cast<char>(state >> 56));
  }
  const uint64_t checksum = Checksum(segment);
  segment.append(reinterpret_cast<const char*>(&checksum), kChecksumBytes);
  return segment;
}

std::string SealFakeSegment(char profile_name, int level, int64_t tokens, int64_t first_position,
                            absl::string_view payload) {
  static_assert(kFakeSealBytes == kHeaderBytes + kChecksumBytes, "as the header says");
  std::string segment = Header(profile_name, level, tokens, first_position);
  segment.append(payload.data(), payload.size());
  const uint64_t checksum = Checksum(segment);
  segment.append(reinterpret_cast<const char*>(&checksum), kChecksumBytes);
  return segment;
}

absl::string_view FakePayload(absl::string_view segment) {
  return segment.substr(kHeaderBytes, segment.size() - kHeaderBytes - kChecksumBytes);
}

}  // namespace kvstream

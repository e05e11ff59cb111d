#include "server/service/scrub_rpc.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/service/ids.h"
#include "server/service/tenants.h"

namespace kvstream {
namespace {

constexpr uint64_t kDefaultBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxBytes = uint64_t{256} << 20;
// Chunks of one page, however small: bounds the answer and the time.
constexpr uint64_t kMaxChunks = 4096;
constexpr size_t kBatch = 64;
constexpr size_t kMaxWhatBytes = 300;
// What a page token begins with: an id follows, or a file's name. Files come after all chunks.
constexpr absl::string_view kChunkToken = "c";
constexpr absl::string_view kFileToken = "f";

std::string Printable(absl::string_view text) {
  std::string printable(text.substr(0, kMaxWhatBytes));
  for (char& c : printable) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return printable;
}

class Scrubber {
 public:
  Scrubber(const RpcEnvironment& environment, const v1::ScrubRequest& request,
           v1::ScrubResponse* response)
      : environment_(environment), request_(request), response_(response) {
    const uint64_t asked = request.max_bytes() == 0 ? kDefaultBytes : request.max_bytes();
    bytes_max_ = std::min(asked, kMaxBytes);
  }

  absl::Status Run() {
    absl::string_view token = request_.page_token();
    if (absl::ConsumePrefix(&token, kFileToken)) return Files(std::string(token));
    absl::optional<ChunkId> after;
    if (!token.empty()) {
      if (!absl::ConsumePrefix(&token, kChunkToken) || token.size() != after.emplace().size()) {
        return absl::InvalidArgumentError("page_token is not what a Scrub answered");
      }
      std::copy(token.begin(), token.end(), after->begin());
    }
    return Chunks(after);
  }

 private:
  bool Full() const {
    return response_->bytes() >= bytes_max_ ||
           response_->chunks() + static_cast<uint64_t>(response_->damage_size()) >= kMaxChunks;
  }

  absl::Status Chunks(absl::optional<ChunkId> after) {
    while (true) {
      const absl::StatusOr<ScrubbedInfos> page = environment_.store->ScrubInfos(after, kBatch);
      if (!page.ok()) return page.status();
      // Both in the order of ids, since the page may end anywhere.
      auto chunk = page->chunks.begin();
      auto damaged = page->damaged.begin();
      while (chunk != page->chunks.end() || damaged != page->damaged.end()) {
        const bool is_damaged = chunk == page->chunks.end() ||
                                (damaged != page->damaged.end() && damaged->id < chunk->first);
        const ChunkId id = is_damaged ? damaged->id : chunk->first;
        if (is_damaged) {
          Damaged(id, 0, damaged->why, true);
          ++damaged;
        } else {
          if (absl::Status status = Chunk(id, chunk->second); !status.ok()) return status;
          ++chunk;
        }
        if (!Full()) continue;
        response_->set_next_page_token(absl::StrCat(kChunkToken, IdBytes(id)));
        return absl::OkStatus();
      }
      if (!page->next.has_value()) break;
      after = page->next;
    }
    response_->set_next_page_token(std::string(kFileToken));
    return absl::OkStatus();
  }

  // Only errors that are no damage.
  absl::Status Chunk(const ChunkId& id, const ChunkInfo& info) {
    if (environment_.leases->Hidden(id)) return absl::OkStatus();
    // Against eviction; deletion is noticed.
    const ChunkHold hold = environment_.store->Hold({id});
    response_->set_chunks(response_->chunks() + 1);
    const auto profile = ProfileOf(info);
    if (!profile.ok() && !absl::IsDataLoss(profile.status()) &&
        !absl::IsNotFound(profile.status())) {
      return profile.status();
    }
    if (!profile.ok()) Damaged(id, 0, profile.status(), false);
    bool damaged = false;
    for (uint32_t level = 0; level < info.segment_bytes.size() && !damaged; ++level) {
      absl::Status status = Segment(id, info, level, profile.value_or(nullptr).get());
      if (status.ok()) continue;
      const auto now = environment_.store->GetInfos({id});
      if (!now.ok() && !absl::IsDataLoss(now.status())) return now.status();
      // Deleted or trimmed meanwhile.
      if (now.ok() && (!now->front().has_value() || now->front()->segment_bytes.size() <= level)) {
        return absl::OkStatus();
      }
      if (!absl::IsDataLoss(status)) return status;
      Damaged(id, level + 1, status, true);
      damaged = true;
    }
    return absl::OkStatus();
  }

  // Null for a tenant without an entry: its segments are only read.
  absl::StatusOr<std::shared_ptr<const ServiceProfile>> ProfileOf(const ChunkInfo& info) {
    if (info.tenant.empty()) return environment_.profiles->Get(info.profile_id);
    ProfileCache* const profiles =
        environment_.tenants == nullptr ? nullptr : environment_.tenants->ProfilesOf(info.tenant);
    if (profiles == nullptr) return std::shared_ptr<const ServiceProfile>();
    return profiles->Get(info.profile_id);
  }

  // DATA_LOSS for everything that is wrong with the segment.
  absl::Status Segment(const ChunkId& id, const ChunkInfo& info, uint32_t level,
                       const ServiceProfile* profile) {
    const absl::StatusOr<PinnedBytes> segment = environment_.store->ScrubSegment(id, level);
    if (absl::IsNotFound(segment.status())) {
      return absl::DataLossError(absl::StrCat("level ", level, " is missing"));
    }
    if (!segment.ok()) return segment.status();
    const absl::string_view bytes = segment->bytes();
    response_->set_bytes(response_->bytes() + bytes.size());
    if (bytes.size() != info.segment_bytes[level]) {
      return absl::DataLossError(absl::StrCat("level ", level, " has ", bytes.size(),
                                              " bytes instead of ", info.segment_bytes[level]));
    }
    if (profile == nullptr) return absl::OkStatus();
    const absl::StatusOr<SegmentHeader> header = profile->ValidateSegment(bytes);
    if (!header.ok()) {
      return absl::DataLossError(absl::StrCat("level ", level, ": ", header.status().message()));
    }
    if (header->level != static_cast<int>(level) || header->tokens != info.tokens ||
        static_cast<uint64_t>(header->first_position) != info.first_token) {
      return absl::DataLossError(absl::StrCat("level ", level, " holds another segment"));
    }
    return absl::OkStatus();
  }

  void Damaged(const ChunkId& id, uint32_t segment, const absl::Status& why, bool deletable) {
    v1::ScrubDamage* const damage = response_->add_damage();
    damage->set_chunk_id(IdBytes(id));
    damage->set_segment(segment);
    damage->set_what(Printable(why.message()));
    if (deletable && request_.delete_damaged()) damage->set_deleted(Discard(id));
    environment_.log->Write(LogLevel::kError, "damaged chunk",
                            {{"chunk", IdHex(id)},
                             {"segment", segment},
                             {"what", damage->what()},
                             {"deleted", damage->deleted()}});
  }

  // False also while a load uses the chunk: it is deleted when that ends.
  bool Discard(const ChunkId& id) {
    const ChunkLeases::DeletePlan plan = environment_.leases->BeginDelete({id});
    const absl::StatusOr<size_t> discarded = environment_.store->Discard(plan.now);
    environment_.leases->EndDelete(plan.now);
    return discarded.value_or(0) > 0;
  }

  absl::Status Files(const std::string& after) {
    const absl::StatusOr<ScrubbedFiles> page = environment_.store->ScrubFiles(after, bytes_max_);
    if (!page.ok()) return page.status();
    response_->set_files(page->files);
    response_->set_bytes(page->bytes);
    for (const ScrubbedFiles::Damaged& file : page->damaged) {
      v1::ScrubDamage* const damage = response_->add_damage();
      damage->set_file(Printable(file.name));
      damage->set_what(Printable(file.why.message()));
      environment_.log->Write(LogLevel::kError, "damaged file",
                              {{"file", damage->file()}, {"what", damage->what()}});
    }
    if (!page->next.empty()) {
      response_->set_next_page_token(absl::StrCat(kFileToken, page->next));
    }
    return absl::OkStatus();
  }

  const RpcEnvironment& environment_;
  const v1::ScrubRequest& request_;
  v1::ScrubResponse* const response_;
  uint64_t bytes_max_ = 0;
};

bool IsBackupName(absl::string_view name) {
  return !name.empty() && name.size() <= 128 && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' ||
                  c == '-';
         });
}

}  // namespace

absl::Status HandleScrub(const RpcEnvironment& environment, const v1::ScrubRequest& request,
                         v1::ScrubResponse& response) {
  return Scrubber(environment, request, &response).Run();
}

absl::Status HandleBackup(const RpcEnvironment& environment, const v1::BackupRequest& request,
                          v1::BackupResponse& response) {
  const std::string& parent = environment.options->backup_dir;
  if (parent.empty()) {
    return absl::FailedPreconditionError(
        "this server makes no backups: start it with --backup-dir");
  }
  if (!IsBackupName(request.name())) {
    return absl::InvalidArgumentError(
        "the name of a backup is 1 to 128 letters, digits, '.', '_' and '-', and does not begin "
        "with '.'");
  }
  const std::string path = absl::StrCat(parent, "/", request.name());
  const absl::StatusOr<StoreStats> stats = environment.store->Stats();
  if (!stats.ok()) return stats.status();
  if (absl::Status status = environment.store->Backup(path); !status.ok()) return status;
  response.set_path(path);
  response.set_chunks(stats->chunks);
  response.set_payload_bytes(stats->payload_bytes);
  environment.log->Write(LogLevel::kInfo, "backup made",
                         {{"path", path}, {"chunks", stats->chunks}});
  return absl::OkStatus();
}

}  // namespace kvstream

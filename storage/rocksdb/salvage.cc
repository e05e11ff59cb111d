#include "storage/rocksdb/salvage.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "storage/chunk_limits.h"
#include "storage/chunk_store.h"
#include "storage/rocksdb/new_directory.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"

namespace kvstream {
namespace {

constexpr size_t kPage = 256;

template <typename Id>
std::string Hex(const Id& id) {
  return absl::BytesToHexString({reinterpret_cast<const char*>(id.data()), id.size()});
}

absl::Status Prefixed(absl::string_view what, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

class Salvage {
 public:
  Salvage(ChunkStore* from, ChunkStore* to, const std::function<void(absl::string_view)>& lost)
      : from_(*from), to_(*to), lost_(lost) {}

  absl::StatusOr<SalvagedStore> Run() {
    if (absl::Status status = Profiles(); !status.ok()) return status;
    absl::optional<ChunkId> after;
    do {
      const absl::StatusOr<ScrubbedInfos> page = from_.ScrubInfos(after, kPage);
      if (!page.ok()) return page.status();
      for (const DamagedInfo& damaged : page->damaged) LoseChunk(damaged.id, damaged.why);
      for (const auto& [id, info] : page->chunks) {
        if (absl::Status status = Chunk(id, info); !status.ok()) return status;
      }
      after = page->next;
    } while (after.has_value());
    if (absl::Status status = Pins(); !status.ok()) return status;
    return salvaged_;
  }

 private:
  void LoseChunk(const ChunkId& id, const absl::Status& why) {
    ++salvaged_.chunks_lost;
    lost_(absl::StrCat("lost chunk ", Hex(id), ": ", why.message()));
  }

  absl::Status Profiles() {
    const absl::StatusOr<std::vector<StoredProfileId>> ids = from_.ListProfiles();
    if (!ids.ok()) return ids.status();
    for (const StoredProfileId& id : *ids) {
      const absl::StatusOr<std::string> profile = from_.GetProfile(id);
      if (absl::IsDataLoss(profile.status()) || absl::IsNotFound(profile.status())) {
        ++salvaged_.profiles_lost;
        lost_(absl::StrCat("lost profile ", Hex(id), ": ", profile.status().message()));
        continue;
      }
      if (!profile.ok()) return profile.status();
      const absl::StatusOr<bool> put = to_.PutProfile(id, *profile);
      if (!put.ok()) return put.status();
      ++salvaged_.profiles;
    }
    return absl::OkStatus();
  }

  // The levels that can be read, from the first on. Only errors that are no damage.
  absl::StatusOr<std::vector<PinnedBytes>> Readable(const ChunkId& id, const ChunkInfo& info,
                                                    absl::Status* why) {
    std::vector<PinnedBytes> segments;
    for (uint32_t level = 0; level < info.segment_bytes.size(); ++level) {
      absl::StatusOr<PinnedBytes> segment = from_.ScrubSegment(id, level);
      if (segment.ok() && segment->bytes().size() == info.segment_bytes[level]) {
        segments.push_back(*std::move(segment));
        continue;
      }
      *why = segment.ok() ? absl::DataLossError(absl::StrCat("level ", level, " has another size"))
                          : segment.status();
      if (!segment.ok() && !absl::IsDataLoss(*why) && !absl::IsNotFound(*why)) return *why;
      break;
    }
    return segments;
  }

  absl::Status Chunk(const ChunkId& id, const ChunkInfo& info) {
    absl::Status why;
    const absl::StatusOr<std::vector<PinnedBytes>> segments = Readable(id, info, &why);
    if (!segments.ok()) return segments.status();
    if (segments->empty()) {
      LoseChunk(id, why);
      return absl::OkStatus();
    }
    // Only a Trim makes a chunk that has lost levels, so the lost ones are put empty.
    ChunkInfo whole = info;
    whole.levels_lost = 0;
    whole.segment_bytes.resize(segments->size());
    whole.segment_bytes.resize(info.segment_bytes.size() + info.levels_lost, 0);
    std::vector<absl::string_view> bytes;
    for (const PinnedBytes& segment : *segments) bytes.push_back(segment.bytes());
    bytes.resize(whole.segment_bytes.size(), absl::string_view("", 0));
    const absl::StatusOr<bool> put = to_.Put(id, whole, bytes);
    if (!put.ok()) return put.status();
    if (segments->size() < bytes.size()) {
      const absl::StatusOr<size_t> cut = to_.Trim({id}, static_cast<uint32_t>(segments->size()));
      if (!cut.ok()) return cut.status();
    }
    ++salvaged_.chunks;
    salvaged_.payload_bytes += PayloadBytes(whole);
    if (segments->size() < info.segment_bytes.size()) {
      ++salvaged_.chunks_cut;
      lost_(absl::StrCat("kept ", segments->size(), " of ", info.segment_bytes.size(),
                         " levels of chunk ", Hex(id), ": ", why.message()));
    }
    return absl::OkStatus();
  }

  absl::Status Pins() {
    absl::optional<ChunkPin> after;
    while (true) {
      const absl::StatusOr<std::vector<ChunkPin>> page = from_.ListPins(after, kPage);
      if (!page.ok()) return page.status();
      if (page->empty()) return absl::OkStatus();
      for (const ChunkPin& pin : *page) {
        if (pin.until <= absl::Now()) continue;
        const absl::StatusOr<size_t> pinned = to_.Pin({pin.id}, pin.owner, pin.until);
        if (!pinned.ok()) return pinned.status();
        salvaged_.pins += *pinned;
      }
      after = page->back();
    }
  }

  ChunkStore& from_;
  ChunkStore& to_;
  const std::function<void(absl::string_view)>& lost_;
  SalvagedStore salvaged_;
};

absl::StatusOr<std::unique_ptr<ChunkStore>> OpenNew(const std::string& dir) {
  RocksDbChunkStoreOptions options;
  options.data_dir = dir;
  // Publish makes it durable.
  options.sync_writes = false;
  return RocksDbChunkStore::Create(options);
}

}  // namespace

absl::StatusOr<SalvagedStore> SalvageStore(const std::string& damaged_dir,
                                           const std::string& data_dir,
                                           const std::function<void(absl::string_view)>& lost) {
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::path(damaged_dir) / "CURRENT", ignored)) {
    return absl::FailedPreconditionError(
        absl::StrCat(damaged_dir, " is no store: it has no file CURRENT"));
  }
  RocksDbChunkStoreOptions damaged;
  damaged.data_dir = damaged_dir;
  damaged.drop_damaged_log = true;
  damaged.background_jobs = 1;
  const absl::StatusOr<std::unique_ptr<ChunkStore>> from = RocksDbChunkStore::Create(damaged);
  if (!from.ok()) return from.status();
  const absl::StatusOr<std::unique_ptr<NewDirectory>> made =
      NewDirectory::Create(data_dir, "salvaging", "a salvage");
  if (!made.ok()) return made.status();
  NewDirectory& copy = **made;
  absl::StatusOr<SalvagedStore> salvaged;
  {
    const absl::StatusOr<std::unique_ptr<ChunkStore>> to = OpenNew(copy.path());
    if (!to.ok()) return to.status();
    salvaged = Salvage(from->get(), to->get(), lost).Run();
    if (!salvaged.ok()) return Prefixed("salvaging " + damaged_dir, salvaged.status());
  }
  // Again, so that what its log holds is in tables and the log, whose records no sync has covered,
  // is not judged when it is opened for good.
  if (const auto settled = OpenNew(copy.path()); !settled.ok()) return settled.status();
  if (absl::Status status = copy.Publish(); !status.ok()) return status;
  return salvaged;
}

}  // namespace kvstream

#include "storage/rocksdb/restore.h"

#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "storage/chunk_limits.h"
#include "storage/chunk_store.h"
#include "storage/id_text.h"
#include "storage/rocksdb/new_directory.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"

namespace kvstream {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPage = 256;

absl::Status CopyFiles(const fs::path& from, const fs::path& to) {
  std::error_code error;
  for (auto it = fs::directory_iterator(from, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (!it->is_regular_file(error) || error) continue;
    const fs::path copy = to / it->path().filename();
    fs::copy_file(it->path(), copy, error);
    if (error) return FromSystem(error, absl::StrCat("copying ", it->path().string()));
    // A backup may be kept read-only.
    fs::permissions(copy, fs::perms::owner_read | fs::perms::owner_write, fs::perm_options::add,
                    error);
    if (error) break;
  }
  return FromSystem(error, absl::StrCat("reading ", from.string()));
}

absl::StatusOr<RestoredStore> Check(const std::string& dir) {
  RocksDbChunkStoreOptions options;
  options.data_dir = dir;
  absl::StatusOr<std::unique_ptr<ChunkStore>> opened = RocksDbChunkStore::Create(options);
  if (!opened.ok()) return opened.status();
  ChunkStore& store = **opened;
  std::string file;
  do {
    const absl::StatusOr<ScrubbedFiles> page = store.ScrubFiles(file, uint64_t{1} << 30);
    if (!page.ok()) return page.status();
    if (!page->damaged.empty()) return page->damaged.front().why;
    file = page->next;
  } while (!file.empty());
  RestoredStore found;
  absl::optional<ChunkId> after;
  do {
    const absl::StatusOr<ScrubbedInfos> page = store.ScrubInfos(after, kPage);
    if (!page.ok()) return page.status();
    if (!page->damaged.empty()) return page->damaged.front().why;
    for (const auto& [id, info] : page->chunks) {
      for (uint32_t level = 0; level < info.segment_bytes.size(); ++level) {
        const absl::StatusOr<PinnedBytes> segment = store.ScrubSegment(id, level);
        if (segment.ok() && segment->bytes().size() == info.segment_bytes[level]) continue;
        return absl::DataLossError(absl::StrCat(
            "level ", level, " of chunk ", ShortHex(id), " is not what its info says: ",
            segment.ok() ? "another size" : segment.status().message()));
      }
      ++found.chunks;
      found.payload_bytes += PayloadBytes(info);
    }
    after = page->next;
  } while (after.has_value());
  return found;
}

}  // namespace

absl::StatusOr<RestoredStore> RestoreStore(const std::string& backup_dir,
                                           const std::string& data_dir) {
  std::error_code ignored;
  if (!fs::exists(fs::path(backup_dir) / "CURRENT", ignored)) {
    return absl::FailedPreconditionError(
        absl::StrCat(backup_dir, " is no backup of a store: it has no file CURRENT"));
  }
  const absl::StatusOr<std::unique_ptr<NewDirectory>> made =
      NewDirectory::Create(data_dir, "restoring", "a restore");
  if (!made.ok()) return made.status();
  NewDirectory& copy = **made;
  if (absl::Status status = CopyFiles(backup_dir, copy.path()); !status.ok()) return status;
  absl::StatusOr<RestoredStore> checked = Check(copy.path());
  if (!checked.ok()) {
    return absl::Status(checked.status().code(), absl::StrCat("the backup in ", backup_dir, ": ",
                                                              checked.status().message()));
  }
  if (absl::Status status = copy.Publish(); !status.ok()) return status;
  return checked;
}

}  // namespace kvstream

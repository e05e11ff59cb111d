#include "storage/rocksdb/restore.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "storage/chunk_limits.h"
#include "storage/chunk_store.h"
#include "storage/id_text.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"

namespace kvstream {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPage = 256;

absl::Status FromSystem(const std::error_code& error, absl::string_view what) {
  if (!error) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", error.message());
  if (error == std::errc::no_space_on_device) {
    return absl::ResourceExhaustedError(absl::StrCat(message, " (the disk is full)"));
  }
  return absl::UnavailableError(message);
}

// Of a file or a directory.
absl::Status Sync(const fs::path& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = file >= 0 && fsync(file) == 0;
  const std::error_code error(synced ? 0 : errno, std::generic_category());
  if (file >= 0) close(file);
  return FromSystem(error, absl::StrCat("syncing ", path.string()));
}

absl::Status CopyFiles(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::remove_all(to, error);
  if (!error) fs::create_directory(to, error);
  if (error) return FromSystem(error, absl::StrCat("making ", to.string()));
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
    if (absl::Status status = Sync(copy); !status.ok()) return status;
  }
  if (error) return FromSystem(error, absl::StrCat("reading ", from.string()));
  return Sync(to);
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
  fs::path target = fs::absolute(data_dir, ignored).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  if (fs::exists(target, ignored) && !fs::is_empty(target, ignored)) {
    return absl::FailedPreconditionError(absl::StrCat(
        data_dir, " is not empty: a restore overwrites nothing; name another data directory"));
  }
  if (!fs::is_directory(target.parent_path(), ignored)) {
    return absl::FailedPreconditionError(
        absl::StrCat(target.parent_path().string(), " is not a directory; create it first"));
  }
  const fs::path copy = target.string() + ".restoring";
  auto remove_copy = absl::MakeCleanup([&copy] {
    std::error_code error;
    fs::remove_all(copy, error);
  });
  if (absl::Status status = CopyFiles(backup_dir, copy); !status.ok()) return status;
  absl::StatusOr<RestoredStore> checked = Check(copy.string());
  if (!checked.ok()) {
    return absl::Status(checked.status().code(), absl::StrCat("the backup in ", backup_dir, ": ",
                                                              checked.status().message()));
  }
  std::error_code error;
  fs::remove(target, error);  // empty
  if (!error) fs::rename(copy, target, error);
  if (error) return FromSystem(error, absl::StrCat("renaming to ", target.string()));
  std::move(remove_copy).Cancel();
  if (absl::Status status = Sync(target.parent_path()); !status.ok()) return status;
  return checked;
}

}  // namespace kvstream

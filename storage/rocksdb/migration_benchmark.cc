// How long the first opening of a store of format version 2 takes: migration_benchmark [CHUNKS].
// Makes a store of small chunks in contexts of 32, every second one with a time of expiry, takes
// from it what version 3 has brought, and opens it: with its files in the page cache, and without,
// each beside the next opening of the same store, which has nothing to migrate.
#include <fcntl.h>
#include <rocksdb/db.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rocksdb/chunk_record_format.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/rocksdb_tuning.h"
#include "storage/rocksdb/status_mapping.h"
#include "storage/rocksdb/temp_dir.h"

namespace kvstream {
namespace {

constexpr uint64_t kChunksOfContext = 32;

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return time.tv_sec + time.tv_usec * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

absl::Status Fill(const RocksDbChunkStoreOptions& options, uint64_t chunks) {
  const auto store = RocksDbChunkStore::Create(options);
  if (!store.ok()) return store.status();
  const std::string segment = TestBytes(1, 100);
  ChunkInfo info;
  info.model = "model";
  info.tokens = 256;
  info.created = absl::Now();
  info.segment_bytes = {segment.size()};
  for (uint64_t i = 0; i < chunks; ++i) {
    info.parent.reset();
    if (i % kChunksOfContext > 0) info.parent = TestId(i - 1);
    info.expires = i % 2 == 0 ? absl::InfiniteFuture() : absl::Now() + absl::Hours(24);
    const auto put = (*store)->Put(TestId(i), info, {segment});
    if (!put.ok()) return put.status();
  }
  return absl::OkStatus();
}

// To version 2.
absl::Status TakeBack(const RocksDbChunkStoreOptions& options) {
  rocksdb::DB* opened = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  rocksdb::Status status =
      rocksdb::DB::Open(TunedDbOptions(options), options.data_dir,
                        TunedFamilies(options, NewBlockCache(options)), &families, &opened);
  const std::unique_ptr<rocksdb::DB> db(opened);
  for (const Family family : {kExpiry, kPins, kDoomed, kChildren, kTenants}) {
    if (status.ok()) status = db->DropColumnFamily(families[family]);
  }
  if (status.ok()) {
    status =
        db->Put({}, families[kMeta], rocksdb_format::kVersionKey, rocksdb_format::EncodeVersion(2));
  }
  for (auto* family : families) db->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  return FromRocksDb(status, "taking back version 3");
}

uint64_t DirectoryBytes(const std::string& dir) {
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) bytes += entry.file_size();
  return bytes;
}

absl::Status TimeOpening(const std::string& name, const RocksDbChunkStoreOptions& options,
                         uint64_t chunks) {
  const double cpu = CpuSeconds();
  const absl::Time begin = absl::Now();
  const auto store = RocksDbChunkStore::Create(options);
  if (!store.ok()) return store.status();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  const auto stats = (*store)->Stats();
  if (!stats.ok()) return stats.status();
  if (stats->chunks != chunks) return absl::DataLossError("chunks are missing");
  std::printf("%-45s %6.2f s, %6.2f CPU-s, %.0f MB on disk\n", name.c_str(), seconds,
              CpuSeconds() - cpu, DirectoryBytes(options.data_dir) / 1e6);
  std::fflush(stdout);
  return absl::OkStatus();
}

void DropFromPageCache(const std::string& dir) {
  sync();
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    const int file = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
  }
}

absl::Status Run(uint64_t chunks) {
  TempDir dir;
  RocksDbChunkStoreOptions options;
  options.data_dir = dir.path();
  options.sync_writes = false;
  if (absl::Status status = Fill(options, chunks); !status.ok()) return status;
  for (const bool cold : {false, true}) {
    if (absl::Status status = TakeBack(options); !status.ok()) return status;
    for (const bool first : {true, false}) {
      if (cold) DropFromPageCache(options.data_dir);
      const std::string name = absl::StrCat(first ? "from version 2" : "the next opening",
                                            cold ? ", nothing in the page cache" : "");
      if (absl::Status status = TimeOpening(name, options, chunks); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) {
  uint64_t chunks = 2000000;
  if (argc > 2 || (argc == 2 && !absl::SimpleAtoi(argv[1], &chunks))) {
    std::fprintf(stderr, "usage: migration_benchmark [CHUNKS]\n");
    return 2;
  }
  std::printf("%llu chunks\n", static_cast<unsigned long long>(chunks));
  const absl::Status status = kvstream::Run(chunks);
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

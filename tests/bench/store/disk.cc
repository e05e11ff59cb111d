#include "tests/bench/store/disk.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/monotonic_clock.h"
#include "tests/bench/store/child_process.h"

namespace kvstream::bench {
namespace {

constexpr size_t kReadBytes = 1 << 20;

absl::Status Failure(absl::string_view what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat("cannot ", what, " ", path, ": ", strerror(errno)));
}

struct Free {
  void operator()(char* memory) const { free(memory); }
};

}  // namespace

absl::Status DropFromPageCache(const std::string& dir) {
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (!entry.is_regular_file()) continue;
    const std::string path = entry.path().string();
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) continue;  // compacted away meanwhile
    if (fd < 0) return Failure("open", path);
    // Dirty pages would stay.
    const bool ok = fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
    close(fd);
    if (!ok) return Failure("drop", path);
  }
  return absl::OkStatus();
}

absl::StatusOr<Pass> ReadTables(const std::string& dir, bool direct) {
  const std::unique_ptr<char, Free> buffer(static_cast<char*>(aligned_alloc(4096, kReadBytes)));
  Pass pass;
  const double cpu = OwnCpuSeconds();
  const absl::Duration began = MonotonicNow();
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.path().extension() != ".sst") continue;
    const std::string path = entry.path().string();
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (fd < 0) return Failure("open", path);
    if (!direct) posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    ssize_t got;
    while ((got = read(fd, buffer.get(), kReadBytes)) > 0) pass.bytes += static_cast<uint64_t>(got);
    close(fd);
    if (got < 0) return Failure("read", path);
  }
  pass.seconds = absl::ToDoubleSeconds(MonotonicNow() - began);
  pass.client_cpu_seconds = OwnCpuSeconds() - cpu;
  return pass;
}

}  // namespace kvstream::bench

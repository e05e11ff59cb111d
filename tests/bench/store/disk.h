// The files of a directory, past and through the page cache.
#ifndef KVSTREAM_TESTS_BENCH_STORE_DISK_H_
#define KVSTREAM_TESTS_BENCH_STORE_DISK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bench/store/pass.h"

namespace kvstream::bench {

// Takes the files of `dir` out of the page cache, of this machine only: what a host keeps of a
// virtual disk stays. Needs no root, and leaves other files alone.
absl::Status DropFromPageCache(const std::string& dir);

// Reads the table files of `dir` one after the other, a MiB at a time. With `direct` past the page
// cache (O_DIRECT), else through it with the kernel told that reading is sequential.
absl::StatusOr<Pass> ReadTables(const std::string& dir, bool direct);

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_DISK_H_

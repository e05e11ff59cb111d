// Puts chunks into a bounded pool from several threads, makes room there, and names each chunk on
// standard output once it is acknowledged, until it is killed. For rados_capacity_test:
// capacity_writer CEPH_CONF POOL NAMESPACE FIRST_NUMBER CAPACITY_BYTES
#include <unistd.h>

#include <cstdint>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "storage/conformance/test_chunks.h"
#include "storage/rados/rados_chunk_store.h"

int main(int argc, char** argv) {
  constexpr uint64_t kThreads = 3;
  kvstream::RadosChunkStoreOptions options;
  uint64_t first = 0;
  if (argc != 6 || !absl::SimpleAtoi(argv[4], &first) ||
      !absl::SimpleAtoi(argv[5], &options.capacity_bytes)) {
    std::cerr << "usage: capacity_writer CEPH_CONF POOL NAMESPACE FIRST_NUMBER CAPACITY_BYTES\n";
    return 2;
  }
  options.pool.conf_file = argv[1];
  options.pool.pool = argv[2];
  options.pool.name_space = argv[3];
  options.pool.op_timeout = options.pool.connect_timeout = absl::Seconds(60);
  options.shards = 8;  // as the tests have
  options.info_max_age = absl::ZeroDuration();
  options.retire_age = options.pressed_retire_age = absl::ZeroDuration();
  options.lease_interval = absl::InfiniteDuration();
  options.keeper_interval = absl::Milliseconds(20);
  options.room_timeout = absl::Minutes(2);
  const auto store = kvstream::RadosChunkStore::Create(options);
  if (!store.ok()) {
    std::cerr << store.status() << "\n";
    return 1;
  }
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t number = first + t;; number += kThreads) {
        const kvstream::TestChunk chunk = kvstream::MakeTestChunk(number, 8000);
        const auto put = (*store)->Put(chunk.id, chunk.info, chunk.views());
        if (!put.ok()) {
          std::cerr << put.status() << "\n";
          _exit(1);
        }
        // One write, so that lines of threads do not mix.
        const std::string line = absl::StrCat(number, "\n");
        if (write(STDOUT_FILENO, line.data(), line.size()) < 0) _exit(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

// Puts chunks from several threads and names each on standard output once it is acknowledged, until
// it is killed. For crash_test: crash_writer DATA_DIR FIRST_NUMBER [CAPACITY_BYTES]. With a
// capacity the chunks are larger, some are used and trimmed, and eviction is at work all the time.
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
#include "storage/rocksdb/rocksdb_chunk_store.h"

int main(int argc, char** argv) {
  constexpr uint64_t kThreads = 4;
  kvstream::RocksDbChunkStoreOptions options;
  uint64_t first = 0;
  if (argc < 3 || argc > 4 || !absl::SimpleAtoi(argv[2], &first) ||
      (argc == 4 && !absl::SimpleAtoi(argv[3], &options.capacity_bytes))) {
    std::cerr << "usage: crash_writer DATA_DIR FIRST_NUMBER [CAPACITY_BYTES]\n";
    return 2;
  }
  options.usage_interval = absl::Milliseconds(20);
  options.room_timeout = absl::Minutes(2);
  options.data_dir = argv[1];
  options.write_buffer_bytes = 1 << 20;
  options.max_log_bytes = 2 << 20;
  const auto store = kvstream::RocksDbChunkStore::Create(options);
  if (!store.ok()) {
    std::cerr << store.status() << "\n";
    return 1;
  }
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t number = first + t;; number += kThreads) {
        const bool bounded = options.capacity_bytes > 0;
        const kvstream::TestChunk chunk = kvstream::MakeTestChunk(number, bounded ? 300000 : 20000);
        const auto put = (*store)->Put(chunk.id, chunk.info, chunk.views());
        if (!put.ok()) {
          std::cerr << put.status() << "\n";
          _exit(1);
        }
        if (bounded) {
          (*store)->Touch({chunk.id});
          if (number % 8 == 0) static_cast<void>((*store)->Trim({chunk.id}, 1).ok());
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

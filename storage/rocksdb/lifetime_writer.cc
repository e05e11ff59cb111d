// Runs the scripts of lifetime_script.h on several threads while another one sweeps, until it is
// killed. For lifetime_crash_test: lifetime_writer DATA_DIR FIRST_NUMBER.
#include <unistd.h>

#include <cstdint>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/rocksdb/lifetime_script.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"

namespace kvstream {
namespace {

template <typename T>
void MustBeOk(const absl::StatusOr<T>& result) {
  if (result.ok()) return;
  std::cerr << result.status() << "\n";
  _exit(1);
}

// One write, so that lines of threads do not mix.
void Acknowledge(uint64_t number, char step) {
  const std::string line = absl::StrCat(number, " ", std::string(1, step), "\n");
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) _exit(1);
}

void Run(ChunkStore& store, uint64_t number) {
  const TestChunk chunk = LifetimeChunk(number);
  MustBeOk(store.Put(chunk.id, chunk.info, chunk.views()));
  Acknowledge(number, 'p');
  const LifetimeScript script = LifetimeScriptOf(number);
  if (script == LifetimeScript::kPin || script == LifetimeScript::kUnpin) {
    MustBeOk(store.Pin({chunk.id}, "writer", kFarAhead));
    Acknowledge(number, 'n');
  }
  if (script == LifetimeScript::kUnpin) {
    MustBeOk(store.Unpin({chunk.id}, std::string("writer")));
    Acknowledge(number, 'u');
  }
  if (script == LifetimeScript::kRenew) {
    MustBeOk(store.Renew({chunk.id}, kFartherAhead));
    Acknowledge(number, 'r');
  }
  if (script == LifetimeScript::kDelete || script == LifetimeScript::kUnpin) {
    MustBeOk(store.Delete({chunk.id}));
    Acknowledge(number, 'd');
  }
  if (script == LifetimeScript::kDeleteSoon) {
    MustBeOk(store.DeleteSoon({chunk.id}));
    Acknowledge(number, 'd');
  }
}

int Main(int argc, char** argv) {
  constexpr uint64_t kThreads = 5;  // no divisor of the scripts, so that every thread runs them all
  uint64_t first = 0;
  if (argc != 3 || !absl::SimpleAtoi(argv[2], &first)) {
    std::cerr << "usage: lifetime_writer DATA_DIR FIRST_NUMBER\n";
    return 2;
  }
  RocksDbChunkStoreOptions options;
  options.data_dir = argv[1];
  options.write_buffer_bytes = 1 << 20;
  options.max_log_bytes = 2 << 20;
  const auto store = RocksDbChunkStore::Create(options);
  MustBeOk(store);
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (true) {
      // A disk that is behind is no failure.
      static_cast<void>((*store)->Expire(absl::Now(), 3).ok());
      absl::SleepFor(absl::Milliseconds(1));
    }
  });
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t number = first + t;; number += kThreads) Run(**store, number);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

}  // namespace
}  // namespace kvstream

int main(int argc, char** argv) { return kvstream::Main(argc, argv); }

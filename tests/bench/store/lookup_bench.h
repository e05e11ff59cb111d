// Lookup of long contexts in a store of many chunks.
#ifndef KVSTREAM_TESTS_BENCH_STORE_LOOKUP_BENCH_H_
#define KVSTREAM_TESTS_BENCH_STORE_LOOKUP_BENCH_H_

#include <string>

#include "absl/status/status.h"
#include "tests/bench/store/bench_options.h"

namespace kvstream::bench {

// Builds a store of options.lookup_chunks chunks with tiny segments through ChunkStore, in contexts
// of 512 chunks, and prints the times of Lookup calls of whole contexts, drawn evenly. A store that
// `dir` already has with that many chunks is used again.
absl::Status RunLookup(const BenchOptions& options, const std::string& dir);

}  // namespace kvstream::bench

#endif  // KVSTREAM_TESTS_BENCH_STORE_LOOKUP_BENCH_H_

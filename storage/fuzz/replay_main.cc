// Runs a fuzz target as a test: on the files named on the command line, or on random inputs that
// are the same every time. KVSTREAM_TEST_ROUNDS=N runs N of them.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "storage/fuzz/operations.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  if (argc > 1) return 0;
  const char* const rounds = std::getenv("KVSTREAM_TEST_ROUNDS");
  const int inputs = rounds == nullptr ? kvstream::kReplayedInputs : std::atoi(rounds);
  for (int i = 0; i < inputs; ++i) {
    std::mt19937 random(static_cast<uint32_t>(i));
    std::vector<uint8_t> input(random() % kvstream::kReplayedBytes);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    std::fprintf(stderr, "input %d, %zu bytes\n", i, input.size());
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  return kvstream::ReplayedEnough() ? 0 : 1;
}

// Runs the fuzz target on random inputs that are the same every time.
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern uint64_t fuzz_finished_loads;

int main() {
  const uint32_t seed = 7411;
  std::mt19937 random(seed);
  for (int round = 0; round < 20000; ++round) {
    std::vector<uint8_t> input(random() % 2000);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("seed %u: %llu loads finished\n", seed,
              static_cast<unsigned long long>(fuzz_finished_loads));
  // A replay in which hardly any load gets to its end tests nothing.
  return fuzz_finished_loads >= 500 ? 0 : 1;
}

// Runs a fuzz target as a test, without libFuzzer: the target's seeds, the files named on the
// command line, and a fixed number of deterministic mutations of the seeds.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "codec/fuzz/fuzz_target.h"
#include "codec/test_kv.h"

namespace {

constexpr int kMutations = 4000;
constexpr uint64_t kSeed = 20240607;

void Run(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

std::string Mutate(const std::string& seed, kvstream::TestRandom& random) {
  // Values at which arithmetic on sizes goes wrong.
  static constexpr uint32_t kEdges[] = {0,      1,          0x7f,       0xff,       0x7fff,
                                        0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
  std::string bytes = seed;
  for (uint64_t n = 1 + random.Below(4); n > 0 && !bytes.empty(); --n) {
    // Half of the changes hit the front, where the lengths are.
    const uint64_t at =
        random.Below(random.Below(2) == 0 ? std::min<uint64_t>(bytes.size(), 200) : bytes.size());
    switch (random.Below(5)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random.Next());
        break;
      case 2: {
        const uint32_t edge = kEdges[random.Below(10)];
        for (uint64_t i = 0; i < 4 && at + i < bytes.size(); ++i)
          bytes[at + i] = static_cast<char>(edge >> 8 * i);
        break;
      }
      case 3:
        bytes.erase(at, 1 + random.Below(8));
        break;
      default:
        bytes.insert(at, std::string(1 + random.Below(8), static_cast<char>(random.Next())));
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> seeds = kvstream::FuzzSeeds();
  for (const std::string& seed : seeds) Run(seed);
  // libFuzzer starts from files: KVSTREAM_WRITE_SEEDS=DIR leaves the seeds there.
  const char* const seed_directory = std::getenv("KVSTREAM_WRITE_SEEDS");
  for (size_t i = 0; seed_directory != nullptr && i < seeds.size(); ++i) {
    std::ofstream(std::string(seed_directory) + "/seed" + std::to_string(i), std::ios::binary)
        << seeds[i];
  }
  Run("");
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", argv[i]);
      return 1;
    }
    Run(std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()));
  }
  std::printf("seed %llu, %d mutations\n", static_cast<unsigned long long>(kSeed), kMutations);
  kvstream::TestRandom random(kSeed);
  for (int i = 0; i < kMutations; ++i) Run(Mutate(seeds[random.Below(seeds.size())], random));
  return 0;
}

// Runs the fuzz target of traces on mutations of a good one, the same every time.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern uint64_t fuzz_explained_traces;

namespace {

// Values that break what is not checked, and some that are in order in most places.
constexpr const char* kValues[] = {
    "-1", "1e308", "1e999", "18446744073709551615", "null",  "65535", "1e9", "[]",
    "{}", "\"<\"", "true",  "9007199254740992",     "0.001", "0",     "1",   "2",
    "3",  "300",   "700.5"};

// Replaces the value behind a random colon, comma or bracket.
void ReplaceValue(std::string* text, std::mt19937* random) {
  const size_t before = text->find_first_of(":,[", (*random)() % text->size());
  if (before == std::string::npos || before + 1 == text->size()) return;
  const size_t at = before + 1;
  const char first = (*text)[at];
  if (first == '"' || first == '{' || first == '[') return;
  size_t end = text->find_first_of(",]}", at);
  if (end == std::string::npos) end = text->size();
  text->replace(at, end - at, kValues[(*random)() % std::size(kValues)]);
}

void ChangeByte(std::string* text, std::mt19937* random) {
  (*text)[(*random)() % text->size()] = static_cast<char>((*random)());
}

// Cuts a piece out, or puts it in once more.
void MovePiece(std::string* text, std::mt19937* random) {
  const size_t at = (*random)() % text->size();
  const std::string piece = text->substr(at, (*random)() % 200);
  if ((*random)() % 2 == 0) {
    text->erase(at, piece.size());
  } else {
    text->insert(at, piece);
  }
}

}  // namespace

int main() {
  std::ifstream file("client/testing/golden_load.json", std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (good.empty()) {
    std::fprintf(stderr, "the golden trace cannot be read\n");
    return 1;
  }
  const uint32_t seed = 7412;
  std::mt19937 random(seed);
  for (int round = 0; round < 6000; ++round) {
    std::string text = good;
    for (uint32_t changes = 1 + random() % 2; changes > 0 && !text.empty(); --changes) {
      const uint32_t kind = random() % 8;
      kind < 6   ? ReplaceValue(&text, &random)
      : kind < 7 ? ChangeByte(&text, &random)
                 : MovePiece(&text, &random);
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  }
  std::printf("seed %u: %llu traces explained\n", seed,
              static_cast<unsigned long long>(fuzz_explained_traces));
  // Mutations that are all refused test little.
  return fuzz_explained_traces >= 200 ? 0 : 1;
}

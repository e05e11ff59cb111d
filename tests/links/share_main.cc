// Prints the tables of loads that share a link.
#include <ctime>
#include <iostream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "tests/links/share_report.h"

namespace kvstream {
namespace links {
namespace {

int Run(int argc, char** argv) {
  ShareOptions options;
  std::string folder;
  bool misses_only = false;
  bool solo = false;
  for (int i = 1; i < argc; ++i) {
    absl::string_view value = argv[i];
    bool good = true;
    if (absl::ConsumePrefix(&value, "--traces=")) {
      folder = std::string(value);
    } else if (absl::ConsumePrefix(&value, "--seed=")) {
      good = absl::SimpleAtoi(value, &options.seed);
    } else if (absl::ConsumePrefix(&value, "--rounds=")) {
      good = absl::SimpleAtoi(value, &options.rounds);
    } else if (value == "--tuning") {
      options.tuning = true;
    } else if (value == "--misses") {
      misses_only = true;
    } else if (value == "--solo") {
      solo = true;
    } else {
      good = false;
    }
    if (!good) {
      std::cerr << "share: --traces=DIR [--seed=N] [--rounds=N] [--tuning] [--misses|--solo]; not "
                << argv[i] << "\n";
      return 1;
    }
  }
  const auto traces = ReadTraces(folder);
  if (!traces.ok()) {
    std::cerr << "share: " << traces.status() << "\n";
    return 1;
  }
  const std::clock_t begin = std::clock();
  std::cout << (solo          ? SoloReport(*traces, options.tuning)
                : misses_only ? MissReport(*traces, options)
                              : ShareReport(*traces, options));
  std::cerr << "share: " << static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC
            << " s of CPU time\n";
  return 0;
}

}  // namespace
}  // namespace links
}  // namespace kvstream

int main(int argc, char** argv) { return kvstream::links::Run(argc, argv); }

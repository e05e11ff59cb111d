#include "tests/bench/store/bench_options.h"

#include <functional>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace kvstream::bench {
namespace {

using Setter = std::function<bool(absl::string_view, BenchOptions&)>;

template <typename T>
Setter Number(T BenchOptions::*field) {
  return [field](absl::string_view text, BenchOptions& options) {
    return absl::SimpleAtoi(text, &(options.*field)) && options.*field >= 1;
  };
}

Setter Text(std::string BenchOptions::*field) {
  return [field](absl::string_view text, BenchOptions& options) {
    options.*field = std::string(text);
    return true;
  };
}

bool SetModes(absl::string_view text, BenchOptions& options) {
  options.warm = options.cold = options.lookup = false;
  for (absl::string_view mode : absl::StrSplit(text, ',')) {
    if (mode == "warm") {
      options.warm = true;
    } else if (mode == "cold") {
      options.cold = true;
    } else if (mode == "lookup") {
      options.lookup = true;
    } else {
      return false;
    }
  }
  return true;
}

bool SetSizes(absl::string_view text, BenchOptions& options) {
  options.value_kib.clear();
  for (absl::string_view size : absl::StrSplit(text, ',')) {
    uint64_t kib;
    if (!absl::SimpleAtoi(size, &kib) || kib < 1 || kib > (64 << 10)) return false;
    options.value_kib.push_back(kib);
  }
  return true;
}

bool SetConnections(absl::string_view text, BenchOptions& options) {
  options.connections.clear();
  for (absl::string_view word : absl::StrSplit(text, ',')) {
    int connections;
    if (!absl::SimpleAtoi(word, &connections) || connections < 1 || connections > 64) return false;
    options.connections.push_back(connections);
  }
  return true;
}

bool SetQuick(absl::string_view text, BenchOptions& options) {
  if (!text.empty()) return false;
  options.value_kib = {256, 1024};
  options.connections = {1, 2};
  options.dataset_mib = options.cold_dataset_mib = 8;
  options.rounds = 1;
  options.depth_max = 2;
  options.block_cache_mib = 64;
  options.lookup_chunks = 2048;
  options.lookups = 8;
  return true;
}

const std::map<std::string, Setter>& Setters() {
  static const auto* const setters = new std::map<std::string, Setter>{
      {"kvstreamd", Text(&BenchOptions::kvstreamd)},
      {"modes", SetModes},
      {"dir", Text(&BenchOptions::dir)},
      {"congestion-control", Text(&BenchOptions::congestion_control)},
      {"value-kib", SetSizes},
      {"connections", SetConnections},
      {"dataset-mib", Number(&BenchOptions::dataset_mib)},
      {"cold-dataset-mib", Number(&BenchOptions::cold_dataset_mib)},
      {"rounds", Number(&BenchOptions::rounds)},
      {"depth-max", Number(&BenchOptions::depth_max)},
      {"block-cache-mib", Number(&BenchOptions::block_cache_mib)},
      {"lookup-chunks", Number(&BenchOptions::lookup_chunks)},
      {"lookup-cache-mib", Number(&BenchOptions::lookup_cache_mib)},
      {"lookup-info-cache-mib", Number(&BenchOptions::lookup_info_cache_mib)},
      {"lookups", Number(&BenchOptions::lookups)},
      {"daemon-flag",
       [](absl::string_view text, BenchOptions& options) {
         options.daemon_flags.push_back(absl::StrCat("--", text));
         return true;
       }},
      {"quick", SetQuick},
  };
  return *setters;
}

}  // namespace

absl::StatusOr<BenchOptions> ParseBenchOptions(const std::vector<std::string>& words) {
  BenchOptions options;
  for (const std::string& word : words) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(word, absl::MaxSplits('=', 1));
    const auto setter =
        parts.first.substr(0, 2) == "--" ? Setters().find(parts.first.substr(2)) : Setters().end();
    if (setter == Setters().end() || !setter->second(parts.second, options)) {
      const auto name = [](std::string* out, const auto& entry) {
        absl::StrAppend(out, "--", entry.first);
      };
      return absl::InvalidArgumentError(
          absl::StrCat("cannot use ", word, "; options: ", absl::StrJoin(Setters(), " ", name)));
    }
  }
  if (options.kvstreamd.empty()) return absl::InvalidArgumentError("--kvstreamd=PATH is missing");
  return options;
}

}  // namespace kvstream::bench

#include "tests/links/trace_set.h"

#include <dirent.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace kvstream {
namespace links {
namespace {

// The value of the comment line `# key: value`; empty if there is none.
absl::string_view Comment(absl::string_view text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, "# ") || !absl::ConsumePrefix(&line, key)) continue;
    if (absl::ConsumePrefix(&line, ": ")) return absl::StripAsciiWhitespace(line);
  }
  return {};
}

}  // namespace

absl::StatusOr<NamedTrace> ParseNamedTrace(absl::string_view name, absl::string_view text) {
  absl::StatusOr<RateTrace> rate = RateTrace::Parse(text);
  if (!rate.ok())
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", rate.status().message()));
  const absl::string_view family = Comment(text, "family");
  const absl::string_view split = Comment(text, "split");
  double rtt_ms = 0;
  if (family.empty() || (split != "tuning" && split != "final") ||
      !absl::SimpleAtod(Comment(text, "rtt_ms"), &rtt_ms) || !(rtt_ms >= 0 && rtt_ms < 1e4)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": needs the comments family, split (tuning or final) and rtt_ms"));
  }
  return NamedTrace{std::string(name), std::string(family), split == "tuning",
                    absl::Milliseconds(rtt_ms), *std::move(rate)};
}

absl::StatusOr<std::vector<NamedTrace>> ReadTraces(const std::string& folder) {
  std::vector<std::string> files;
  if (DIR* open = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(open)) {
      if (absl::EndsWith(entry->d_name, ".trace")) files.push_back(entry->d_name);
    }
    closedir(open);
  }
  if (files.empty()) return absl::NotFoundError(absl::StrCat(folder, ": no *.trace files"));
  std::sort(files.begin(), files.end());
  std::vector<NamedTrace> traces;
  for (const std::string& file : files) {
    std::ifstream in(absl::StrCat(folder, "/", file), std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    absl::StatusOr<NamedTrace> trace = ParseNamedTrace(absl::StripSuffix(file, ".trace"), text);
    if (!trace.ok()) return trace.status();
    traces.push_back(*std::move(trace));
  }
  return traces;
}

}  // namespace links
}  // namespace kvstream

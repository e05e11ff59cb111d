// kvstreamctl explain
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/atomic_file.h"
#include "client/cli/command.h"
#include "client/cli/explain_html.h"
#include "client/cli/explain_text.h"
#include "client/cli/status_macros.h"
#include "client/load_story.h"
#include "client/load_trace_json.h"

namespace kvstream::cli {
namespace {

struct ExplainOptions {
  std::string trace;
  std::string html;
};

Json ToJson(const LoadTrace& trace, const LoadStory& story) {
  Json causes = Json::object();
  for (size_t i = 0; i < kLoadCauses; ++i) {
    causes[LoadCauseName(static_cast<LoadCause>(i))] = story.cause_ms[i];
  }
  Json words = Json::array();
  for (const std::string& line : story.words) words.push_back(Printable(line));
  Json json = {{"ok", trace.ok},
               {"delay_ms", trace.delay_ms},
               {"bound", LoadCauseName(story.bound)},
               {"spent_ms", std::move(causes)},
               {"all_in_place_ms", nullptr},
               {"decode_busy_ms", story.decode_busy_ms},
               {"recompute_busy_ms", story.recompute_busy_ms},
               {"arriving_bytes_per_second", story.arriving_bytes_per_second},
               {"words", std::move(words)}};
  if (story.all_in_place_ms.has_value()) json["all_in_place_ms"] = *story.all_in_place_ms;
  return json;
}

absl::Status Explain(const ExplainOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.trace, kLoadTraceBytesMax));
  const absl::StatusOr<LoadTrace> trace = ParseLoadTrace(text);
  if (!trace.ok()) {
    return absl::Status(trace.status().code(),
                        absl::StrCat(options.trace, ": ", Printable(trace.status().message())));
  }
  const LoadStory story = ExplainLoad(*trace);
  if (!options.html.empty()) {
    CLI_RETURN_IF_ERROR(WriteFileAtomically(options.html, ExplainHtml(*trace, story)));
  }
  return Print(format, ToJson(*trace, story), ExplainText(*trace, story));
}

}  // namespace

void AddExplainVerb(CLI::App& app, Command& command) {
  const auto options = std::make_shared<ExplainOptions>();
  CLI::App* explain =
      AddVerb(app, command, "explain", "Draw and explain what `load --trace` recorded",
              [options](Format format) { return Explain(*options, format); });
  explain->add_option("trace", options->trace, "the file of load --trace")->required();
  explain->add_option("--html", options->html, "also write a self-contained HTML page");
}

}  // namespace kvstream::cli

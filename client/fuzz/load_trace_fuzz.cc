// Whatever a trace file holds, reading, explaining and drawing it ends and stays within its memory.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"
#include "client/cli/explain_html.h"
#include "client/cli/explain_text.h"
#include "client/load_story.h"
#include "client/load_trace_json.h"

uint64_t fuzz_explained_traces = 0;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::StatusOr<kvstream::LoadTrace> trace =
      kvstream::ParseLoadTrace(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!trace.ok()) return 0;
  const kvstream::LoadStory story = kvstream::ExplainLoad(*trace);
  double sum = 0;
  for (const double ms : story.cause_ms) sum += ms;
  const double error = sum - trace->delay_ms;
  if (!(error < 1 && error > -1)) std::abort();
  // Where a time is as large as the format allows, a picture of it still has to be one.
  if (kvstream::cli::ExplainText(*trace, story).empty()) std::abort();
  const std::string page = kvstream::cli::ExplainHtml(*trace, story);
  if (page.find("nan") != std::string::npos || page.find("<script") != std::string::npos) {
    std::abort();
  }
  // What was read can be written and read again.
  if (!kvstream::ParseLoadTrace(kvstream::LoadTraceToJson(*trace)).ok()) std::abort();
  ++fuzz_explained_traces;
  return 0;
}

// A load's trace as text for a terminal.
#ifndef KVSTREAM_CLIENT_CLI_EXPLAIN_TEXT_H_
#define KVSTREAM_CLIENT_CLI_EXPLAIN_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "client/load_story.h"
#include "client/load_trace.h"

namespace kvstream::cli {

// How much time a picture of the trace shows, from 0 on: the load, and its deadline unless that is
// far behind it. Above 0.
double PictureMs(const LoadTrace& trace);

// What control characters and bytes beyond ASCII of a foreign text could do to a terminal they do
// not do here: each becomes '?'.
std::string Printable(absl::string_view text);

// Bandwidth over time as sparklines, chunks over time, what the delay was spent on, and the story's
// words. Lines of at most 100 columns but for the words; UTF-8.
std::string ExplainText(const LoadTrace& trace, const LoadStory& story);

}  // namespace kvstream::cli

#endif  // KVSTREAM_CLIENT_CLI_EXPLAIN_TEXT_H_

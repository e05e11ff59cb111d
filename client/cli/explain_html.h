// A load's trace as one HTML page.
#ifndef KVSTREAM_CLIENT_CLI_EXPLAIN_HTML_H_
#define KVSTREAM_CLIENT_CLI_EXPLAIN_HTML_H_

#include <string>

#include "absl/strings/string_view.h"
#include "client/load_story.h"
#include "client/load_trace.h"

namespace kvstream::cli {

// Text that HTML shows as it is, in an element or a quoted attribute: markup is escaped, control
// characters and bytes beyond ASCII become '?'.
std::string EscapeHtml(absl::string_view text);

// Complete and self-contained: drawn as inline SVG, without scripts and without anything that is
// fetched; a Content-Security-Policy in the page says so to the browser. At most about 4 MB.
std::string ExplainHtml(const LoadTrace& trace, const LoadStory& story);

}  // namespace kvstream::cli

#endif  // KVSTREAM_CLIENT_CLI_EXPLAIN_HTML_H_

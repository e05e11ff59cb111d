// The trace files of tests/links/traces in memory.
#ifndef KVSTREAM_TESTS_LINKS_TRACE_SET_H_
#define KVSTREAM_TESTS_LINKS_TRACE_SET_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/rate_trace.h"

namespace kvstream {
namespace links {

struct NamedTrace {
  std::string name;    // file name without its ending
  std::string family;  // of the comment `# family: ...`
  bool tuning = false;
  absl::Duration rtt;
  RateTrace rate;
};

// INVALID_ARGUMENT if the text is no trace or lacks one of the comments.
absl::StatusOr<NamedTrace> ParseNamedTrace(absl::string_view name, absl::string_view text);

// All *.trace files of a folder, by name. NOT_FOUND if there are none.
absl::StatusOr<std::vector<NamedTrace>> ReadTraces(const std::string& folder);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_TRACE_SET_H_

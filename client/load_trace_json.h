// A load's trace as a file.
#ifndef KVSTREAM_CLIENT_LOAD_TRACE_JSON_H_
#define KVSTREAM_CLIENT_LOAD_TRACE_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/load_trace.h"

namespace kvstream {

// Of the file's first key, "kvstream_load_trace".
inline constexpr int kLoadTraceVersion = 1;
inline constexpr uint64_t kLoadTraceBytesMax = 16 << 20;

// docs/explain.md describes the keys. A trace of a recorder comes to at most about 6 MB.
std::string LoadTraceToJson(const LoadTrace& trace);

// Believes nothing: what passes has finite times from 0 to 1e9 ms in order, chunks and levels that
// the request allows, counts within LoadTrace's limits and short texts. INVALID_ARGUMENT naming the
// key otherwise, also for a file of another version. Keys that it does not know are skipped, so
// that versions may add some. Memory: about 20 times the text.
absl::StatusOr<LoadTrace> ParseLoadTrace(absl::string_view text);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_LOAD_TRACE_JSON_H_

// What kvstreamctl prints.
#ifndef KVSTREAM_CLIENT_CLI_OUTPUT_H_
#define KVSTREAM_CLIENT_CLI_OUTPUT_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace kvstream::cli {

// Keys stay in the order in which they are written.
using Json = nlohmann::ordered_json;

enum class Format { kHuman, kJson };

// Prints the result of a verb on stdout and flushes it: `json` on one line in Format::kJson, else
// `text`. UNAVAILABLE if stdout does not take it.
absl::Status Print(Format format, const Json& json, absl::string_view text);

// An error as one line: "kvstreamctl VERB: message".
std::string ErrorLine(absl::string_view verb, const absl::Status& status);

// A bar on stderr for work that takes longer than a moment; silent unless stderr is a terminal and
// the format is for people. Thread-safe. Erased on destruction.
class ProgressBar {
 public:
  // total: what Update() counts up to; 0 is allowed.
  ProgressBar(Format format, std::string label, int64_t total);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Never goes back. Cheap: draws at most ten times a second.
  void Update(int64_t done);

 private:
  const bool visible_;
  const std::string label_;
  const int64_t total_;
  absl::Mutex mutex_;
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  bool drawn_ ABSL_GUARDED_BY(mutex_) = false;
  const absl::Time started_;
  absl::Time next_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kvstream::cli

#endif  // KVSTREAM_CLIENT_CLI_OUTPUT_H_

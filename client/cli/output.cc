#include "client/cli/output.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace kvstream::cli {
namespace {

constexpr int kBarCells = 30;
constexpr absl::Duration kFirstDraw = absl::Milliseconds(300);
constexpr absl::Duration kRedraw = absl::Milliseconds(100);

}  // namespace

absl::Status Print(Format format, const Json& json, absl::string_view text) {
  // Bytes that are not UTF-8 (a model's name, say) become U+FFFD instead of an exception.
  std::string out = format == Format::kJson
                        ? json.dump(-1, ' ', false, Json::error_handler_t::replace)
                        : std::string(text);
  if (!out.empty() && out.back() != '\n') out += '\n';
  const bool written = std::fwrite(out.data(), 1, out.size(), stdout) == out.size();
  if (std::fflush(stdout) != 0 || !written) {
    return absl::UnavailableError("cannot write to standard output");
  }
  return absl::OkStatus();
}

std::string ErrorLine(absl::string_view verb, const absl::Status& status) {
  std::string line =
      absl::StrCat("kvstreamctl", verb.empty() ? "" : " ", verb, ": ", status.message());
  if (status.message().empty()) absl::StrAppend(&line, absl::StatusCodeToString(status.code()));
  for (char& c : line) {
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

ProgressBar::ProgressBar(Format format, std::string label, int64_t total)
    : visible_(format == Format::kHuman && isatty(STDERR_FILENO) == 1),
      label_(std::move(label)),
      total_(total),
      started_(absl::Now()) {
  absl::MutexLock lock(&mutex_);
  next_ = started_ + kFirstDraw;
}

ProgressBar::~ProgressBar() {
  absl::MutexLock lock(&mutex_);
  if (drawn_) std::fputs("\r\033[K", stderr);
}

void ProgressBar::Update(int64_t done) {
  if (!visible_) return;
  absl::MutexLock lock(&mutex_);
  done_ = std::max(done_, std::min(done, total_));
  const absl::Time now = absl::Now();
  if (now < next_) return;
  next_ = now + kRedraw;
  drawn_ = true;
  const double part = total_ > 0 ? static_cast<double>(done_) / static_cast<double>(total_) : 0;
  const int full = static_cast<int>(part * kBarCells);
  const double left = part > 0 ? absl::ToDoubleSeconds(now - started_) * (1 - part) / part : 0;
  std::fprintf(stderr, "\r\033[K%s [%s%s] %3.0f %%, %.0f s left", label_.c_str(),
               std::string(static_cast<size_t>(full), '#').c_str(),
               std::string(static_cast<size_t>(kBarCells - full), '.').c_str(), part * 100, left);
  std::fflush(stderr);
}

}  // namespace kvstream::cli

// Loads that share a link, scheduled and each on its own, beside what nobody could do better.
#ifndef KVSTREAM_TESTS_LINKS_SHARE_REPORT_H_
#define KVSTREAM_TESTS_LINKS_SHARE_REPORT_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "server/load/testing/shared_link.h"
#include "tests/links/trace_set.h"

namespace kvstream {
namespace links {

struct ShareOptions {
  uint32_t seed = 1;
  int rounds = 2;  // per trace and number of loads
  std::vector<int> loads = {2, 4, 8, 16, 32, 64};
  std::vector<std::string> families = {"constant", "steps", "walk", "stalls", "onoff"};
  int traces_per_family = 2;
  bool tuning = false;  // which traces; there are no tuning ones of onoff
};

// Of all loads of one number that come and go, one way of serving them.
struct ShareOutcome {
  int deadlines = 0;
  int misses = 0;          // a chunk was not in place at the deadline
  double level = 0;        // mean at the deadline, of all loads with one; missing chunks count 0
  int others = 0;          // loads without a deadline
  double delay_ratio = 0;  // their delay over that of the same load alone on an idle link
  int failed = 0;          // loads that did not end well
};

struct ShareRow {
  int loads = 0;
  ShareOutcome alone[2], shared[2];  // index: SharedQueueing
  int least = 0, achieved = 0;       // misses, see EdfBound
  // Misses of ServeOnline: who sees the link at once; a round trip late; and who leaves the others
  // LinkShare::kFloor beside; and who sees the link only while it sends, with the trace's mean rate
  // as record.
  int online = 0, late = 0, late_floor = 0, blind = 0;
  // Of loads with deadlines: the most levels of all together (BoundLevels), and those of the last
  // of the online ones.
  double most_levels = 0, blind_levels = 0;
};

struct ShareRows {
  std::vector<ShareRow> by_loads;   // as options.loads
  std::vector<ShareRow> by_family;  // as options.families, over all of options.loads
};

ShareRows RunShare(const std::vector<NamedTrace>& traces, const ShareOptions& options);

// A load alone on its link: ratio of its delay with the scheduler to that without, without (0) and
// with (1) a deadline.
struct SoloLoad {
  const NamedTrace* trace;
  absl::Duration at;
  uint32_t tokens;
  std::array<double, 2> ratios;
};
// Loads one at a time, at several moments of each trace of the split `tuning`.
std::vector<SoloLoad> RunSolo(const std::vector<NamedTrace>& traces, bool tuning);
std::array<double, 2> MeanRatios(const std::vector<SoloLoad>& loads);

// Misses, levels and delays of RunShare, Markdown.
std::string MissReport(const std::vector<NamedTrace>& traces, const ShareOptions& options);
// Of RunSolo: the mean by family and the loads without a deadline that lose most.
std::string SoloReport(const std::vector<NamedTrace>& traces, bool tuning);
// All tables of docs/links.md, Markdown.
std::string ShareReport(const std::vector<NamedTrace>& traces, const ShareOptions& options);

}  // namespace links
}  // namespace kvstream

#endif  // KVSTREAM_TESTS_LINKS_SHARE_REPORT_H_

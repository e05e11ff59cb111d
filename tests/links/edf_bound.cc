#include "tests/links/edf_bound.h"

#include <algorithm>
#include <functional>

namespace kvstream {
namespace links {
namespace {

constexpr double kTolerance = 1e-6;  // bytes

// In bytes of the link.
struct Job {
  double release, due, length;
};

int LeastMisses(const std::vector<Job>& jobs) {
  int least = 0;
  for (const Job& first : jobs) {
    for (const Job& last : jobs) {
      std::vector<double> lengths;
      double excess = -(last.due - first.release);
      for (const Job& job : jobs) {
        if (job.release < first.release || job.due > last.due) continue;
        lengths.push_back(job.length);
        excess += job.length;
      }
      std::sort(lengths.begin(), lengths.end(), std::greater<double>());
      int dropped = 0;
      for (const double length : lengths) {
        if (excess <= kTolerance) break;
        excess -= length;
        ++dropped;
      }
      least = std::max(least, dropped);
    }
  }
  return least;
}

int AchievedMisses(std::vector<Job> jobs) {
  std::sort(jobs.begin(), jobs.end(),
            [](const Job& a, const Job& b) { return a.release < b.release; });
  std::vector<Job> present;  // by due; length is what is left
  int misses = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const double now = jobs[i].release;
    present.push_back(jobs[i]);
    std::sort(present.begin(), present.end(),
              [](const Job& a, const Job& b) { return a.due < b.due; });
    std::vector<Job> kept;
    double end = now;
    for (const Job& job : present) {
      kept.push_back(job);
      end += job.length;
      if (end <= job.due + kTolerance) continue;
      const auto largest = std::max_element(
          kept.begin(), kept.end(), [](const Job& a, const Job& b) { return a.length < b.length; });
      end -= largest->length;
      kept.erase(largest);
      ++misses;
    }
    // Until the next arrival, the earliest deadline first.
    double room = i + 1 < jobs.size() ? jobs[i + 1].release - now : 0;
    present.clear();
    for (Job& job : kept) {
      const double part = std::min(room, job.length);
      room -= part;
      job.length -= part;
      if (job.length > kTolerance) present.push_back(job);
    }
  }
  return misses;
}

}  // namespace

EdfBound BoundMisses(const std::vector<EdfJob>& jobs, const RateTrace& trace) {
  std::vector<Job> in_bytes;
  for (const EdfJob& job : jobs) {
    const auto carried = [&](absl::Duration t) {
      return t > absl::ZeroDuration() ? trace.BytesBetween(absl::ZeroDuration(), t) : 0;
    };
    in_bytes.push_back({carried(job.release), carried(job.due), job.bytes});
  }
  return {LeastMisses(in_bytes), AchievedMisses(in_bytes)};
}

}  // namespace links
}  // namespace kvstream

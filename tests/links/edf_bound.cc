#include "tests/links/edf_bound.h"

#include <algorithm>
#include <functional>
#include <limits>

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

std::vector<Job> InBytes(const std::vector<EdfJob>& jobs, const RateTrace& trace) {
  std::vector<Job> in_bytes;
  for (const EdfJob& job : jobs) {
    const auto carried = [&](absl::Duration t) {
      return t > absl::ZeroDuration() ? trace.BytesBetween(absl::ZeroDuration(), t) : 0;
    };
    in_bytes.push_back({carried(job.release), carried(job.due), job.bytes});
  }
  return in_bytes;
}

// Of the hull of a job's levels over its bytes.
struct Piece {
  double levels, bytes;
  size_t job;
};

void AddHull(const EdfJob& job, size_t index, std::vector<Piece>* pieces) {
  std::vector<Piece> hull = {{0, job.bytes, index}};
  for (const double bytes : job.finer) {
    Piece piece = {1, bytes, index};
    while (!hull.empty() && piece.levels * hull.back().bytes > hull.back().levels * piece.bytes) {
      piece.levels += hull.back().levels;
      piece.bytes += hull.back().bytes;
      hull.pop_back();
    }
    hull.push_back(piece);
  }
  pieces->insert(pieces->end(), hull.begin(), hull.end());
}

}  // namespace

EdfBound BoundMisses(const std::vector<EdfJob>& jobs, const RateTrace& trace) {
  const std::vector<Job> in_bytes = InBytes(jobs, trace);
  return {LeastMisses(in_bytes), AchievedMisses(in_bytes)};
}

double BoundLevels(const std::vector<EdfJob>& jobs, const RateTrace& trace) {
  const std::vector<Job> in_bytes = InBytes(jobs, trace);
  const size_t n = jobs.size();
  // left[i][j]: what an interval from the release of i until j is due has left.
  std::vector<std::vector<double>> left(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) left[i][j] = in_bytes[j].due - in_bytes[i].release;
  }
  std::vector<Piece> pieces;
  for (size_t i = 0; i < n; ++i) AddHull(jobs[i], i, &pieces);
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.levels * b.bytes > b.levels * a.bytes;
  });
  double sum = 0;
  for (const Piece& piece : pieces) {
    const Job& job = in_bytes[piece.job];
    const auto each_around = [&](const auto& act) {
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j) {
          if (in_bytes[i].release <= job.release && in_bytes[j].due >= job.due) act(left[i][j]);
        }
      }
    };
    double fits = piece.bytes;
    each_around([&](double room) { fits = std::min(fits, std::max(room, 0.0)); });
    each_around([&](double& room) { room -= fits; });
    if (piece.bytes > 0) sum += piece.levels * fits / piece.bytes;
  }
  return sum;
}

double LevelOf(const EdfJob& job, double bytes) {
  double level = 0;
  bytes -= job.bytes;
  for (const double finer : job.finer) {
    if (bytes <= 0) break;
    level += std::min(bytes / finer, 1.0);
    bytes -= finer;
  }
  return level;
}

}  // namespace links
}  // namespace kvstream

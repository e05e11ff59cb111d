#include "tests/links/suffix_bound.h"

#include <algorithm>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/links/online_cut.h"

namespace kvstream {
namespace links {
namespace {

constexpr int kFutureCount = 32;
// What the planner keeps in hand where recompute is the last resort: the factor of
// server/load/adaptive_load_session_plan.cc; and what it wants for a promise before it has measured
// the prefill, as in prefill_model.h.
constexpr double kHedgeSafety = 1.03;
constexpr double kPromiseSafety = 1.15;

constexpr CutRule kRules[] = {CutRule::kSoonest, CutRule::kLast, CutRule::kPersist, CutRule::kMean,
                              CutRule::kFutures};
enum Column {
  kOurs,
  kOurCut,
  kFirstRule,
  kHedgedRule = kFirstRule + 5,
  kPromisedRule,
  kHedged,
  kPromised,
  kColumns
};

struct Row {
  int deadlines = 0;
  double clairvoyant = 0;
  int missed[kColumns] = {};
  double level[kColumns] = {};

  void Add(Column column, absl::optional<double> level_or_missed) {
    missed[column] += level_or_missed.has_value() ? 0 : 1;
    level[column] += level_or_missed.value_or(0);
  }
  void Add(const Row& other) {
    deadlines += other.deadlines;
    clairvoyant += other.clairvoyant;
    for (int i = 0; i < kColumns; ++i) {
      missed[i] += other.missed[i];
      level[i] += other.level[i];
    }
  }
  std::string Text(const std::string& name) const {
    std::string text = absl::StrFormat("| %s | %d |", name, deadlines);
    for (int i = 0; i < kColumns; ++i) {
      absl::StrAppendFormat(&text, " %.1f, %.3f |", 100.0 * missed[i] / std::max(deadlines, 1),
                            level[i] / std::max(clairvoyant, 1e-9));
    }
    return text + "\n";
  }
};

// Moments of tuning traces at which something is carried.
std::vector<Future> DrawFutures(const std::vector<NamedTrace>& traces, const std::string& family,
                                std::mt19937_64* bits) {
  std::vector<const NamedTrace*> like;
  for (const bool same : {true, false}) {
    for (const NamedTrace& trace : traces) {
      if (trace.tuning && like.size() < traces.size() && (!same || trace.family == family)) {
        like.push_back(&trace);
      }
    }
    if (!like.empty()) break;
  }
  std::vector<Future> futures;
  while (!like.empty() && futures.size() < kFutureCount) {
    const NamedTrace& trace = *like[(*bits)() % like.size()];
    const absl::Duration from = absl::Milliseconds((*bits)() % 40000);
    if (trace.rate.BytesPerSecondAt(from) > 0) futures.push_back({&trace.rate, from});
  }
  return futures;
}

}  // namespace

absl::StatusOr<std::string> SuffixBound(const std::vector<NamedTrace>& traces,
                                        const std::vector<Case>& cases, const Ladder& ladder,
                                        Prior prior, const LoadSessionOptions& options) {
  std::map<std::string, Row> rows;
  std::mt19937_64 bits(1);
  for (const Case& one : cases) {
    for (double factor : kDeadlineFactors) {
      const LoadSpec spec = DeadlineSpec(one, ladder, RecomputeAbility::kSuffix, prior, factor);
      const std::vector<Future> futures = DrawFutures(traces, one.trace->family, &bits);
      const DeadlineBound bound = ClairvoyantQuality(spec, one.link);
      Row& row = rows[one.trace->family];
      ++row.deadlines;
      if (!bound.feasible) continue;
      row.clairvoyant += bound.mean_level;
      const auto result = RunSession(one, spec, ladder, options);
      if (!result.ok()) return result.status();
      const std::vector<double> stream = BaseInPlace(spec, one.link);
      const auto of_cut = [&](uint32_t cut) {
        return LevelOfCut(spec, one.link.rtt, cut, stream[cut],
                          [&one](double seconds) { return one.link.Bytes(seconds); });
      };
      row.Add(kOurs, result->mean_level);
      absl::optional<double> level;
      if (result->unusable) {
        ++row.missed[kOurs];
      } else {
        const size_t cut = spec.chunks.size() - result->recomputed_chunks;
        // What the model's clock rounds may make the tightest of them late.
        level = std::max(of_cut(static_cast<uint32_t>(cut)), result->mean_level);
      }
      row.Add(kOurCut, level);
      const auto add_rule = [&](int column, CutRule rule, const Careful& careful) {
        const absl::optional<uint32_t> cut = OnlineCut(spec, one.link, rule, futures, careful);
        level.reset();
        if (cut.has_value()) level = of_cut(*cut);
        row.Add(static_cast<Column>(column), level);
      };
      int column = kFirstRule;
      for (CutRule rule : kRules) add_rule(column++, rule, Careful());
      Careful careful;
      careful.margin =
          std::min(options.deadline_margin + *spec.deadline / 100, *spec.deadline / 10);
      careful.safety = kHedgeSafety;
      add_rule(kHedgedRule, CutRule::kFutures, careful);
      row.Add(kHedged, CarefulClairvoyant(spec, one.link, careful));
      careful.safety = kPromiseSafety;
      add_rule(kPromisedRule, CutRule::kFutures, careful);
      row.Add(kPromised, CarefulClairvoyant(spec, one.link, careful));
    }
  }
  std::string text =
      "| family | deadlines | ours | our cut | soonest | last | persist | mean | futures | "
      "futures, "
      "3 % in hand | futures, 15 % | clairvoyant, 3 % | clairvoyant, 15 % |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  Row all;
  for (const auto& row : rows) {
    text += row.second.Text(row.first);
    all.Add(row.second);
  }
  return text + all.Text("all");
}

}  // namespace links
}  // namespace kvstream

#include "tests/links/report.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/load/testing/link_simulator.h"
#include "tests/links/baselines.h"

namespace kvstream {
namespace links {
namespace {

double TextSeconds(const Case& one) {
  return RecomputeAll(*one.model, one.tokens, one.link).delay_s;
}

std::string Cell(const Score& score) {
  return absl::StrFormat("%.3f, %+.1f, %.3f", score.mean_ratio(), score.extra_unusable(),
                         score.level_ratio());
}

std::string Row(const std::vector<std::string>& cells) {
  return absl::StrCat("| ", absl::StrJoin(cells, " | "), " |\n");
}

std::string Head(const std::vector<std::string>& cells) {
  return absl::StrCat(Row(cells), "|",
                      absl::StrJoin(std::vector<std::string>(cells.size(), "---"), "|"), "|\n");
}

const char* PriorName(Prior prior) { return prior == Prior::kNone ? "none" : "record"; }

// What a policy does under the deadlines, summed over cases.
struct PolicyScore {
  int loads = 0;
  int misses = 0;
  double delay = 0, level = 0, kl = 0, bytes = 0;
  void Add(double delay_s, bool missed, double mean_level, double mean_kl, double sent) {
    ++loads;
    misses += missed ? 1 : 0;
    delay += delay_s;
    level += mean_level;
    kl += mean_kl;
    bytes += sent;
  }
  std::string Cells(const char* name, bool has_level) const {
    return Row({name, absl::StrFormat("%.2f", delay / loads),
                absl::StrFormat("%.1f", 100.0 * misses / loads),
                has_level ? absl::StrFormat("%.2f", level / loads) : "-",
                kl < 0 ? "-" : absl::StrFormat("%.5f", kl / loads),
                absl::StrFormat("%.0f", bytes / loads / 1e6)});
  }
};

absl::StatusOr<std::string> PolicyTable(const std::vector<Case>& cases, const Ladder& ladder,
                                        const LoadSessionOptions& options, int64_t* loads) {
  enum {
    kOurs,
    kOursFront,
    kCacheGenOurs,
    kFinest,
    kCoarsest,
    kCacheGenOwn,
    kEight,
    kText,
    kBest,
    kBestFront,
    kCount
  };
  std::vector<PolicyScore> scores(kCount);
  for (const Case& one : cases) {
    for (double factor : kDeadlineFactors) {
      for (int index = kOurs; index <= kCoarsest; ++index) {
        const RecomputeAbility ability =
            index == kOursFront ? RecomputeAbility::kFront : RecomputeAbility::kNone;
        LoadSpec spec = DeadlineSpec(one, ladder, ability, Prior::kRecord, factor);
        if (index == kCacheGenOurs) spec.policy = LoadPolicy::kCacheGen;
        if (index == kFinest || index == kCoarsest) {
          spec.policy = LoadPolicy::kFixed;
          spec.level = index == kFinest ? static_cast<int>(ladder.bits.size()) - 1 : 0;
        }
        const absl::StatusOr<LoadResult> result = RunSession(one, spec, ladder, options);
        if (!result.ok()) return result.status();
        ++*loads;
        scores[index].Add(result->delay_s, result->unusable, result->mean_level, result->mean_kl,
                          result->bytes);
      }
      LoadSpec spec = DeadlineSpec(one, ladder, RecomputeAbility::kNone, Prior::kNone, factor);
      const double deadline_s = absl::ToDoubleSeconds(*spec.deadline);
      const auto add = [&](int index, const BaselineResult& result) {
        scores[index].Add(result.delay_s, result.delay_s > deadline_s, result.mean_level,
                          result.mean_kl, result.bytes);
      };
      add(kCacheGenOwn, CacheGen(*one.model, one.tokens, deadline_s, one.link));
      add(kEight, FixedBits(*one.model, one.tokens, kEightBits, one.link));
      add(kText, RecomputeAll(*one.model, one.tokens, one.link));
      for (int index : {kBest, kBestFront}) {
        spec.ability = index == kBest ? RecomputeAbility::kNone : RecomputeAbility::kFront;
        const DeadlineBound bound = ClairvoyantQuality(spec, one.link);
        scores[index].Add(bound.feasible ? deadline_s : ClairvoyantDelay(spec, one.link),
                          !bound.feasible, bound.mean_level, 0, 0);
      }
    }
  }
  for (int index : {kBest, kBestFront}) scores[index].kl = -1;
  scores[kEight].kl = 0.00002 * scores[kEight].loads;
  std::string text = Head(
      {"policy", "mean load delay, s", "deadlines missed, %", "mean level", "mean KL", "MB sent"});
  absl::StrAppend(&text, scores[kOurs].Cells("deadline, `NONE`", true),
                  scores[kOursFront].Cells("deadline, `FRONT`", true),
                  scores[kCacheGenOurs].Cells("CacheGen's policy on our levels", true),
                  scores[kFinest].Cells("our finest, fixed", true),
                  scores[kCoarsest].Cells("our coarsest, fixed", true),
                  scores[kCacheGenOwn].Cells("CacheGen's policy on its levels", false),
                  scores[kEight].Cells("8 bits", false),
                  scores[kText].Cells("text: recompute all", false),
                  scores[kBest].Cells("clairvoyant, `NONE`", true),
                  scores[kBestFront].Cells("clairvoyant, `FRONT`", true));
  return text;
}

absl::StatusOr<std::string> ThreeGigabit(const SweepOptions& options, int64_t* loads) {
  const RateTrace trace = RateTrace::Constant(3e9 / 8);
  const NamedTrace named = {"constant 3 Gbit/s", "constant", false, absl::Milliseconds(10), trace};
  std::string text = Head({"model, tokens", "8 bits, s", "text, s", "ours, s", "8 bits / ours",
                           "text / ours", "ours `FRONT`, s", "text / `FRONT`"});
  for (const Ladder* ladder : {&Ladders()[0], &Ladders()[1]}) {
    absl::StrAppend(&text, Row({absl::StrCat("*", ladder->name, "*"), "", "", "", "", "", "", ""}));
    for (const Model& model : Models()) {
      for (uint32_t tokens : model.contexts) {
        const Case one = {&named,  &model, tokens, {&named.rate, absl::ZeroDuration(), named.rtt},
                          3e9 / 8, 3e9 / 8};
        double ours[2];
        for (int front : {0, 1}) {
          const RecomputeAbility ability =
              front ? RecomputeAbility::kFront : RecomputeAbility::kNone;
          const auto result = RunSession(one, FastestSpec(one, *ladder, ability, Prior::kRecord),
                                         *ladder, options.session);
          if (!result.ok()) return result.status();
          ours[front] = result->delay_s;
          ++*loads;
        }
        const double eight = FixedBits(model, tokens, kEightBits, one.link).delay_s;
        const double prefill = TextSeconds(one);
        absl::StrAppend(
            &text,
            Row({absl::StrCat(model.name, ", ", tokens), absl::StrFormat("%.3f", eight),
                 absl::StrFormat("%.3f", prefill), absl::StrFormat("%.3f", ours[0]),
                 absl::StrFormat("%.1f", eight / ours[0]),
                 absl::StrFormat("%.1f", prefill / ours[0]), absl::StrFormat("%.3f", ours[1]),
                 absl::StrFormat("%.1f", prefill / ours[1])}));
      }
    }
  }
  return text;
}

std::map<std::string, std::vector<Case>> ByFamily(const std::vector<Case>& cases) {
  std::map<std::string, std::vector<Case>> families;
  for (const Case& one : cases) families[one.trace->family].push_back(one);
  return families;
}

void Merge(const Score& from, Score* to) {
  to->loads += from.loads;
  to->ratio_sum += from.ratio_sum;
  to->ratio_min = std::min(to->ratio_min, from.ratio_min);
  to->ratio_max = std::max(to->ratio_max, from.ratio_max);
  to->level_excess_max = std::max(to->level_excess_max, from.level_excess_max);
  to->recomputed_sum += from.recomputed_sum;
  to->deadlines += from.deadlines;
  to->unusable += from.unusable;
  to->clairvoyant_misses += from.clairvoyant_misses;
  to->level_sum += from.level_sum;
  to->clairvoyant_level_sum += from.clairvoyant_level_sum;
}

}  // namespace

absl::Status AddScore(const std::vector<Case>& cases, const Ladder& ladder,
                      RecomputeAbility ability, Prior prior, const LoadSessionOptions& options,
                      Score* score) {
  for (const Case& one : cases) {
    const LoadSpec fastest = FastestSpec(one, ladder, ability, prior);
    absl::StatusOr<LoadResult> result = RunSession(one, fastest, ladder, options);
    if (!result.ok()) return result.status();
    const double ratio = result->delay_s / ClairvoyantDelay(fastest, one.link);
    ++score->loads;
    score->ratio_sum += ratio;
    score->ratio_min = std::min(score->ratio_min, ratio);
    score->ratio_max = std::max(score->ratio_max, ratio);
    score->recomputed_sum += result->recomputed;
    for (double factor : kDeadlineFactors) {
      const LoadSpec spec = DeadlineSpec(one, ladder, ability, prior, factor);
      result = RunSession(one, spec, ladder, options);
      if (!result.ok()) return result.status();
      const DeadlineBound bound = ClairvoyantQuality(spec, one.link);
      ++score->deadlines;
      score->unusable += result->unusable ? 1 : 0;
      score->clairvoyant_misses += bound.feasible ? 0 : 1;
      if (!bound.feasible) continue;
      score->level_sum += result->mean_level;
      if (!result->unusable) {
        score->level_excess_max =
            std::max(score->level_excess_max, result->mean_level - bound.mean_level);
      }
      score->clairvoyant_level_sum += bound.mean_level;
    }
  }
  return absl::OkStatus();
}

namespace {

// LoadSpec::floor_below_share with which the mean KL is at most mean_kl.
double BelowShare(const Ladder& ladder, int level, double mean_kl) {
  return level > 0 ? FloorBelowShare(mean_kl, ladder.kl[level], ladder.kl[level - 1]) : 0;
}

// The shortest delay with the fewest chunks at `level` and the others one level coarser that keep
// the mean KL at or below mean_kl: the smaller first, which delays no decoding.
double MixedDelay(const Case& one, const Ladder& ladder, int level, double mean_kl) {
  const int n = static_cast<int>(one.tokens / kChunkTokens);
  const int coarser = static_cast<int>(BelowShare(ladder, level, mean_kl) * n);
  const double bytes_per_bit = kChunkTokens * one.model->values_per_token / 8;
  const double rtt_s = absl::ToDoubleSeconds(one.link.rtt);
  const double decode_s = kChunkTokens * one.model->decode_s_per_token;
  double ready_s = rtt_s;
  absl::Duration at = one.link.start;
  for (int chunk = 0; chunk < n; ++chunk) {
    const double bits = ladder.bits[chunk < coarser ? level - 1 : level];
    at = one.link.trace->TimeToCarry(at, bytes_per_bit * bits);
    ready_s = std::max(ready_s, rtt_s + absl::ToDoubleSeconds(at - one.link.start)) + decode_s;
  }
  return ready_s;
}

}  // namespace

absl::Status AddCacheGen(const std::vector<Case>& cases, const Ladder& ladder, Prior prior,
                         const LoadSessionOptions& options, CacheGenScore* score) {
  for (const Case& one : cases) {
    for (double factor : kCacheGenDeadlineFactors) {
      const double bytes = one.tokens * one.model->values_per_token * CacheGenLadder().bits[1] / 8;
      const double deadline_s =
          absl::ToDoubleSeconds(one.link.rtt) + factor * bytes / one.mean_bytes_per_second;
      const BaselineResult theirs = CacheGen(*one.model, one.tokens, deadline_s, one.link);
      int level = 0;
      while (level + 1 < static_cast<int>(ladder.kl.size()) && ladder.kl[level] > theirs.mean_kl) {
        ++level;
      }
      LoadSpec spec = FastestSpec(one, ladder, RecomputeAbility::kNone, prior, level);
      const auto ours = RunSession(one, spec, ladder, options);
      if (!ours.ok()) return ours.status();
      ++score->loads;
      const double bound_s = ClairvoyantDelay(spec, one.link);
      score->bound_sum += bound_s / theirs.delay_s;
      score->mixed_sum += MixedDelay(one, ladder, level, theirs.mean_kl) / theirs.delay_s;
      score->bytes_ratio_sum +=
          one.tokens * one.model->values_per_token * ladder.bits[level] / 8 / theirs.bytes;
      score->ratio_sum += ours->delay_s / theirs.delay_s;
      score->delay_sum += ours->delay_s;
      spec.floor_below_share = BelowShare(ladder, level, theirs.mean_kl);
      const auto mixed = RunSession(one, spec, ladder, options);
      if (!mixed.ok()) return mixed.status();
      score->mean_floor_ratio_sum += mixed->delay_s / theirs.delay_s;
      score->mean_floor_delay_sum += mixed->delay_s;
      score->worse += mixed->mean_kl > theirs.mean_kl * (1 + 1e-9);
      score->cachegen_delay_sum += theirs.delay_s;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Summary(const std::vector<Case>& cases, const Ladder& ladder,
                                    const LoadSessionOptions& options) {
  std::string text;
  for (Prior prior : {Prior::kRecord, Prior::kNone}) {
    for (RecomputeAbility ability :
         {RecomputeAbility::kNone, RecomputeAbility::kSuffix, RecomputeAbility::kFront}) {
      std::vector<std::string> cells = {absl::StrCat(AbilityName(ability), " ", PriorName(prior))};
      Score all;
      for (const auto& family : ByFamily(cases)) {
        Score score;
        const absl::Status status =
            AddScore(family.second, ladder, ability, prior, options, &score);
        if (!status.ok()) return status;
        cells.push_back(absl::StrCat(family.first, " ", Cell(score)));
        Merge(score, &all);
      }
      cells.push_back(Cell(all));
      absl::StrAppend(&text, Row(cells));
    }
  }
  return text;
}

absl::StatusOr<std::string> Worst(const std::vector<Case>& cases, const Ladder& ladder,
                                  RecomputeAbility ability, Prior prior, bool deadline, int count,
                                  const LoadSessionOptions& options) {
  std::vector<std::pair<double, std::string>> rows;
  const auto add = [&](const Case& one, const LoadSpec& spec, double badness, double bound_s,
                       const LoadResult& result, double bound_level) {
    rows.emplace_back(
        -badness,
        absl::StrFormat("%.3f %s start %.3f s, %s, %d tokens, rtt %s, deadline %s: %.4f s (bound "
                        "%.4f), level %.2f (%.2f), recomputed %.2f, %.1f MB\n",
                        badness, one.trace->name, absl::ToDoubleSeconds(one.link.start),
                        one.model->name, one.tokens, absl::FormatDuration(one.link.rtt),
                        spec.deadline ? absl::FormatDuration(*spec.deadline) : "none",
                        result.delay_s, bound_s, result.mean_level, bound_level, result.recomputed,
                        result.bytes / 1e6));
  };
  for (const Case& one : cases) {
    for (double factor : kDeadlineFactors) {
      const LoadSpec spec = deadline ? DeadlineSpec(one, ladder, ability, prior, factor)
                                     : FastestSpec(one, ladder, ability, prior);
      const auto result = RunSession(one, spec, ladder, options);
      if (!result.ok()) return result.status();
      const double bound_s = ClairvoyantDelay(spec, one.link);
      if (!deadline) {
        add(one, spec, result->delay_s / bound_s, bound_s, *result, 0);
        break;
      }
      const DeadlineBound bound = ClairvoyantQuality(spec, one.link);
      if (!bound.feasible) continue;
      const double badness = result->unusable ? 1 + absl::ToDoubleSeconds(*spec.deadline) / bound_s
                                              : (bound.mean_level - result->mean_level) / 4;
      add(one, spec, badness, bound_s, *result, bound.mean_level);
    }
  }
  std::sort(rows.begin(), rows.end());
  std::string text;
  for (int i = 0; i < count && i < static_cast<int>(rows.size()); ++i) text += rows[i].second;
  return text;
}

namespace {

// One context a trace, with the scheduler and without.
absl::StatusOr<std::string> GatedTable(const std::vector<NamedTrace>& traces, SweepOptions options,
                                       int64_t* loads) {
  options.contexts_per_trace = 1;
  std::string text = Head({"scheduler", "`NONE`", "`SUFFIX`", "`ANY`", "`FRONT`"});
  for (const bool gated : {false, true}) {
    options.gated = gated;
    const std::vector<Case> cases = MakeCases(traces, options);
    std::vector<std::string> cells = {gated ? "with" : "without"};
    for (RecomputeAbility ability : kAbilities) {
      Score score;
      const absl::Status status =
          AddScore(cases, Ladders()[0], ability, Prior::kRecord, options.session, &score);
      if (!status.ok()) return status;
      *loads += score.loads + score.deadlines;
      cells.push_back(Cell(score));
    }
    absl::StrAppend(&text, Row(cells));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> Report(const std::vector<NamedTrace>& traces,
                                   const SweepOptions& options, int64_t* loads) {
  const std::vector<Case> cases = MakeCases(traces, options);
  std::string families_text, all_text, cachegen_text;
  for (const Ladder& ladder : Ladders()) {
    for (Prior prior : {Prior::kRecord, Prior::kNone}) {
      const bool detailed = &ladder == &Ladders()[0] && prior == Prior::kRecord;
      std::map<std::string, std::vector<std::string>> family_cells;
      std::vector<std::string> all_cells = {ladder.name, PriorName(prior)};
      std::vector<std::string> total_cells = {"all"};
      for (RecomputeAbility ability : kAbilities) {
        Score all;
        for (const auto& family : ByFamily(cases)) {
          Score score;
          const absl::Status status =
              AddScore(family.second, ladder, ability, prior, options.session, &score);
          if (!status.ok()) return status;
          family_cells[family.first].push_back(Cell(score));
          Merge(score, &all);
        }
        *loads += all.loads + all.deadlines;
        all_cells.push_back(Cell(all));
        total_cells.push_back(Cell(all));
      }
      absl::StrAppend(&all_text, Row(all_cells));
      if (detailed) {
        families_text = Head({"family", "`NONE`", "`SUFFIX`", "`ANY`", "`FRONT`"});
        for (auto& family : family_cells) {
          family.second.insert(family.second.begin(), family.first);
          absl::StrAppend(&families_text, Row(family.second));
        }
        absl::StrAppend(&families_text, Row(total_cells));
      }
    }
    CacheGenScore score;
    const absl::Status status = AddCacheGen(cases, ladder, Prior::kRecord, options.session, &score);
    if (!status.ok()) return status;
    *loads += 2 * score.loads;
    absl::StrAppend(
        &cachegen_text,
        Row({ladder.name, absl::StrFormat("%.3f", score.mean_ratio()),
             absl::StrFormat("%.3f", score.delay_sum / score.cachegen_delay_sum),
             absl::StrFormat("%.3f", score.bound_sum / score.loads),
             absl::StrFormat("%.3f", score.bytes_ratio_sum / score.loads),
             absl::StrFormat("%.3f", score.mean_floor_ratio_sum / score.loads),
             absl::StrFormat("%.3f", score.mean_floor_delay_sum / score.cachegen_delay_sum),
             absl::StrFormat("%.3f", score.mixed_sum / score.loads)}));
  }
  const absl::StatusOr<std::string> policies =
      PolicyTable(cases, Ladders()[0], options.session, loads);
  if (!policies.ok()) return policies.status();
  const absl::StatusOr<std::string> three = ThreeGigabit(options, loads);
  if (!three.ok()) return three.status();
  const absl::StatusOr<std::string> gated = GatedTable(traces, options, loads);
  if (!gated.ok()) return gated.status();

  return absl::StrCat(
      "### Against the clairvoyant\n\nEach cell: mean ratio of load delays (`fastest`, level ",
      kFastestFloor,
      "), points of deadlines at which more often a chunk was not in place, "
      "ratio of mean levels (`deadline`).\n\n",
      Head({"levels", "prior", "`NONE`", "`SUFFIX`", "`ANY`", "`FRONT`"}), all_text,
      "\n### By family (", Ladders()[0].name, ", prior: record)\n\n", families_text,
      "\n### Against CacheGen's policy on its levels, at its quality or better\n\n",
      Head({"levels", "mean ratio of load delays", "ratio of mean load delays",
            "clairvoyant, same level", "bytes at that level / CacheGen's",
            "with its mean KL as floor: mean ratio", "ratio of means",
            "clairvoyant, levels mixed to the same KL"}),
      cachegen_text, "\n### Behind the server's link scheduler, alone on the link (",
      Ladders()[0].name, ", prior: record, one context a trace)\n\n", *gated,
      "\n### Policies under the same deadlines (", Ladders()[0].name, ")\n\n", *policies,
      "\n### At 3 Gbit/s, 10 ms round trip, level ", kFastestFloor, "\n\n", *three);
}

absl::StatusOr<std::string> DelayCurve(const SweepOptions& options) {
  std::string text = "model,ability,mbit,delay_s,clairvoyant_s,cachegen_s,eight_bits_s,text_s\n";
  const Ladder& ladder = Ladders()[0];
  for (const Model& model : Models()) {
    for (double mbit = 100; mbit <= 10001; mbit *= 1.2589254) {
      const NamedTrace named = {"constant", "constant", false, absl::Milliseconds(10),
                                RateTrace::Constant(mbit * 125e3)};
      const Case one = {&named,       &model,
                        8192,         {&named.rate, absl::ZeroDuration(), named.rtt},
                        mbit * 125e3, mbit * 125e3};
      for (RecomputeAbility ability : {RecomputeAbility::kNone, RecomputeAbility::kFront}) {
        const LoadSpec spec = FastestSpec(one, ladder, ability, Prior::kRecord);
        const auto result = RunSession(one, spec, ladder, options.session);
        if (!result.ok()) return result.status();
        // At the level of its default.
        const double cachegen =
            FixedBits(model, one.tokens, CacheGenLadder().bits[1], one.link).delay_s;
        absl::StrAppend(&text, "\"", model.name, "\",", AbilityName(ability), ",", mbit, ",",
                        result->delay_s, ",", ClairvoyantDelay(spec, one.link), ",", cachegen, ",",
                        FixedBits(model, one.tokens, kEightBits, one.link).delay_s, ",",
                        TextSeconds(one), "\n");
      }
    }
  }
  return text;
}

absl::StatusOr<std::string> Timeline(const std::vector<NamedTrace>& traces,
                                     const SweepOptions& options) {
  const auto trace = std::find_if(traces.begin(), traces.end(), [](const NamedTrace& trace) {
    return trace.family == "onoff" && !trace.tuning;
  });
  if (trace == traces.end()) return absl::NotFoundError("no final trace of family onoff");
  const Model& model = Models()[1];
  const Case one = {
      &*trace, &model,
      32768,   {&trace->rate, absl::Seconds(12), trace->rtt},
      0,       trace->rate.BytesBetween(absl::ZeroDuration(), absl::Seconds(40)) / 40};
  LoadSpec spec = DeadlineSpec(one, Ladders()[0], RecomputeAbility::kFront, Prior::kNone, 4);
  SimulatedLink link;
  link.one_way = trace->rtt / 2;
  const LinkView view = one.link;
  link.carry = [view](absl::Duration from, double bytes) {
    return view.trace->TimeToCarry(view.start + from, bytes) - view.start;
  };
  const SimulationResult run =
      Simulate(spec, options.session, link, MakeClient(model), {}, /*keep_samples=*/true);
  if (!run.status.ok()) return run.status;
  std::string text = absl::StrCat(
      "# ", trace->name, ", ", model.name, ", ", one.tokens, " tokens, FRONT, deadline ",
      absl::ToDoubleSeconds(*spec.deadline), " s, ready ",
      absl::ToDoubleSeconds(run.finish.load_delay), " s, mean level ", run.mean_level, "\n");
  absl::StrAppend(
      &text, "seconds,link_mbit,estimate_mbit,low_mbit,sent_mb,acknowledged_mb,ready,recompute\n");
  for (const SimulationResult::Sample& sample : run.samples) {
    const LoadSessionState& state = sample.state;
    absl::StrAppend(&text, absl::ToDoubleSeconds(sample.at), ",",
                    trace->rate.BytesPerSecondAt(view.start + sample.at) / 125e3, ",",
                    state.bandwidth_bytes_per_second / 125e3, ",",
                    state.bandwidth_low_bytes_per_second / 125e3, ",", state.bytes_sent / 1e6, ",",
                    state.bytes_acknowledged / 1e6, ",", state.chunks_ready, ",",
                    state.chunks_to_recompute, "\n");
  }
  return text;
}

}  // namespace links
}  // namespace kvstream

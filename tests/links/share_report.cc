#include "tests/links/share_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/load/link_share.h"
#include "tests/links/edf_bound.h"
#include "tests/links/edf_online.h"
#include "tests/links/workload.h"

namespace kvstream {
namespace links {
namespace {

// What all bases together need of the link while loads come.
constexpr double kDemand = 0.6;
constexpr SharedQueueing kQueueings[] = {SharedQueueing::kInTurn, SharedQueueing::kFirstComeFirst};

SharedLink LinkOf(const NamedTrace& trace) {
  SharedLink link;
  link.one_way = trace.rtt / 2;
  const RateTrace* rate = &trace.rate;
  link.carry = [rate](absl::Duration from, double bytes) { return rate->TimeToCarry(from, bytes); };
  return link;
}

double BaseBytes(const LoadSpec& spec) {
  double bytes = 0;
  for (const StoredChunkSizes& chunk : spec.chunks) {
    bytes += static_cast<double>(chunk.segment_bytes[0]);
  }
  return bytes;
}

// Bytes of each level above the base.
std::vector<double> FinerBytes(const LoadSpec& spec) {
  std::vector<double> bytes(spec.chunks[0].segment_bytes.size() - 1);
  for (const StoredChunkSizes& chunk : spec.chunks) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] += static_cast<double>(chunk.segment_bytes[i + 1]);
    }
  }
  return bytes;
}

double MeanRate(const RateTrace& rate) {
  return rate.BytesBetween(absl::ZeroDuration(), absl::Seconds(20)) / 20;
}

// Half of them with a deadline of 1.5, 4 or 10 times what the link's mean rate needs for the base,
// plus a round trip, one decode and 50 ms.
std::vector<SharedLoad> MakeLoads(const NamedTrace& trace, int count, std::mt19937& random) {
  const Model& model = Models()[1];
  const uint32_t contexts[] = {1536, 4096, 8192, 32768};
  const double factors[] = {1.5, 4, 10};
  const double rate = MeanRate(trace.rate);
  std::vector<SharedLoad> loads(count);
  double sum = 0;
  for (int i = 0; i < count; ++i) {
    SharedLoad& load = loads[i];
    load.spec = MakeSpec(model, contexts[random() % 4], Ladders()[0]);
    load.client = MakeClient(model);
    const double bytes = BaseBytes(load.spec);
    sum += bytes;
    if (i % 2 == 0) {
      load.spec.policy = LoadPolicy::kDeadline;
      const double decode_s = kChunkTokens * model.decode_s_per_token;
      load.spec.deadline =
          absl::Seconds(factors[random() % 3] * bytes / rate + decode_s + 0.050) + trace.rtt;
    } else {
      load.spec.policy = LoadPolicy::kFastest;
    }
  }
  std::uniform_real_distribution<double> when(0, sum / (kDemand * rate));
  for (SharedLoad& load : loads) load.at = absl::Seconds(when(random));
  return loads;
}

void Bound(const std::vector<SharedLoad>& loads, const NamedTrace& trace, ShareRow* row) {
  std::vector<EdfJob> jobs, others;
  for (const SharedLoad& load : loads) {
    if (!load.spec.deadline) {
      others.push_back({load.at, absl::InfiniteDuration(), BaseBytes(load.spec)});
      continue;
    }
    // The last chunk must be decoded, and the report that says so be there, at the deadline.
    const absl::Duration after =
        trace.rtt + absl::Seconds(kChunkTokens * load.client.decode_seconds_per_token);
    jobs.push_back({load.at, load.at + *load.spec.deadline - after, BaseBytes(load.spec),
                    FinerBytes(load.spec)});
  }
  const EdfBound bound = BoundMisses(jobs, trace.rate);
  row->least += bound.least;
  row->achieved += bound.achieved;
  row->most_levels += BoundLevels(jobs, trace.rate);
  row->online += ServeOnline(jobs, others, trace.rate, {}).misses;
  OnlineSender sender;
  sender.round_trip = trace.rtt;
  row->late += ServeOnline(jobs, others, trace.rate, sender).misses;
  sender.floor = LinkShare::kFloor;
  row->late_floor += ServeOnline(jobs, others, trace.rate, sender).misses;
  sender.record = MeanRate(trace.rate);
  const OnlineOutcome blind = ServeOnline(jobs, others, trace.rate, sender);
  row->blind += blind.misses;
  row->blind_levels += blind.levels;
}

void Count(const std::vector<SharedLoad>& loads, const NamedTrace& trace,
           const SharedLinkResult& result, ShareOutcome* outcome) {
  for (size_t i = 0; i < loads.size(); ++i) {
    const SharedLoadResult& got = result.loads[i];
    outcome->failed += !got.status.ok();
    if (loads[i].spec.deadline) {
      ++outcome->deadlines;
      outcome->misses += !got.usable_at_deadline;
      outcome->level += got.mean_level_at_deadline;
      continue;
    }
    const absl::Duration idle =
        trace.rate.TimeToCarry(loads[i].at, BaseBytes(loads[i].spec)) - loads[i].at + trace.rtt;
    ++outcome->others;
    outcome->delay_ratio += absl::FDivDuration(got.finish.load_delay, idle);
  }
}

double Jain(const std::vector<double>& shares) {
  double sum = 0, squares = 0;
  for (const double share : shares) {
    sum += share;
    squares += share * share;
  }
  return squares > 0 ? sum * sum / (static_cast<double>(shares.size()) * squares) : 0;
}

NamedTrace ConstantTrace(double mbit, absl::Duration rtt) {
  return {"constant", "constant", false, rtt, RateTrace::Constant(mbit * 125e3)};
}

// Jain's index of what `count` equal loads without deadlines, which begin 50 ms apart, have got
// when the link has carried half of it all.
double Fairness(int count, bool scheduled, SharedQueueing queueing) {
  const NamedTrace trace = ConstantTrace(1000, absl::Milliseconds(10));
  SharedLink link = LinkOf(trace);
  link.scheduled = scheduled;
  link.queueing = queueing;
  std::vector<SharedLoad> loads(count);
  for (int i = 0; i < count; ++i) {
    loads[i].at = absl::Milliseconds(50 * i);
    loads[i].spec = MakeSpec(Models()[1], 32768, Ladders()[0]);
    loads[i].spec.policy = LoadPolicy::kFastest;
    loads[i].client = MakeClient(Models()[1]);
  }
  const absl::Duration half =
      trace.rate.TimeToCarry(absl::ZeroDuration(), count * BaseBytes(loads[0].spec) / 2);
  std::vector<double> shares(count);
  link.on_report = [&](absl::Duration at, size_t load, uint64_t acknowledged) {
    if (at <= half) shares[load] = static_cast<double>(acknowledged);
  };
  SimulateShared(loads, link);
  return Jain(shares);
}

// Misses among `count` loads that could all be in time, when one comes first that cannot.
int SunkBy(bool late_load, int count, bool scheduled, SharedQueueing queueing) {
  const NamedTrace trace = ConstantTrace(1000, absl::Milliseconds(10));
  SharedLink link = LinkOf(trace);
  link.scheduled = scheduled;
  link.queueing = queueing;
  std::vector<SharedLoad> loads;
  const auto add = [&](absl::Duration at, uint32_t tokens, absl::Duration deadline) {
    SharedLoad load;
    load.at = at;
    load.spec = MakeSpec(Models()[1], tokens, Ladders()[0]);
    load.spec.policy = LoadPolicy::kDeadline;
    load.spec.deadline = deadline;
    load.client = MakeClient(Models()[1]);
    loads.push_back(load);
  };
  // 307 MB, 2.5 s of the link, in 1 s.
  if (late_load) add(absl::ZeroDuration(), 131072, absl::Seconds(1));
  // 3.6 MB, 29 ms of the link, each; together 60 % of their time.
  for (int i = 0; i < count; ++i) {
    add(absl::Milliseconds(200), 1536, absl::Milliseconds(250) + absl::Milliseconds(48) * count);
  }
  const SharedLinkResult result = SimulateShared(loads, link);
  int missed = 0;
  for (size_t i = late_load ? 1 : 0; i < loads.size(); ++i) {
    missed += !result.loads[i].usable_at_deadline;
  }
  return missed;
}

// Adds one to the other; `loads` is of both.
void Add(const ShareRow& from, ShareRow* to) {
  for (const int q : {0, 1}) {
    for (const auto& pair : {std::make_pair(&from.alone[q], &to->alone[q]),
                             std::make_pair(&from.shared[q], &to->shared[q])}) {
      pair.second->deadlines += pair.first->deadlines;
      pair.second->misses += pair.first->misses;
      pair.second->level += pair.first->level;
      pair.second->others += pair.first->others;
      pair.second->delay_ratio += pair.first->delay_ratio;
      pair.second->failed += pair.first->failed;
    }
  }
  to->least += from.least;
  to->achieved += from.achieved;
  to->online += from.online;
  to->late += from.late;
  to->late_floor += from.late_floor;
  to->blind += from.blind;
  to->most_levels += from.most_levels;
  to->blind_levels += from.blind_levels;
}

// Of the scheduled loads: mean level, and as parts of what bounds it and of the online rule's.
std::string LevelCells(const ShareRow& row) {
  const auto pair = [&](double unit) {
    return absl::StrFormat("%.2f, %.2f", row.shared[0].level / unit, row.shared[1].level / unit);
  };
  return absl::StrCat(pair(std::max(row.shared[0].deadlines, 1)), " | ",
                      pair(std::max(row.most_levels, 1e-9)), " | ",
                      pair(std::max(row.blind_levels, 1e-9)));
}

std::string MissCell(const ShareOutcome& in_turn, const ShareOutcome& first) {
  const auto share = [](const ShareOutcome& o) { return 100.0 * o.misses / o.deadlines; };
  return absl::StrFormat("%.1f, %.1f", share(in_turn), share(first));
}

}  // namespace

ShareRows RunShare(const std::vector<NamedTrace>& traces, const ShareOptions& options) {
  std::vector<const NamedTrace*> chosen;
  std::vector<size_t> families;
  for (const std::string& family : options.families) {
    int count = 0;
    for (const NamedTrace& trace : traces) {
      if (trace.family != family || trace.tuning != options.tuning ||
          count >= options.traces_per_family)
        continue;
      chosen.push_back(&trace);
      families.push_back(&family - options.families.data());
      ++count;
    }
  }
  ShareRows rows;
  rows.by_family.resize(options.families.size());
  for (const int count : options.loads) {
    ShareRow all;
    all.loads = count;
    for (size_t t = 0; t < chosen.size(); ++t) {
      for (int round = 0; round < options.rounds; ++round) {
        std::mt19937 random(options.seed * 1000003 + count * 1009 + t * 101 + round);
        const std::vector<SharedLoad> loads = MakeLoads(*chosen[t], count, random);
        ShareRow row;
        Bound(loads, *chosen[t], &row);
        SharedLink link = LinkOf(*chosen[t]);
        for (const SharedQueueing queueing : kQueueings) {
          link.queueing = queueing;
          const int q = static_cast<int>(queueing);
          link.scheduled = false;
          Count(loads, *chosen[t], SimulateShared(loads, link), &row.alone[q]);
          link.scheduled = true;
          Count(loads, *chosen[t], SimulateShared(loads, link), &row.shared[q]);
        }
        Add(row, &all);
        Add(row, &rows.by_family[families[t]]);
      }
    }
    rows.by_loads.push_back(all);
  }
  return rows;
}

std::vector<SoloLoad> RunSolo(const std::vector<NamedTrace>& traces, bool tuning) {
  std::vector<SoloLoad> loads;
  for (const NamedTrace& trace : traces) {
    if (trace.tuning != tuning) continue;
    for (const uint32_t tokens : {1536u, 8192u, 32768u}) {
      for (int begin = 0; begin < 4; ++begin) {
        SharedLoad load;
        load.at = absl::Seconds(3.1 * begin);
        load.spec = MakeSpec(Models()[1], tokens, Ladders()[0]);
        load.client = MakeClient(Models()[1]);
        load.spec.policy = LoadPolicy::kFastest;
        loads.push_back({&trace, load.at, tokens, {}});
        for (double& ratio : loads.back().ratios) {
          SharedLink link = LinkOf(trace);
          const SharedLoadResult with = SimulateShared({load}, link).loads[0];
          link.scheduled = false;
          const SharedLoadResult without = SimulateShared({load}, link).loads[0];
          ratio = absl::FDivDuration(with.finish.load_delay, without.finish.load_delay);
          load.spec.policy = LoadPolicy::kDeadline;
          load.spec.deadline =
              absl::Seconds(4 * BaseBytes(load.spec) / MeanRate(trace.rate) + 0.050) + trace.rtt;
        }
      }
    }
  }
  return loads;
}

std::array<double, 2> MeanRatios(const std::vector<SoloLoad>& loads) {
  std::array<double, 2> sums = {0, 0};
  for (const SoloLoad& load : loads) {
    for (int i : {0, 1}) sums[i] += load.ratios[i] / static_cast<double>(loads.size());
  }
  return sums;
}

std::string SoloReport(const std::vector<NamedTrace>& traces, bool tuning) {
  std::vector<SoloLoad> loads = RunSolo(traces, tuning);
  std::map<std::string, std::vector<SoloLoad>> families;
  for (const SoloLoad& load : loads) families[load.trace->family].push_back(load);
  std::string text;
  for (const auto& family : families) {
    const std::array<double, 2> mean = MeanRatios(family.second);
    absl::StrAppendFormat(&text, "%s: %.4f without, %.4f with a deadline\n", family.first, mean[0],
                          mean[1]);
  }
  std::sort(loads.begin(), loads.end(),
            [](const SoloLoad& a, const SoloLoad& b) { return a.ratios[0] > b.ratios[0]; });
  loads.resize(std::min<size_t>(loads.size(), 20));
  for (const SoloLoad& load : loads) {
    absl::StrAppendFormat(&text, "%.3f %s at %s, %d tokens, rtt %s\n", load.ratios[0],
                          load.trace->name, absl::FormatDuration(load.at), load.tokens,
                          absl::FormatDuration(load.trace->rtt));
  }
  return text;
}

std::string MissReport(const std::vector<NamedTrace>& traces, const ShareOptions& options) {
  std::string text =
      "| loads | deadlines | missed, %: each on its own | scheduled | clairvoyant | mean level: "
      "own | "
      "scheduled | delay without deadline: own | scheduled |\n"
      "|---|---|---|---|---|---|---|---|---|\n";
  std::string notes;
  const ShareRows rows = RunShare(traces, options);
  for (const ShareRow& row : rows.by_loads) {
    const int deadlines = row.shared[0].deadlines;
    const auto level = [&](const ShareOutcome* o) {
      return absl::StrFormat("%.2f, %.2f", o[0].level / deadlines, o[1].level / deadlines);
    };
    const auto delay = [&](const ShareOutcome* o) {
      return absl::StrFormat("%.2f, %.2f", o[0].delay_ratio / o[0].others,
                             o[1].delay_ratio / o[1].others);
    };
    absl::StrAppend(&text, "| ", row.loads, " | ", deadlines, " | ",
                    MissCell(row.alone[0], row.alone[1]), " | ",
                    MissCell(row.shared[0], row.shared[1]), " | ",
                    absl::StrFormat("%.1f to %.1f", 100.0 * row.least / deadlines,
                                    100.0 * row.achieved / deadlines),
                    " | ", level(row.alone), " | ", level(row.shared), " | ", delay(row.alone),
                    " | ", delay(row.shared), " |\n");
    const int own = row.alone[0].failed + row.alone[1].failed;
    const int scheduled = row.shared[0].failed + row.shared[1].failed;
    if (own + scheduled > 0) {
      absl::StrAppend(&notes, "Of ", row.loads, " loads: ", own, " on their own and ", scheduled,
                      " scheduled were given up without progress.\n");
    }
  }
  if (!notes.empty()) absl::StrAppend(&text, "\n", notes);
  absl::StrAppend(&text,
                  "\n| missed, %: family | clairvoyant | online | a round trip late | with a "
                  "floor | blind while idle | scheduled | each on its own | mean level: bound | "
                  "blind while idle | scheduled | of the bound | of blind "
                  "|\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  ShareRow all;
  const auto print = [&](const std::string& name, const ShareRow& row) {
    const double one = 100.0 / std::max(row.shared[0].deadlines, 1);
    absl::StrAppendFormat(
        &text, "| %s | %.1f | %.1f | %.1f | %.1f | %.1f | %s | %s | %.2f | %.2f | %s |\n", name,
        one * row.achieved, one * row.online, one * row.late, one * row.late_floor, one * row.blind,
        MissCell(row.shared[0], row.shared[1]), MissCell(row.alone[0], row.alone[1]),
        one / 100 * row.most_levels, one / 100 * row.blind_levels, LevelCells(row));
  };
  for (size_t i = 0; i < rows.by_family.size(); ++i) {
    if (rows.by_family[i].shared[0].deadlines == 0) continue;
    print(options.families[i], rows.by_family[i]);
    Add(rows.by_family[i], &all);
  }
  print("all", all);
  return text;
}

std::string ShareReport(const std::vector<NamedTrace>& traces, const ShareOptions& options) {
  std::string text = MissReport(traces, options);
  for (const bool tuning : {true, false}) {
    std::vector<SoloLoad> loads = RunSolo(traces, tuning);
    const std::array<double, 2> solo = MeanRatios(loads);
    const auto worst = std::max_element(
        loads.begin(), loads.end(),
        [](const SoloLoad& a, const SoloLoad& b) { return a.ratios[0] < b.ratios[0]; });
    if (worst == loads.end()) continue;
    const std::string name = worst->trace->name;
    const double worst_ratio = worst->ratios[0];
    loads.erase(worst);
    absl::StrAppendFormat(&text,
                          "\nAlone on a link (%s traces), delay with the scheduler over that "
                          "without: %.4f without, %.4f with a deadline. The worst load without a "
                          "deadline (%s) has %.2f; the others %.4f.\n",
                          tuning ? "tuning" : "final", solo[0], solo[1], name, worst_ratio,
                          MeanRatios(loads)[0]);
  }
  absl::StrAppend(&text,
                  "\n| loads | Jain's index: each on its own | scheduled | misses of the others "
                  "beside one late load: own | scheduled | without it, scheduled |\n"
                  "|---|---|---|---|---|---|\n");
  for (const int count : {2, 4, 8, 16, 32, 64}) {
    const auto pair = [](double a, double b, const char* form) {
      return absl::StrCat(absl::StrFormat("%.3f", a), ", ", absl::StrFormat("%.3f", b), form);
    };
    const auto sunk = [&](bool late, bool scheduled) {
      return absl::StrCat(SunkBy(late, count, scheduled, kQueueings[0]), ", ",
                          SunkBy(late, count, scheduled, kQueueings[1]));
    };
    absl::StrAppend(
        &text, "| ", count, " | ",
        pair(Fairness(count, false, kQueueings[0]), Fairness(count, false, kQueueings[1]), ""),
        " | ", pair(Fairness(count, true, kQueueings[0]), Fairness(count, true, kQueueings[1]), ""),
        " | ", sunk(true, false), " | ", sunk(true, true), " | ", sunk(false, true), " |\n");
  }
  return text;
}

}  // namespace links
}  // namespace kvstream

// Writes the report of the link simulation as Markdown to stdout, and with --out the data of its
// pictures.
#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "tests/links/level_loss.h"
#include "tests/links/report.h"
#include "tests/links/suffix_bound.h"

namespace kvstream {
namespace links {
namespace {

int Fail(absl::string_view what) {
  std::cerr << "simulate: " << what << "\n";
  return 1;
}

int Run(int argc, char** argv) {
  SweepOptions options;
  std::string folder, out;
  int worst = 0;
  bool deadline = false;
  bool quick = false;
  bool losses = false;
  bool online = false;
  int ladder = 0;
  Prior prior = Prior::kRecord;
  RecomputeAbility ability = RecomputeAbility::kNone;
  for (int i = 1; i < argc; ++i) {
    absl::string_view value = argv[i];
    if (absl::ConsumePrefix(&value, "--traces=")) {
      folder = std::string(value);
    } else if (absl::ConsumePrefix(&value, "--out=")) {
      out = std::string(value);
    } else if (absl::ConsumePrefix(&value, "--seed=")) {
      if (!absl::SimpleAtoi(value, &options.seed)) return Fail("--seed needs a number");
    } else if (absl::ConsumePrefix(&value, "--contexts=")) {
      if (!absl::SimpleAtoi(value, &options.contexts_per_trace)) return Fail("--contexts");
    } else if (absl::ConsumePrefix(&value, "--margin-ms=")) {
      double margin_ms = 0;
      if (!absl::SimpleAtod(value, &margin_ms)) return Fail("--margin-ms needs a number");
      options.session.deadline_margin = absl::Milliseconds(margin_ms);
    } else if (absl::ConsumePrefix(&value, "--worst=")) {
      if (!absl::SimpleAtoi(value, &worst)) return Fail("--worst needs a number");
    } else if (absl::ConsumePrefix(&value, "--ability=")) {
      for (RecomputeAbility one : kAbilities) {
        if (value == AbilityName(one)) ability = one;
      }
    } else if (absl::ConsumePrefix(&value, "--ladder=")) {
      if (!absl::SimpleAtoi(value, &ladder) || ladder < 0 ||
          ladder >= static_cast<int>(Ladders().size())) {
        return Fail("--ladder needs the number of a ladder");
      }
    } else if (value == "--losses") {
      losses = true;
    } else if (value == "--online") {
      online = true;
    } else if (value == "--no-prior") {
      prior = Prior::kNone;
    } else if (value == "--quick") {
      quick = true;
    } else if (value == "--gated") {
      options.gated = true;
    } else if (value == "--deadline") {
      deadline = true;
    } else if (value == "--tuning") {
      options.tuning = true;
    } else {
      return Fail(
          "usage: --traces=DIR [--tuning] [--seed=N] [--contexts=N per trace] [--out=DIR]\n"
          "    [--margin-ms=N] [--gated]\n"
          "or: --quick (one table, one ladder) [--ladder=N]\n"
          "or: --worst=N [--ability=NONE|SUFFIX|ANY|FRONT] [--deadline] [--no-prior] [--ladder=N]\n"
          "or: --losses [--ability=...] [--no-prior] [--ladder=N]\n"
          "or: --online (the cuts of SUFFIX) [--no-prior] [--ladder=N]");
    }
  }
  const auto traces = ReadTraces(folder);
  if (!traces.ok()) return Fail(traces.status().ToString());
  if (worst > 0) {
    const auto text = Worst(MakeCases(*traces, options), Ladders()[ladder], ability, prior,
                            deadline, worst, options.session);
    if (!text.ok()) return Fail(text.status().ToString());
    std::cout << *text;
    return 0;
  }
  if (losses) {
    const auto text =
        LevelLoss(MakeCases(*traces, options), Ladders()[ladder], ability, prior, options.session);
    if (!text.ok()) return Fail(text.status().ToString());
    std::cout << *text;
    return 0;
  }
  if (online) {
    const auto text = SuffixBound(*traces, MakeCases(*traces, options), Ladders()[ladder], prior,
                                  options.session);
    if (!text.ok()) return Fail(text.status().ToString());
    std::cout << *text;
    return 0;
  }
  if (quick) {
    const std::vector<Case> cases = MakeCases(*traces, options);
    const auto text = Summary(cases, Ladders()[ladder], options.session);
    if (!text.ok()) return Fail(text.status().ToString());
    std::cout << *text;
    return 0;
  }
  const std::clock_t cpu_begin = std::clock();
  const auto begin = std::chrono::steady_clock::now();
  int64_t loads = 0;
  const auto report = Report(*traces, options, &loads);
  if (!report.ok()) return Fail(report.status().ToString());
  // The machine may be busy with other things.
  const double cpu_s = static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::cout << *report;
  std::cerr << "simulate: " << loads << " loads in " << took.count() << " s, "
            << static_cast<double>(loads) / cpu_s << " a second of CPU time\n";
  if (out.empty()) return 0;
  const auto curve = DelayCurve(options);
  if (!curve.ok()) return Fail(curve.status().ToString());
  std::ofstream(absl::StrCat(out, "/delay.csv")) << *curve;
  const auto timeline = Timeline(*traces, options);
  if (!timeline.ok()) return Fail(timeline.status().ToString());
  std::ofstream(absl::StrCat(out, "/timeline.csv")) << *timeline;
  return 0;
}

}  // namespace
}  // namespace links
}  // namespace kvstream

int main(int argc, char** argv) { return kvstream::links::Run(argc, argv); }

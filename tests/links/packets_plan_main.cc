// What tests/links/packets.py needs to know of a load over a trace before it runs it over real
// packets: its start, its deadlines, what the clairvoyant reaches and what the simulator says.
//
// packets_plan TRACE    one case a line on stdin, one answer a line on stdout, both JSON.
//
// Case: tokens (a multiple of 256), values_per_token, bits (per value, up to and including each
// level), seconds_per_token, seconds_per_pair, decode_s_per_token, start_s (on the trace's clock),
// rtt_s (absent: the trace's).
// Answer: rtt_s, prior_bytes_per_second, mean_bytes_per_second, deadlines_s; per ability
// (NONE, SUFFIX, ANY, FRONT) `fastest` {clairvoyant_s, simulated_s} and `deadline`, one for each
// deadline, {feasible, clairvoyant_level, simulated_s, simulated_level}.
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "tests/links/clairvoyant.h"
#include "tests/links/sweep.h"
#include "tests/links/trace_set.h"
#include "tests/links/workload.h"

namespace kvstream {
namespace links {
namespace {

using Json = nlohmann::ordered_json;

absl::StatusOr<Json> Answer(const NamedTrace& trace, const Json& wanted) {
  Model model = {};
  model.name = "packets";
  model.values_per_token = wanted.value("values_per_token", 1.0);
  model.seconds_per_token = wanted.value("seconds_per_token", 0.0);
  model.seconds_per_pair = wanted.value("seconds_per_pair", 0.0);
  model.decode_s_per_token = wanted.value("decode_s_per_token", 0.0);
  Ladder ladder = {};
  ladder.name = "packets";
  ladder.bits = wanted.value("bits", std::vector<double>{});
  ladder.kl.resize(ladder.bits.size());
  if (ladder.bits.size() < 2) return absl::InvalidArgumentError("bits: of two levels at least");
  const absl::Duration start = absl::Seconds(wanted.value("start_s", 0.0));
  const absl::Duration rtt =
      wanted.contains("rtt_s") ? absl::Seconds(wanted.value("rtt_s", 0.0)) : trace.rtt;
  // As MakeCases() has them; before the trace's beginning it had its first rate.
  const absl::Duration before = std::max(absl::ZeroDuration(), start - absl::Seconds(10));
  const double prior = trace.rate.BytesBetween(before, before + absl::Seconds(5)) / 5;
  const double mean = trace.rate.BytesBetween(absl::ZeroDuration(), absl::Seconds(40)) / 40;
  const Case one = {&trace, &model, wanted.value("tokens", 256u), {&trace.rate, start, rtt},
                    prior,  mean};

  Json answer = {{"rtt_s", absl::ToDoubleSeconds(rtt)},
                 {"prior_bytes_per_second", prior},
                 {"mean_bytes_per_second", mean},
                 {"deadlines_s", Json::array()}};
  for (const double factor : kDeadlineFactors) {
    const LoadSpec spec =
        DeadlineSpec(one, ladder, RecomputeAbility::kNone, Prior::kRecord, factor);
    answer["deadlines_s"].push_back(absl::ToDoubleSeconds(*spec.deadline));
  }
  for (const RecomputeAbility ability : kAbilities) {
    const LoadSpec fastest = FastestSpec(one, ladder, ability, Prior::kRecord);
    absl::StatusOr<LoadResult> run = RunSession(one, fastest, ladder, {});
    if (!run.ok()) return run.status();
    Json with_deadline = Json::array();
    for (const double factor : kDeadlineFactors) {
      const LoadSpec spec = DeadlineSpec(one, ladder, ability, Prior::kRecord, factor);
      const DeadlineBound bound = ClairvoyantQuality(spec, one.link);
      const absl::StatusOr<LoadResult> simulated = RunSession(one, spec, ladder, {});
      if (!simulated.ok()) return simulated.status();
      with_deadline.push_back({{"feasible", bound.feasible},
                               {"clairvoyant_level", bound.mean_level},
                               {"simulated_s", simulated->delay_s},
                               {"simulated_level", simulated->mean_level}});
    }
    answer[AbilityName(ability)] = {
        {"fastest",
         {{"clairvoyant_s", ClairvoyantDelay(fastest, one.link)}, {"simulated_s", run->delay_s}}},
        {"deadline", std::move(with_deadline)}};
  }
  return answer;
}

int Run(const std::string& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const absl::StatusOr<NamedTrace> trace = ParseNamedTrace(path, text);
  if (!trace.ok()) {
    std::cerr << "packets_plan: " << path << ": " << trace.status() << "\n";
    return 1;
  }
  std::string line;
  while (std::getline(std::cin, line)) {
    const Json wanted = Json::parse(line, nullptr, false);
    if (!wanted.is_object()) {
      std::cerr << "packets_plan: a case that is no object\n";
      return 1;
    }
    const absl::StatusOr<Json> answer = Answer(*trace, wanted);
    if (!answer.ok()) {
      std::cerr << "packets_plan: " << answer.status() << "\n";
      return 1;
    }
    std::cout << answer->dump() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace links
}  // namespace kvstream

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: packets_plan TRACE\n";
    return 2;
  }
  return kvstream::links::Run(argv[1]);
}

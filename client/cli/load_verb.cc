// kvstreamctl load
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/atomic_file.h"
#include "client/cli/command.h"
#include "client/cli/status_macros.h"
#include "client/kv_file.h"
#include "client/load_trace.h"
#include "client/load_trace_json.h"
#include "client/units.h"

namespace kvstream::cli {
namespace {

struct LoadVerbOptions {
  ServerOptions server;
  ContextIdentity identity;
  std::string profile;
  std::string tokens_from;
  std::string out;
  std::string deadline;
  std::string bandwidth_hint;
  ClientPolicy policy = ClientPolicy::kDefault;
  int level = -1;
  int floor_level = 0;
  double floor_below_share = 0;
  ClientRecomputeAbility ability = ClientRecomputeAbility::kNone;
  std::string recompute_from;
  std::string trace;
  double prefill_tokens_per_second = 0;
  int threads = DefaultThreads();
};

const std::map<std::string, ClientPolicy>& Policies() {
  static const auto& names = *new std::map<std::string, ClientPolicy>{
      {"deadline", ClientPolicy::kDeadline},   {"fastest", ClientPolicy::kFastest},
      {"cachegen", ClientPolicy::kCacheGen},   {"fixed", ClientPolicy::kFixed},
      {"recompute", ClientPolicy::kRecompute},
  };
  return names;
}

const std::map<std::string, ClientRecomputeAbility>& Abilities() {
  static const auto& names = *new std::map<std::string, ClientRecomputeAbility>{
      {"none", ClientRecomputeAbility::kNone},
      {"suffix", ClientRecomputeAbility::kSuffix},
      {"any", ClientRecomputeAbility::kAny},
      {"front", ClientRecomputeAbility::kFront},
  };
  return names;
}

// A level was named but no policy: that level it is.
ClientPolicy PolicyOf(const LoadVerbOptions& options) {
  return options.policy == ClientPolicy::kDefault && options.level >= 0 ? ClientPolicy::kFixed
                                                                        : options.policy;
}

absl::Status CheckPolicy(const LoadVerbOptions& options, const Profile& profile) {
  const ClientPolicy policy = PolicyOf(options);
  for (const auto& [name, level] :
       {std::pair("--level", options.level), std::pair("--floor-level", options.floor_level)}) {
    if (level >= profile.levels()) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, " is ", level, ", but the profile has levels 0 to ", profile.levels() - 1));
    }
  }
  if (policy == ClientPolicy::kFixed && options.level < 0) {
    return absl::InvalidArgumentError("--policy fixed needs --level");
  }
  if (policy != ClientPolicy::kFixed && options.level >= 0) {
    return absl::InvalidArgumentError(
        "--level goes with --policy fixed; use --floor-level for a lower bound");
  }
  const bool fastest = policy == ClientPolicy::kFastest ||
                       (policy == ClientPolicy::kDefault && options.deadline.empty());
  if (options.floor_below_share > 0 && (!fastest || options.floor_level == 0)) {
    return absl::InvalidArgumentError(
        "--floor-below-share needs --policy fastest and a --floor-level above 0");
  }
  if ((policy == ClientPolicy::kDeadline || policy == ClientPolicy::kCacheGen) &&
      options.deadline.empty()) {
    return absl::InvalidArgumentError("this --policy needs --deadline");
  }
  if (policy == ClientPolicy::kRecompute && options.ability == ClientRecomputeAbility::kNone) {
    return absl::InvalidArgumentError("--policy recompute needs --recompute-ability");
  }
  if (options.ability == ClientRecomputeAbility::kNone) return absl::OkStatus();
  if (!(options.prefill_tokens_per_second > 0)) {
    return absl::InvalidArgumentError(
        "--recompute-ability needs --prefill-tokens-per-second, the speed to emulate");
  }
  return absl::OkStatus();
}

absl::StatusOr<LoadOptions> ToLoadOptions(const LoadVerbOptions& options) {
  LoadOptions load;
  load.policy = PolicyOf(options);
  load.level = std::max(options.level, 0);
  load.floor_level = options.floor_level;
  load.floor_below_share = options.floor_below_share;
  if (!options.deadline.empty()) {
    CLI_ASSIGN_OR_RETURN(load.deadline, ParseDuration(options.deadline));
    if (*load.deadline <= absl::ZeroDuration()) {
      return absl::InvalidArgumentError("--deadline must be longer than 0");
    }
  }
  if (!options.bandwidth_hint.empty()) {
    CLI_ASSIGN_OR_RETURN(load.bandwidth_hint_bytes_per_second, ParseRate(options.bandwidth_hint));
  }
  load.ability = options.ability;
  if (options.ability != ClientRecomputeAbility::kNone) {
    load.prefill_seconds_per_token = 1 / options.prefill_tokens_per_second;
  }
  return load;
}

// The CLI cannot run a model: "recomputing" copies the tokens' KV from a file that holds it and
// takes as long as the declared prefill speed says.
absl::StatusOr<std::unique_ptr<KvFile>> OpenRecomputeSource(const LoadVerbOptions& options,
                                                            const KvGeometry& geometry,
                                                            absl::Span<const int32_t> tokens) {
  const std::string& path =
      options.recompute_from.empty() ? options.tokens_from : options.recompute_from;
  absl::StatusOr<std::unique_ptr<KvFile>> file = KvFile::Open(path, geometry);
  if (!file.ok()) {
    return absl::Status(file.status().code(),
                        absl::StrCat("recompute is emulated from a file with the original KV "
                                     "(--recompute-from): ",
                                     file.status().message()));
  }
  const bool same = (*file)->tokens().size() >= tokens.size() &&
                    std::equal(tokens.begin(), tokens.end(), (*file)->tokens().begin());
  if (!same) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": its tokens are not those of ", options.tokens_from));
  }
  return file;
}

//
// It stops within kStopWithin of the chunk's bytes, as a serving node ends a prefill between two
// layers.
constexpr absl::Duration kStopWithin = absl::Milliseconds(2);

void EmulateRecompute(const KvGeometry& geometry, const KvView& original, const MutableKvView& out,
                      LoadOptions* load) {
  const auto watch = std::make_shared<RecomputeWatch>();
  load->recompute_watch = watch;
  const double seconds_per_token = load->prefill_seconds_per_token;
  load->recompute = [&geometry, original, out, seconds_per_token, watch](int64_t first,
                                                                         int64_t count) {
    const absl::Time end = absl::Now() + absl::Seconds(seconds_per_token) * count;
    for (absl::Time now = absl::Now(); now < end; now = absl::Now()) {
      if (watch->superseded()) return absl::CancelledError("the bytes came first");
      absl::SleepFor(std::min(end - now, kStopWithin));
    }
    CopyKv(geometry, original, out, first, count);
    return absl::OkStatus();
  };
}

// Client::Load; with --trace its story is written, whether it succeeds or fails.
absl::StatusOr<LoadResult> LoadTraced(const LoadVerbOptions& options, Client* client,
                                      const std::shared_ptr<const Profile>& profile,
                                      absl::Span<const int32_t> tokens, LoadOptions load,
                                      const MutableKvView& out) {
  if (options.trace.empty()) return client->Load(profile, options.identity, tokens, load, out);
  LoadTraceRecorder recorder(TracedRequest(*profile, tokens.size(), load));
  load.observer = &recorder;
  const absl::Time began = absl::Now();
  absl::StatusOr<LoadResult> result = client->Load(profile, options.identity, tokens, load, out);
  if (absl::IsNotFound(result.status())) return result;  // another one follows, of what is stored
  const LoadTrace trace = std::move(recorder).Finish(result, absl::Now() - began);
  const absl::Status written = WriteFileAtomically(options.trace, LoadTraceToJson(trace));
  if (result.ok() && !written.ok()) return written;
  return result;
}

// What came of a load, and of how many of the context's tokens.
struct Outcome {
  LoadResult result;
  int64_t tokens = 0;          // loaded
  int64_t context_tokens = 0;  // asked for
};

absl::Status Report(const LoadVerbOptions& options, const Profile& profile, const Outcome& outcome,
                    Format format) {
  const LoadResult& result = outcome.result;
  Json chunks = Json::array();
  std::string levels;
  int64_t streamed = 0;
  for (const LoadedChunk& chunk : result.chunks) {
    Json entry = {{"level", nullptr}, {"tokens", chunk.tokens}, {"bytes", chunk.bytes}};
    if (chunk.level.has_value()) {
      entry["level"] = *chunk.level;
      streamed += chunk.tokens;
    } else {
      entry["level"] = "recompute";
    }
    absl::StrAppend(&levels, levels.empty() ? "" : " ",
                    chunk.level.has_value() ? absl::StrCat(*chunk.level) : "r");
    chunks.push_back(std::move(entry));
  }
  const double values =
      static_cast<double>(streamed) * static_cast<double>(profile.geometry().values_per_token());
  const double bits = values > 0 ? static_cast<double>(result.bytes) * 8 / values : 0;
  const bool complete = outcome.tokens == outcome.context_tokens;
  const std::string text = absl::StrFormat(
      "%d tokens in %s, %s (%.3f bits per value), goodput %s, estimate %s%s\nlevels: %s\n%s",
      outcome.tokens, FormatMillis(result.load_delay), FormatBytes(result.bytes), bits,
      FormatRate(result.goodput_bytes_per_second),
      FormatRate(result.bandwidth_estimate_bytes_per_second),
      options.deadline.empty() ? ""
      : result.deadline_missed ? ", DEADLINE MISSED"
                               : ", in time",
      levels,
      complete
          ? ""
          : absl::StrFormat("Only the first %d of %d tokens are stored; the rest was not loaded.\n",
                            outcome.tokens, outcome.context_tokens));
  return Print(format,
               {{"load_delay_ms", absl::ToDoubleMilliseconds(result.load_delay)},
                {"goodput_bytes_per_second", result.goodput_bytes_per_second},
                {"estimate", result.bandwidth_estimate_bytes_per_second},
                {"bytes", result.bytes},
                {"bits_per_value", bits},
                {"chunks", std::move(chunks)},
                {"deadline_missed", result.deadline_missed},
                {"tokens", outcome.tokens},
                {"context_tokens", outcome.context_tokens},
                {"complete", complete},
                {"recomputed_tokens", result.recomputed_tokens},
                {"recompute_ms", absl::ToDoubleMilliseconds(result.recompute_time)},
                {"out", options.out}},
               text);
}

absl::Status Load(const LoadVerbOptions& options, Format format) {
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, ReadProfile(options.profile));
  CLI_RETURN_IF_ERROR(CheckPolicy(options, *profile));
  CLI_ASSIGN_OR_RETURN(LoadOptions load, ToLoadOptions(options));
  CLI_ASSIGN_OR_RETURN(const std::vector<int32_t> context, ReadTokens(options.tokens_from));
  if (context.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.tokens_from, ": tensor tokens is empty"));
  }
  absl::Span<const int32_t> tokens = context;
  const KvGeometry& geometry = profile->geometry();
  std::unique_ptr<KvFile> source;
  if (load.ability != ClientRecomputeAbility::kNone) {
    CLI_ASSIGN_OR_RETURN(source, OpenRecomputeSource(options, geometry, tokens));
  }
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                       Connect(options.server, options.threads));
  // A serving node has its connection up and knows its decoder's speed when a context is asked for;
  // so has this, before the clock starts.
  CLI_RETURN_IF_ERROR(client->Ping().status());
  if (load.deadline.has_value()) CLI_RETURN_IF_ERROR(client->WarmUp(profile));

  CLI_ASSIGN_OR_RETURN(const KvBuffer buffer,
                       KvBuffer::Create(geometry, static_cast<int64_t>(tokens.size())));
  MutableKvView out = buffer.view();
  if (source != nullptr) {
    EmulateRecompute(geometry, source->kv(), out, &load);
  }
  ProgressBar bar(format, "loading",
                  (static_cast<int64_t>(tokens.size()) + profile->chunk_tokens() - 1) /
                      profile->chunk_tokens());
  load.progress = [&bar](uint32_t ready, uint32_t /*chunks*/) { bar.Update(ready); };
  absl::StatusOr<LoadResult> result = LoadTraced(options, client.get(), profile, tokens, load, out);
  if (absl::IsNotFound(result.status())) {
    // Not all of it is stored: what is.
    CLI_ASSIGN_OR_RETURN(const LookupResult found,
                         client->Lookup(*profile, options.identity, tokens));
    if (found.matched_tokens == 0) {
      return absl::NotFoundError(
          "nothing of this context is stored with this profile and identity; store it with "
          "kvstreamctl put");
    }
    tokens = tokens.subspan(0, found.matched_tokens);
    out = buffer.view().Slice(0, static_cast<int64_t>(tokens.size()));
    // A watch is of one load.
    if (source != nullptr) EmulateRecompute(geometry, source->kv(), out, &load);
    result = LoadTraced(options, client.get(), profile, tokens, load, out);
  }
  if (!result.ok()) return result.status();
  const KvView loaded = buffer.const_view().Slice(0, static_cast<int64_t>(tokens.size()));
  CLI_RETURN_IF_ERROR(WriteKvFile(options.out, geometry, loaded, tokens));
  return Report(options, *profile,
                {*std::move(result), static_cast<int64_t>(tokens.size()),
                 static_cast<int64_t>(context.size())},
                format);
}

}  // namespace

void AddLoadVerb(CLI::App& app, Command& command) {
  const auto options = std::make_shared<LoadVerbOptions>();
  CLI::App* load = AddVerb(app, command, "load", "Load a context's KV cache from a kvstreamd",
                           [options](Format format) { return Load(*options, format); });
  AddServerOptions(*load, options->server);
  load->add_option("--profile", options->profile, "the model's profile")->required();
  load->add_option("--tokens-from", options->tokens_from, "safetensors file with tokens")
      ->required();
  load->add_option("--out", options->out, "the KV cache to write (safetensors)")->required();
  load->add_option("--deadline", options->deadline, "wanted load delay, such as 500ms");
  load->add_option("--policy", options->policy,
                   "deadline (default with --deadline), fastest (default without), cachegen, "
                   "fixed, recompute")
      ->transform(CLI::CheckedTransformer(Policies()))
      ->option_text("POLICY");
  load->add_option("--level", options->level, "the level of --policy fixed")
      ->check(CLI::NonNegativeNumber);
  load->add_option("--floor-level", options->floor_level, "no chunk comes below this level")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  load->add_option("--floor-below-share", options->floor_below_share,
                   "--policy fastest: part of the tokens that may come one level below the floor")
      ->check(CLI::Range(0.0, 1.0));
  load->add_option("--bandwidth-hint", options->bandwidth_hint,
                   "the link's speed for the first decision, such as 50Mbit");
  load->add_option("--recompute-ability", options->ability,
                   "what to pretend to recompute: none (default), suffix, any, front")
      ->transform(CLI::CheckedTransformer(Abilities()))
      ->option_text("ABILITY");
  load->add_option("--prefill-tokens-per-second", options->prefill_tokens_per_second,
                   "prefill speed to emulate")
      ->check(CLI::NonNegativeNumber);
  load->add_option(
      "--recompute-from", options->recompute_from,
      "file with the original KV that emulated recompute copies (default: --tokens-from)");
  load->add_option("--trace", options->trace,
                   "also write the load's story, for kvstreamctl explain (JSON)");
  AddIdentityOptions(*load, options->identity);
  AddThreadsOption(*load, options->threads);
}

}  // namespace kvstream::cli

#include "client/load_trace_json.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace kvstream {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMillisMax = 1e9;          // eleven days
constexpr double kRateMax = 1e15;           // bytes a second
constexpr uint64_t kBytesMax = 1ull << 53;  // what a double holds exactly, as other readers use one
constexpr size_t kTextMax = 2048;
constexpr const char* kKinds[] = {"plan", "segment", "decode", "recompute"};

// ------------------------------------------------------------------ reading

// Reads fields of one object; the first that is not as it must be is the one that is named.
class Reader {
 public:
  // `path` is for messages: "request.".
  Reader(const Json& object, std::string path, absl::Status* status)
      : object_(object), path_(std::move(path)), status_(status) {
    if (!object.is_object()) Refuse("", "is no object");
  }

  double Number(const char* key, double min, double max) {
    const Json* value = Find(key);
    if (value == nullptr) return min;
    if (!value->is_number()) return Refuse(key, "is no number"), min;
    const double number = value->get<double>();
    if (!(number >= min && number <= max)) {
      return Refuse(key, absl::StrCat("is not from ", min, " to ", max)), min;
    }
    return number;
  }
  uint64_t Count(const char* key, uint64_t min, uint64_t max) {
    const Json* value = Find(key);
    if (value == nullptr) return min;
    if (!value->is_number_unsigned()) return Refuse(key, "is no whole number from 0 on"), min;
    const uint64_t number = value->get<uint64_t>();
    if (number < min || number > max) {
      return Refuse(key, absl::StrCat("is not from ", min, " to ", max)), min;
    }
    return number;
  }
  int Level(const char* key, int levels) {
    const Json* value = Find(key);
    if (value == nullptr) return -1;
    if (value->is_null()) return -1;
    if (!value->is_number_unsigned() || value->get<uint64_t>() >= static_cast<uint64_t>(levels)) {
      return Refuse(key, "is no level that the request has"), -1;
    }
    return value->get<int>();
  }
  bool Flag(const char* key) {
    const Json* value = Find(key);
    if (value == nullptr) return false;
    if (!value->is_boolean()) return Refuse(key, "is neither true nor false"), false;
    return value->get<bool>();
  }
  std::string Text(const char* key) {
    const Json* value = Find(key);
    if (value == nullptr) return "";
    if (!value->is_string()) return Refuse(key, "is no text"), "";
    const std::string& text = value->get_ref<const std::string&>();
    if (text.size() > kTextMax) return Refuse(key, "is too long"), "";
    return text;
  }
  // An empty array where it is none.
  const Json& Array(const char* key, size_t size_max) {
    static const Json& empty = *new Json(Json::array());
    const Json* value = Find(key);
    if (value == nullptr) return empty;
    if (!value->is_array()) return Refuse(key, "is no array"), empty;
    if (value->size() > size_max) {
      return Refuse(key, absl::StrCat("has more than ", size_max, " entries")), empty;
    }
    return *value;
  }
  const Json& Object(const char* key) {
    static const Json& empty = *new Json(Json::object());
    const Json* value = Find(key);
    if (value == nullptr) return empty;
    if (!value->is_object()) return Refuse(key, "is no object"), empty;
    return *value;
  }
  void Refuse(const std::string& key, const std::string& what) {
    if (status_->ok()) {
      *status_ = absl::InvalidArgumentError(absl::StrCat(path_, key, " ", what));
    }
  }

 private:
  // Null, and an error, if it is not there.
  const Json* Find(const char* key) {
    if (!object_.is_object()) return nullptr;
    const auto at = object_.find(key);
    if (at == object_.end()) {
      Refuse(key, "is missing");
      return nullptr;
    }
    return &*at;
  }

  const Json& object_;
  const std::string path_;
  absl::Status* const status_;
};

LoadTrace::Request ReadRequest(const Json& json, absl::Status* status) {
  Reader reader(json, "request.", status);
  LoadTrace::Request request;
  request.policy = reader.Text("policy");
  request.ability = reader.Text("ability");
  request.deadline_ms = reader.Number("deadline_ms", 0, kMillisMax);
  request.tokens = reader.Count("tokens", 1, uint64_t{1} << 40);
  request.chunk_tokens = static_cast<uint32_t>(reader.Count("chunk_tokens", 1, 1 << 30));
  request.chunks = static_cast<uint32_t>(reader.Count("chunks", 1, LoadTrace::kChunksMax));
  request.levels = static_cast<int>(reader.Count("levels", 1, 256));
  request.floor_level =
      static_cast<int>(reader.Count("floor_level", 0, static_cast<uint64_t>(request.levels) - 1));
  request.values_per_token = reader.Count("values_per_token", 1, uint64_t{1} << 40);
  request.prefill_seconds_per_token = reader.Number("prefill_seconds_per_token", 0, 1e6);
  request.prefill_seconds_per_token_pair = reader.Number("prefill_seconds_per_token_pair", 0, 1e6);
  request.decode_seconds_per_token = reader.Number("decode_seconds_per_token", 0, 1e6);
  request.bandwidth_hint_bytes_per_second =
      reader.Number("bandwidth_hint_bytes_per_second", 0, kRateMax);
  return request;
}

LoadTrace::Event ReadEvent(const Json& json, const LoadTrace::Request& request,
                           absl::Status* status) {
  Reader reader(json, "events[].", status);
  LoadTrace::Event event;
  const std::string kind = reader.Text("kind");
  const auto* const known = std::find(std::begin(kKinds), std::end(kKinds), kind);
  if (known == std::end(kKinds)) {
    reader.Refuse("kind", "is none that is known");
    return event;
  }
  event.kind = static_cast<LoadTrace::Kind>(known - std::begin(kKinds));
  event.begin_ms = reader.Number("begin_ms", 0, kMillisMax);
  event.end_ms = event.kind == LoadTrace::Kind::kPlan
                     ? event.begin_ms
                     : reader.Number("end_ms", event.begin_ms, kMillisMax);
  event.chunk = static_cast<uint32_t>(reader.Count("chunk", 0, request.chunks - 1));
  if (event.kind == LoadTrace::Kind::kRecompute) {
    event.chunks = static_cast<uint32_t>(reader.Count("chunks", 1, request.chunks - event.chunk));
    return event;
  }
  event.level = reader.Level("level", request.levels);
  if (event.level < 0 && event.kind != LoadTrace::Kind::kPlan) {
    reader.Refuse("level", "is missing");
  }
  if (event.kind == LoadTrace::Kind::kSegment) event.bytes = reader.Count("bytes", 0, kBytesMax);
  return event;
}

ServerSample ReadSample(const Json& json, absl::Status* status) {
  Reader reader(json, "server[].", status);
  ServerSample sample;
  sample.at = absl::Milliseconds(reader.Number("at_ms", 0, kMillisMax));
  sample.estimate_bytes_per_second = reader.Number("estimate_bytes_per_second", 0, kRateMax);
  sample.promised_bytes_per_second = reader.Number("promised_bytes_per_second", 0, kRateMax);
  sample.lower_bound = reader.Flag("lower_bound");
  sample.window_bytes = reader.Count("window_bytes", 0, kBytesMax);
  sample.bytes_sent = reader.Count("bytes_sent", 0, kBytesMax);
  sample.bytes_acknowledged = reader.Count("bytes_acknowledged", 0, kBytesMax);
  return sample;
}

void ReadArrivals(Reader& reader, LoadTrace* trace) {
  trace->bin_ms = reader.Number("bin_ms", 1e-3, kMillisMax);
  trace->first_byte_ms = reader.Number("first_byte_ms", -1, kMillisMax);
  trace->last_byte_ms = reader.Number("last_byte_ms", -1, kMillisMax);
  uint64_t sum = 0;
  for (const Json& bin : reader.Array("arrivals", LoadTrace::kBinsMax)) {
    if (!bin.is_number_unsigned() || bin.get<uint64_t>() > kBytesMax - sum) {
      reader.Refuse("arrivals", "holds what is no number of bytes");
      return;
    }
    sum += bin.get<uint64_t>();
    trace->arrivals.push_back(bin.get<uint64_t>());
  }
}

void ReadOutcome(const Json& json, LoadTrace* trace, absl::Status* status) {
  Reader reader(json, "outcome.", status);
  trace->ok = reader.Flag("ok");
  trace->error = reader.Text("error");
  trace->delay_ms = reader.Number("delay_ms", 0, kMillisMax);
  trace->summary_ms = reader.Number("summary_ms", -1, kMillisMax);
  trace->bytes = reader.Count("bytes", 0, kBytesMax);
  trace->estimate_bytes_per_second = reader.Number("estimate_bytes_per_second", 0, kRateMax);
  trace->deadline_missed = reader.Flag("deadline_missed");
  for (const Json& level : reader.Array("levels", trace->request.chunks)) {
    const bool recomputed = level.is_null();
    if (!recomputed && (!level.is_number_unsigned() ||
                        level.get<uint64_t>() >= static_cast<uint64_t>(trace->request.levels))) {
      reader.Refuse("levels", "holds what is no level that the request has");
      return;
    }
    trace->levels.push_back(recomputed ? -1 : level.get<int>());
  }
  if (trace->ok && trace->levels.size() != trace->request.chunks) {
    reader.Refuse("levels", "is not one for each chunk");
  }
}

Json LevelOrNull(int level) { return level < 0 ? Json(nullptr) : Json(level); }

double FiniteRate(double rate) { return std::isfinite(rate) ? std::clamp(rate, 0.0, kRateMax) : 0; }

}  // namespace

absl::StatusOr<LoadTrace> ParseLoadTrace(absl::string_view text) {
  if (text.size() > kLoadTraceBytesMax) {
    return absl::InvalidArgumentError("the trace is larger than any that is written");
  }
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("the trace is no JSON");
  absl::Status status;
  Reader reader(json, "", &status);
  const uint64_t version = reader.Count("kvstream_load_trace", 0, 1 << 30);
  if (!status.ok()) {
    return absl::InvalidArgumentError("no trace of `kvstreamctl load --trace`: " +
                                      std::string(status.message()));
  }
  if (version != kLoadTraceVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("a trace of version ", version, "; this program reads ", kLoadTraceVersion));
  }
  LoadTrace trace;
  trace.request = ReadRequest(reader.Object("request"), &status);
  trace.sent_ms = reader.Number("sent_ms", 0, kMillisMax);
  trace.events_seen = reader.Count("events_seen", 0, kBytesMax);
  trace.one_in = static_cast<uint32_t>(reader.Count("one_in", 1, 1u << 31));
  double last_ms = 0;
  uint64_t recomputed = 0;
  for (const Json& entry : reader.Array("events", LoadTrace::kEventsMax)) {
    if (!status.ok()) break;
    trace.events.push_back(ReadEvent(entry, trace.request, &status));
    if (trace.events.back().begin_ms < last_ms) reader.Refuse("events", "are not in order");
    last_ms = trace.events.back().begin_ms;
    // Readers go through the chunks of each; a chunk is recomputed once, or again after a failure.
    recomputed +=
        trace.events.back().kind == LoadTrace::Kind::kRecompute ? trace.events.back().chunks : 0;
    if (recomputed > 2 * uint64_t{trace.request.chunks}) {
      reader.Refuse("events", "recompute more chunks than there are");
    }
  }
  ReadArrivals(reader, &trace);
  trace.progress_sent = reader.Count("progress_sent", 0, kBytesMax);
  last_ms = 0;
  for (const Json& entry : reader.Array("progress", LoadTrace::kProgressMax)) {
    if (!status.ok()) break;
    Reader one(entry, "progress[].", &status);
    trace.progress.push_back({one.Number("at_ms", last_ms, kMillisMax),
                              one.Count("bytes", 0, kBytesMax),
                              static_cast<uint32_t>(one.Count("ready", 0, trace.request.chunks))});
    last_ms = trace.progress.back().at_ms;
  }
  absl::Duration last;
  for (const Json& entry : reader.Array("server", kStorySamplesMax)) {
    if (!status.ok()) break;
    trace.server.push_back(ReadSample(entry, &status));
    if (trace.server.back().at < last) reader.Refuse("server", "is not in order");
    last = trace.server.back().at;
  }
  ReadOutcome(reader.Object("outcome"), &trace, &status);
  if (!status.ok()) return status;
  return trace;
}

std::string LoadTraceToJson(const LoadTrace& trace) {
  const LoadTrace::Request& request = trace.request;
  Json events = Json::array();
  for (const LoadTrace::Event& event : trace.events) {
    Json entry = {{"kind", kKinds[static_cast<size_t>(event.kind)]}, {"begin_ms", event.begin_ms}};
    if (event.kind != LoadTrace::Kind::kPlan) entry["end_ms"] = event.end_ms;
    entry["chunk"] = event.chunk;
    if (event.kind == LoadTrace::Kind::kRecompute) {
      entry["chunks"] = event.chunks;
    } else {
      entry["level"] = LevelOrNull(event.level);
    }
    if (event.kind == LoadTrace::Kind::kSegment) entry["bytes"] = event.bytes;
    events.push_back(std::move(entry));
  }
  Json progress = Json::array();
  for (const LoadTrace::Progress& one : trace.progress) {
    progress.push_back({{"at_ms", one.at_ms}, {"bytes", one.bytes}, {"ready", one.chunks_ready}});
  }
  Json server = Json::array();
  for (const ServerSample& sample : trace.server) {
    const double at_ms = std::round(absl::ToDoubleMicroseconds(sample.at)) / 1000;
    server.push_back({{"at_ms", std::min(at_ms, kMillisMax)},
                      {"estimate_bytes_per_second", FiniteRate(sample.estimate_bytes_per_second)},
                      {"promised_bytes_per_second", FiniteRate(sample.promised_bytes_per_second)},
                      {"lower_bound", sample.lower_bound},
                      {"window_bytes", std::min(sample.window_bytes, kBytesMax)},
                      {"bytes_sent", std::min(sample.bytes_sent, kBytesMax)},
                      {"bytes_acknowledged", std::min(sample.bytes_acknowledged, kBytesMax)}});
  }
  Json levels = Json::array();
  for (const int level : trace.levels) levels.push_back(LevelOrNull(level));
  const Json json = {
      {"kvstream_load_trace", kLoadTraceVersion},
      {"request",
       {{"policy", request.policy},
        {"ability", request.ability},
        {"deadline_ms", request.deadline_ms},
        {"tokens", request.tokens},
        {"chunk_tokens", request.chunk_tokens},
        {"chunks", request.chunks},
        {"levels", request.levels},
        {"floor_level", request.floor_level},
        {"values_per_token", request.values_per_token},
        {"prefill_seconds_per_token", request.prefill_seconds_per_token},
        {"prefill_seconds_per_token_pair", request.prefill_seconds_per_token_pair},
        {"decode_seconds_per_token", request.decode_seconds_per_token},
        {"bandwidth_hint_bytes_per_second", request.bandwidth_hint_bytes_per_second}}},
      {"sent_ms", trace.sent_ms},
      {"outcome",
       {{"ok", trace.ok},
        {"error", trace.error.substr(0, kTextMax / 4)},
        {"delay_ms", trace.delay_ms},
        {"summary_ms", trace.summary_ms},
        {"bytes", trace.bytes},
        {"estimate_bytes_per_second", FiniteRate(trace.estimate_bytes_per_second)},
        {"deadline_missed", trace.deadline_missed},
        {"levels", std::move(levels)}}},
      {"bin_ms", trace.bin_ms},
      {"first_byte_ms", trace.first_byte_ms},
      {"last_byte_ms", trace.last_byte_ms},
      {"arrivals", trace.arrivals},
      {"events_seen", trace.events_seen},
      {"one_in", trace.one_in},
      {"events", std::move(events)},
      {"progress_sent", trace.progress_sent},
      {"progress", std::move(progress)},
      {"server", std::move(server)}};
  // A message of a server need not be UTF-8; what is not is replaced.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace kvstream

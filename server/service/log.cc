#include "server/service/log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::off;
}

spdlog::level::level_enum ParseLevel(absl::string_view level) {
  if (level == "error") return spdlog::level::err;  // the only name that differs
  return spdlog::level::from_str(std::string(level));
}

// JSON text of a value; `replace` puts U+FFFD where bytes are not UTF-8.
std::string Quoted(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

std::string JsonValue(const LogField& field) {
  if (const auto* integer = absl::get_if<int64_t>(&field.value)) return absl::StrCat(*integer);
  if (const auto* number = absl::get_if<double>(&field.value)) {
    return std::isfinite(*number) ? absl::StrCat(*number) : "null";
  }
  if (const auto* flag = absl::get_if<bool>(&field.value)) return *flag ? "true" : "false";
  return Quoted(absl::get<std::string>(field.value));
}

std::string TextValue(const LogField& field) {
  const auto* text = absl::get_if<std::string>(&field.value);
  if (text == nullptr) return JsonValue(field);
  const std::string quoted = Quoted(*text);
  const bool plain = !text->empty() && quoted.size() == text->size() + 2 &&
                     text->find_first_of(" =") == std::string::npos;
  return plain ? *text : quoted;
}

}  // namespace

Log::Log(absl::string_view level, LogFormat format, std::shared_ptr<spdlog::sinks::sink> sink)
    : format_(format),
      logger_(std::make_unique<spdlog::logger>(
          "kvstreamd",
          sink != nullptr ? std::move(sink) : std::make_shared<spdlog::sinks::stderr_sink_mt>())) {
  logger_->set_level(ParseLevel(level));
  logger_->flush_on(spdlog::level::trace);
  const char* pattern = format == LogFormat::kJson
                            ? R"({"time":"%Y-%m-%dT%H:%M:%S.%fZ","level":"%l",%v})"
                            : "%Y-%m-%dT%H:%M:%S.%eZ %l %v";
  logger_->set_formatter(
      std::make_unique<spdlog::pattern_formatter>(pattern, spdlog::pattern_time_type::utc));
}

Log::~Log() = default;

bool Log::Enabled(LogLevel level) const { return logger_->should_log(ToSpdlog(level)); }

void Log::Write(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) {
  if (!Enabled(level)) return;
  std::string line;
  if (format_ == LogFormat::kJson) {
    absl::StrAppend(&line, "\"event\":", Quoted(event));
    for (const LogField& field : fields) {
      absl::StrAppend(&line, ",", Quoted(field.name), ":", JsonValue(field));
    }
  } else {
    absl::StrAppend(&line, event);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.name, "=", TextValue(field));
    }
  }
  logger_->log(ToSpdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace kvstream

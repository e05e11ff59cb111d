// Structured log lines on stderr. Never token ids, never payload.
#ifndef KVSTREAM_SERVER_SERVICE_LOG_H_
#define KVSTREAM_SERVER_SERVICE_LOG_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/variant.h"
#include "server/service/options.h"

namespace spdlog {
class logger;
namespace sinks {
class sink;
}  // namespace sinks
}  // namespace spdlog

namespace kvstream {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError };

// A named value of a line. Numbers stay numbers in JSON; doubles that are not finite become null.
struct LogField {
  LogField(absl::string_view name, bool value) : name(name), value(value) {}
  template <typename Integer, std::enable_if_t<std::is_integral_v<Integer>, int> = 0>
  LogField(absl::string_view name, Integer value)
      : name(name), value(static_cast<int64_t>(value)) {}
  LogField(absl::string_view name, double value) : name(name), value(value) {}
  LogField(absl::string_view name, std::string value) : name(name), value(std::move(value)) {}
  LogField(absl::string_view name, absl::string_view value)
      : name(name), value(std::string(value)) {}
  LogField(absl::string_view name, const char* value) : name(name), value(std::string(value)) {}

  std::string name;
  absl::variant<int64_t, double, bool, std::string> value;
};

// Thread-safe. One line per event: {"time":..., "level":..., "event":..., fields} or the same as
// text, where values with spaces are quoted. Bytes that are not UTF-8 and control characters are
// escaped, so that a line is always one line.
class Log {
 public:
  // `level` as in ServerOptions::log_level, validated. Without a sink: stderr.
  Log(absl::string_view level, LogFormat format,
      std::shared_ptr<spdlog::sinks::sink> sink = nullptr);
  ~Log();

  void Write(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields = {});
  bool Enabled(LogLevel level) const;

 private:
  const LogFormat format_;
  const std::unique_ptr<spdlog::logger> logger_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_LOG_H_

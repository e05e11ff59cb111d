// Typed access to the keys of an untrusted JSON object. Private to the geometry reader.
#ifndef KVSTREAM_CODEC_CONFIG_JSON_H_
#define KVSTREAM_CODEC_CONFIG_JSON_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"

namespace kvstream {

// Parses text of at most 1 MiB whose objects and arrays nest at most 64 deep and whose outermost
// value is an object. INVALID_ARGUMENT otherwise; never throws.
absl::StatusOr<nlohmann::json> ParseConfigJson(absl::string_view text);

// One JSON object of the configuration. Borrows the object. A key that is null counts as absent, as
// it does in Python. Names given as a list are synonyms, of which the first that is present is
// taken. Every error is INVALID_ARGUMENT and names the key with its path.
class ConfigObject {
 public:
  // path: such as "rope_scaling."; "" for the outermost. Precondition: object->is_object().
  ConfigObject(const nlohmann::json* object, std::string path)
      : object_(object), path_(std::move(path)) {}

  bool Has(absl::string_view key) const { return Find(key) != nullptr; }
  // Null if absent.
  const nlohmann::json* Find(absl::string_view key) const;
  std::string PathOf(absl::string_view key) const;

  absl::StatusOr<absl::optional<ConfigObject>> Object(absl::string_view key) const;
  // min to max, inclusive.
  absl::StatusOr<absl::optional<int>> Int(absl::Span<const absl::string_view> keys, int min,
                                          int max) const;
  // INVALID_ARGUMENT if absent too.
  absl::StatusOr<int> RequiredInt(absl::Span<const absl::string_view> keys, int min, int max) const;
  absl::StatusOr<absl::optional<double>> Number(absl::Span<const absl::string_view> keys,
                                                double min, double max) const;
  absl::StatusOr<absl::optional<bool>> Bool(absl::string_view key) const;
  absl::StatusOr<absl::optional<std::string>> String(
      absl::Span<const absl::string_view> keys) const;
  // Exactly `count` numbers of min to max.
  absl::StatusOr<absl::optional<std::vector<double>>> Numbers(absl::string_view key, size_t count,
                                                              double min, double max) const;

 private:
  // The first synonym that is present; null if none.
  const nlohmann::json* FindAny(absl::Span<const absl::string_view> keys,
                                absl::string_view* found) const;
  absl::Status WrongType(absl::string_view key, absl::string_view wanted,
                         const nlohmann::json& value) const;

  const nlohmann::json* object_;
  std::string path_;
};

}  // namespace kvstream

// NOLINTBEGIN(bugprone-macro-parentheses): lhs may be a declaration, and names are pasted.
// lhs = the value of a StatusOr, or return its status.
#define CONFIG_ASSIGN_OR_RETURN(lhs, expression) \
  CONFIG_ASSIGN_OR_RETURN_IMPL(CONFIG_CONCAT(status_or_, __LINE__), lhs, expression)
#define CONFIG_ASSIGN_OR_RETURN_IMPL(temporary, lhs, expression) \
  auto temporary = (expression);                                 \
  if (!temporary.ok()) return temporary.status();                \
  lhs = *std::move(temporary)
#define CONFIG_CONCAT(a, b) CONFIG_CONCAT_IMPL(a, b)
#define CONFIG_CONCAT_IMPL(a, b) a##b
// NOLINTEND(bugprone-macro-parentheses)

#endif  // KVSTREAM_CODEC_CONFIG_JSON_H_

#include "codec/config_json.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace kvstream {
namespace {

using nlohmann::json;

constexpr size_t kTextBytesMax = size_t{1} << 20;
constexpr int kDepthMax = 64;

}  // namespace

absl::StatusOr<json> ParseConfigJson(absl::string_view text) {
  if (text.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", text.size(), " bytes, must be at most ", kTextBytesMax));
  }
  bool too_deep = false;
  const json::parser_callback_t limit_depth = [&too_deep](int depth, json::parse_event_t /*event*/,
                                                          json& /*parsed*/) {
    if (depth > kDepthMax) too_deep = true;
    return !too_deep;
  };
  json parsed =
      json::parse(text.data(), text.data() + text.size(), limit_depth, /*allow_exceptions=*/false);
  if (too_deep) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: nested more than ", kDepthMax, " deep"));
  }
  if (parsed.is_discarded()) return absl::InvalidArgumentError("config.json: is not valid JSON");
  if (!parsed.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: must be a JSON object, is of type ", parsed.type_name()));
  }
  return parsed;
}

const json* ConfigObject::Find(absl::string_view key) const {
  const auto it = object_->find(std::string(key));
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

const json* ConfigObject::FindAny(absl::Span<const absl::string_view> keys,
                                  absl::string_view* found) const {
  for (const absl::string_view key : keys) {
    if (const json* value = Find(key)) {
      *found = key;
      return value;
    }
  }
  return nullptr;
}

std::string ConfigObject::PathOf(absl::string_view key) const { return absl::StrCat(path_, key); }

absl::Status ConfigObject::WrongType(absl::string_view key, absl::string_view wanted,
                                     const json& value) const {
  return absl::InvalidArgumentError(absl::StrCat("config.json: ", PathOf(key), " must be ", wanted,
                                                 ", is of type ", value.type_name()));
}

absl::StatusOr<absl::optional<ConfigObject>> ConfigObject::Object(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return absl::optional<ConfigObject>();
  if (!value->is_object()) return WrongType(key, "an object", *value);
  return absl::optional<ConfigObject>(ConfigObject(value, absl::StrCat(path_, key, ".")));
}

absl::StatusOr<absl::optional<int>> ConfigObject::Int(absl::Span<const absl::string_view> keys,
                                                      int min, int max) const {
  absl::string_view key;
  const json* value = FindAny(keys, &key);
  if (value == nullptr) return absl::optional<int>();
  if (value->is_array())
    return WrongType(key, "one integer (layers that differ are not supported)", *value);
  if (!value->is_number_integer()) return WrongType(key, "an integer", *value);
  // Unsigned values beyond int64_t would turn negative.
  const bool in_range = value->is_number_unsigned()
                            ? max >= 0 && value->get<uint64_t>() <= static_cast<uint64_t>(max) &&
                                  (min < 0 || value->get<uint64_t>() >= static_cast<uint64_t>(min))
                            : value->get<int64_t>() >= min && value->get<int64_t>() <= max;
  if (!in_range) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: ", PathOf(key), " is ",
                                                   value->dump(), ", must be ", min, " to ", max));
  }
  return absl::optional<int>(value->get<int>());
}

absl::StatusOr<int> ConfigObject::RequiredInt(absl::Span<const absl::string_view> keys, int min,
                                              int max) const {
  const absl::StatusOr<absl::optional<int>> value = Int(keys, min, max);
  if (!value.ok()) return value.status();
  if (!value->has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", path_, absl::StrJoin(keys, " or "),
                     " is missing; write it out, even where it is the model type's default"));
  }
  return **value;
}

absl::StatusOr<absl::optional<double>> ConfigObject::Number(
    absl::Span<const absl::string_view> keys, double min, double max) const {
  absl::string_view key;
  const json* value = FindAny(keys, &key);
  if (value == nullptr) return absl::optional<double>();
  if (!value->is_number()) return WrongType(key, "a number", *value);
  const double number = value->get<double>();
  if (!(number >= min && number <= max)) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", PathOf(key), " is ", number, ", must be ", min, " to ", max));
  }
  return absl::optional<double>(number);
}

absl::StatusOr<absl::optional<bool>> ConfigObject::Bool(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return absl::optional<bool>();
  if (!value->is_boolean()) return WrongType(key, "true or false", *value);
  return absl::optional<bool>(value->get<bool>());
}

absl::StatusOr<absl::optional<std::string>> ConfigObject::String(
    absl::Span<const absl::string_view> keys) const {
  absl::string_view key;
  const json* value = FindAny(keys, &key);
  if (value == nullptr) return absl::optional<std::string>();
  if (!value->is_string()) return WrongType(key, "a string", *value);
  return absl::optional<std::string>(value->get<std::string>());
}

absl::StatusOr<absl::optional<std::vector<double>>> ConfigObject::Numbers(absl::string_view key,
                                                                          size_t count, double min,
                                                                          double max) const {
  const json* value = Find(key);
  if (value == nullptr) return absl::optional<std::vector<double>>();
  if (!value->is_array()) return WrongType(key, "a list of numbers", *value);
  if (value->size() != count) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: ", PathOf(key), " has ",
                                                   value->size(), " entries, must have ", count));
  }
  std::vector<double> numbers;
  numbers.reserve(count);
  for (const json& element : *value) {
    if (!element.is_number()) return WrongType(key, "a list of numbers", element);
    const double number = element.get<double>();
    if (!(number >= min && number <= max)) {
      return absl::InvalidArgumentError(absl::StrCat("config.json: ", PathOf(key), "[",
                                                     numbers.size(), "] is ", number, ", must be ",
                                                     min, " to ", max));
    }
    numbers.push_back(number);
  }
  return absl::optional<std::vector<double>>(std::move(numbers));
}

}  // namespace kvstream

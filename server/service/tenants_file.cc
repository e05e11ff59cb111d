#include "server/service/tenants_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/service/small_file.h"
#include "server/service/units.h"

namespace kvstream {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr int kMaxCalls = 100000;
constexpr size_t kMaxCertificateNameBytes = 255;

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(what); }

// What a wrong value looks like in a message.
std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, 80)), "\"");
}

absl::Status ParseName(const YAML::Node& node, std::string* name) {
  if (!node.IsScalar()) return Invalid("is not a name");
  *name = node.Scalar();
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  };
  if (name->empty() || name->size() > kMaxNameBytes ||
      !absl::ascii_isalnum(static_cast<unsigned char>(name->front())) ||
      !std::all_of(name->begin(), name->end(), allowed)) {
    return Invalid(absl::StrCat(Quoted(*name), " is not 1 to ", kMaxNameBytes,
                                " letters, digits, \".\", \"_\" and \"-\", beginning with a "
                                "letter or digit"));
  }
  return absl::OkStatus();
}

// One value or a list of them.
absl::Status ForEach(const YAML::Node& node,
                     const std::function<absl::Status(const std::string&)>& visit) {
  if (node.IsScalar()) return visit(node.Scalar());
  if (!node.IsSequence()) return Invalid("is neither a value nor a list");
  if (node.size() > kMaxTenantCredentials) {
    return Invalid(absl::StrCat("has ", node.size(), " values; at most ", kMaxTenantCredentials));
  }
  for (const YAML::Node& element : node) {
    if (!element.IsScalar()) return Invalid("has a value that is not a text");
    if (absl::Status status = visit(element.Scalar()); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// Reads entries and remembers what may not come twice.
class Reader {
 public:
  absl::Status Read(const YAML::Node& node, TenantEntry* entry) {
    if (!node.IsMap()) return Invalid("is not a mapping of keys to values");
    std::set<std::string> seen;
    for (const auto& field : node) {
      if (!field.first.IsScalar()) return Invalid("has a key that is not a name");
      const std::string key = field.first.Scalar();
      if (!seen.insert(key).second) return Invalid(absl::StrCat(Quoted(key), " comes twice"));
      absl::Status status = ReadField(key, field.second, entry);
      if (!status.ok()) return Invalid(absl::StrCat(Quoted(key), " ", status.message()));
    }
    if (entry->name.empty()) return Invalid("has no name");
    return absl::OkStatus();
  }

 private:
  absl::Status ReadField(const std::string& key, const YAML::Node& value, TenantEntry* entry) {
    if (key == "name") {
      if (absl::Status status = ParseName(value, &entry->name); !status.ok()) return status;
      if (!names_.insert(entry->name).second) {
        return Invalid(absl::StrCat(entry->name, " is the name of two entries"));
      }
      return absl::OkStatus();
    }
    if (key == "quota-bytes") {
      if (!value.IsScalar()) return Invalid("is not a size");
      const absl::StatusOr<uint64_t> bytes = ParseByteSize(value.Scalar());
      if (!bytes.ok()) return bytes.status();
      entry->quota_bytes = *bytes;
      return absl::OkStatus();
    }
    if (key == "pin-bytes") {
      if (!value.IsScalar()) return Invalid("is not a size");
      const absl::StatusOr<uint64_t> bytes = ParseByteSize(value.Scalar());
      if (!bytes.ok()) return bytes.status();
      entry->pin_bytes = *bytes;
      return absl::OkStatus();
    }
    if (key == "put-buffer-bytes") {
      if (!value.IsScalar()) return Invalid("is not a size");
      const absl::StatusOr<uint64_t> bytes = ParseByteSize(value.Scalar());
      if (!bytes.ok()) return bytes.status();
      entry->put_buffer_bytes = *bytes;
      return absl::OkStatus();
    }
    if (key == "max-loads" || key == "max-puts") {
      int calls = 0;
      if (!value.IsScalar() || !absl::SimpleAtoi(value.Scalar(), &calls) || calls < 0 ||
          calls > kMaxCalls) {
        return Invalid(absl::StrCat("is not a number from 0 to ", kMaxCalls));
      }
      (key == "max-loads" ? entry->max_loads : entry->max_puts) = calls;
      return absl::OkStatus();
    }
    if (key == "admin") {
      const std::string text = value.IsScalar() ? value.Scalar() : "";
      if (text != "true" && text != "false") return Invalid("is neither true nor false");
      entry->admin = text == "true";
      return absl::OkStatus();
    }
    if (key == "token-sha256") {
      return ForEach(value, [&](const std::string& text) { return AddToken(text, entry); });
    }
    if (key == "certificates") {
      return ForEach(value, [&](const std::string& text) { return AddCertificate(text, entry); });
    }
    return Invalid(
        "is not a key; there are name, quota-bytes, pin-bytes, max-loads, max-puts, "
        "put-buffer-bytes, token-sha256, certificates, admin");
  }

  absl::Status AddToken(const std::string& text, TenantEntry* entry) {
    std::array<uint8_t, 32> hash;
    const bool is_hex = std::all_of(text.begin(), text.end(), [](char c) {
      return absl::ascii_isxdigit(static_cast<unsigned char>(c));
    });
    // The text is not repeated: somebody may have written the token itself.
    if (text.size() != 2 * hash.size() || !is_hex) {
      return Invalid(
          "has a value that is not 64 hexadecimal digits; write the SHA-256 of a token, "
          "not the token");
    }
    const std::string bytes = absl::HexStringToBytes(text);
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(hash.data()));
    if (!tokens_.insert(hash).second) return Invalid("has a value that is there twice");
    entry->token_hashes.push_back(hash);
    return absl::OkStatus();
  }

  absl::Status AddCertificate(const std::string& text, TenantEntry* entry) {
    if (text.empty() || text.size() > kMaxCertificateNameBytes) {
      return Invalid(
          absl::StrCat("has a name of ", text.size(), " bytes; 1 to ", kMaxCertificateNameBytes));
    }
    if (!certificates_.insert(text).second) {
      return Invalid(absl::StrCat("has ", Quoted(text), ", which is there twice"));
    }
    entry->certificates.push_back(text);
    return absl::OkStatus();
  }

  std::set<std::string> names_;
  std::set<std::array<uint8_t, 32>> tokens_;
  std::set<std::string> certificates_;
};

absl::StatusOr<std::vector<TenantEntry>> Parse(absl::string_view yaml) {
  if (yaml.size() > kMaxTenantsFileBytes) {
    return Invalid(absl::StrCat("has ", yaml.size(), " bytes; at most ", kMaxTenantsFileBytes));
  }
  const YAML::Node root = YAML::Load(std::string(yaml));
  if (!root.IsMap() || root.size() != 1 || !root.begin()->first.IsScalar() ||
      root.begin()->first.Scalar() != "tenants" || !root.begin()->second.IsSequence()) {
    return Invalid("is not one key \"tenants\" with a list of entries");
  }
  const YAML::Node list = root.begin()->second;
  if (list.size() == 0 || list.size() > kMaxTenants) {
    return Invalid(absl::StrCat("has ", list.size(), " entries; 1 to ", kMaxTenants));
  }
  std::vector<TenantEntry> entries;
  Reader reader;
  for (const YAML::Node& node : list) {
    TenantEntry entry;
    if (absl::Status status = reader.Read(node, &entry); !status.ok()) {
      return Invalid(absl::StrCat("entry ", entries.size() + 1, ": ", status.message()));
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace

absl::StatusOr<std::vector<TenantEntry>> ParseTenants(absl::string_view yaml,
                                                      absl::string_view source) {
  absl::StatusOr<std::vector<TenantEntry>> entries = std::vector<TenantEntry>();
  try {
    entries = Parse(yaml);
  } catch (const YAML::Exception& error) {
    entries = Invalid(error.what());
  }
  if (entries.ok()) return entries;
  return Invalid(absl::StrCat(source, ": ", entries.status().message()));
}

absl::StatusOr<std::vector<TenantEntry>> ReadTenantsFile(const std::string& path) {
  const absl::StatusOr<std::string> yaml =
      ReadSmallFile("tenants-file", path, kMaxTenantsFileBytes);
  if (!yaml.ok()) return yaml.status();
  return ParseTenants(*yaml, path);
}

}  // namespace kvstream

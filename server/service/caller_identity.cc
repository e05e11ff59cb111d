#include "server/service/caller_identity.h"

#include <grpc/grpc_security_constants.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace kvstream {
namespace {

constexpr absl::string_view kScheme = "Bearer ";

std::vector<std::string> Values(const grpc::ServerContextBase& context, const char* key) {
  std::vector<std::string> values;
  const auto range = context.client_metadata().equal_range(key);
  for (auto it = range.first; it != range.second; ++it) {
    values.emplace_back(it->second.data(), it->second.size());
  }
  return values;
}

}  // namespace

CallCredentials CredentialsOf(const grpc::ServerContextBase& context) {
  CallCredentials credentials;
  credentials.authorization = Values(context, "authorization");
  credentials.acting_for = Values(context, "kvstream-tenant");
  const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
  if (auth == nullptr || !auth->IsPeerAuthenticated()) return credentials;
  for (const grpc::string_ref& name : auth->FindPropertyValues(GRPC_X509_SAN_PROPERTY_NAME)) {
    credentials.certificate_names.emplace_back(name.data(), name.size());
  }
  return credentials;
}

CallerIdentities::CallerIdentities(const std::vector<TenantEntry>& entries) {
  for (size_t i = 0; i < entries.size(); ++i) {
    names_[entries[i].name] = i;
    for (const auto& hash : entries[i].token_hashes) tokens_.emplace_back(hash, i);
    for (const std::string& name : entries[i].certificates) certificates_[name] = i;
  }
}

absl::optional<size_t> CallerIdentities::Find(const std::string& name) const {
  const auto found = names_.find(name);
  if (found == names_.end()) return absl::nullopt;
  return found->second;
}

absl::StatusOr<size_t> CallerIdentities::FindToken(const std::string& authorization) const {
  const absl::string_view text = authorization;
  if (!absl::StartsWithIgnoreCase(text, kScheme)) {
    return absl::UnauthenticatedError("authorization is not \"Bearer TOKEN\"");
  }
  const absl::string_view token = text.substr(kScheme.size());
  std::array<uint8_t, 32> hash;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), hash.data());
  absl::optional<size_t> found;
  for (const auto& [known, entry] : tokens_) {
    if (CRYPTO_memcmp(known.data(), hash.data(), hash.size()) == 0) found = entry;
  }
  if (!found.has_value()) return absl::UnauthenticatedError("the token is not known");
  return *found;
}

absl::StatusOr<size_t> CallerIdentities::Identify(const CallCredentials& credentials) const {
  absl::optional<size_t> caller;
  for (const std::string& name : credentials.certificate_names) {
    const auto found = certificates_.find(name);
    if (found == certificates_.end()) continue;
    if (caller.has_value() && *caller != found->second) {
      return absl::UnauthenticatedError("the client certificate names two tenants");
    }
    caller = found->second;
  }
  if (credentials.authorization.size() > 1) {
    return absl::UnauthenticatedError("authorization comes twice");
  }
  if (!credentials.authorization.empty()) {
    const absl::StatusOr<size_t> by_token = FindToken(credentials.authorization.front());
    if (!by_token.ok()) return by_token;
    if (caller.has_value() && *caller != *by_token) {
      return absl::UnauthenticatedError("token and client certificate are of two tenants");
    }
    caller = *by_token;
  }
  if (caller.has_value()) return *caller;
  return absl::UnauthenticatedError(
      "this server wants to know the tenant: send a token (metadata \"authorization: Bearer "
      "TOKEN\") or a client certificate that it knows");
}

}  // namespace kvstream

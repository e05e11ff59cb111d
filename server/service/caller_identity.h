// Which tenant a call is from.
#ifndef KVSTREAM_SERVER_SERVICE_CALLER_IDENTITY_H_
#define KVSTREAM_SERVER_SERVICE_CALLER_IDENTITY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "grpcpp/server_context.h"
#include "server/service/tenants_file.h"

namespace kvstream {

// What a call carries to say whose it is.
struct CallCredentials {
  std::vector<std::string> authorization;      // metadata `authorization`, each as sent
  std::vector<std::string> certificate_names;  // of a verified client certificate
  std::vector<std::string> acting_for;         // metadata `kvstream-tenant`
};

CallCredentials CredentialsOf(const grpc::ServerContextBase& context);

// Immutable, hence thread-safe.
class CallerIdentities {
 public:
  explicit CallerIdentities(const std::vector<TenantEntry>& entries);

  // Index of the caller's entry. UNAUTHENTICATED unless everything that the call presents names the
  // same entry and something does: an unknown token is refused whatever the certificate says, but a
  // certificate that no entry names may come with a token, as where one is for all machines of a
  // cluster. Compares the token's hash with all there are, in a time that does not depend on them.
  absl::StatusOr<size_t> Identify(const CallCredentials& credentials) const;

  // Index of the entry whose name it is; none if there is none.
  absl::optional<size_t> Find(const std::string& name) const;

 private:
  absl::StatusOr<size_t> FindToken(const std::string& authorization) const;

  std::vector<std::pair<std::array<uint8_t, 32>, size_t>> tokens_;
  std::unordered_map<std::string, size_t> certificates_;
  std::unordered_map<std::string, size_t> names_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_CALLER_IDENTITY_H_

// Who may use this server, as an operator writes it down. docs/tenants.md has an example.
#ifndef KVSTREAM_SERVER_SERVICE_TENANTS_FILE_H_
#define KVSTREAM_SERVER_SERVICE_TENANTS_FILE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace kvstream {

struct TenantEntry {
  std::string name;          // 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit
  uint64_t quota_bytes = 0;  // 0: no quota
  // Bytes of its chunks that may be pinned; none: see Tenants.
  absl::optional<uint64_t> pin_bytes;
  // Loads in flight, 0: no limit; none: as the server's options say.
  absl::optional<int> max_loads;
  // Uploads in flight, and the bytes of unfinished ones; likewise.
  absl::optional<int> max_puts;
  absl::optional<uint64_t> put_buffer_bytes;
  // SHA-256 of its tokens; a token is in one entry only.
  std::vector<std::array<uint8_t, 32>> token_hashes;
  // Subject alternative names of its client certificates; a name is in one entry only.
  std::vector<std::string> certificates;
  // May list, delete and ask for the stats of any tenant.
  bool admin = false;
};

inline constexpr size_t kMaxTenantsFileBytes = 1 << 20;
inline constexpr size_t kMaxTenants = 1024;
// Tokens and certificates of one entry, each.
inline constexpr size_t kMaxTenantCredentials = 16;

// INVALID_ARGUMENT that opens with `source` and says which entry and key is wrong: unknown or
// missing keys, values out of range, names, tokens or certificates that come twice, no entry at
// all.
absl::StatusOr<std::vector<TenantEntry>> ParseTenants(absl::string_view yaml,
                                                      absl::string_view source);

// NOT_FOUND if the file cannot be read; else as ParseTenants.
absl::StatusOr<std::vector<TenantEntry>> ReadTenantsFile(const std::string& path);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_TENANTS_FILE_H_

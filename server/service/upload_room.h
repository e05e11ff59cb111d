// What one upload takes of what all uploads share, and of what is its tenant's.
#ifndef KVSTREAM_SERVER_SERVICE_UPLOAD_ROOM_H_
#define KVSTREAM_SERVER_SERVICE_UPLOAD_ROOM_H_

#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "server/service/budget.h"

namespace kvstream {

// The uploads of one tenant: their number, and the bytes of the unfinished ones. Thread-safe.
struct TenantUploads {
  static constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

  Budget calls{kNoLimit};
  Budget bytes{kNoLimit};
};

// Bytes of one unfinished upload; given back on destruction. Not thread-safe. The budgets outlive
// it.
class UploadRoom {
 public:
  // `tenant`: null where there are no tenants.
  UploadRoom(Budget* server, TenantUploads* tenant)
      : server_bytes_(*server),
        tenant_(tenant),
        of_server_(server),
        of_tenant_(tenant == nullptr ? nullptr : &tenant->bytes) {}

  // Takes so many bytes more. RESOURCE_EXHAUSTED, and nothing taken, where they are not left; the
  // message names the limit.
  absl::Status Take(uint64_t bytes);
  void Clear() {
    of_server_.Clear();
    of_tenant_.Clear();
  }
  uint64_t bytes() const { return of_server_.amount(); }

 private:
  const Budget& server_bytes_;
  TenantUploads* const tenant_;
  Budget::Share of_server_;
  Budget::Share of_tenant_;
};

// A place among the tenant's uploads. RESOURCE_EXHAUSTED if it has as many as it may.
absl::Status EnterUpload(TenantUploads* tenant, Budget::Share* place);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_UPLOAD_ROOM_H_

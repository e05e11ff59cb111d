#include "server/service/upload_room.h"

#include "absl/strings/str_cat.h"

namespace kvstream {

absl::Status UploadRoom::Take(uint64_t bytes) {
  if (tenant_ != nullptr && !of_tenant_.Grow(bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("this tenant's unfinished uploads leave no room for ", bytes, " bytes more (",
                     tenant_->bytes.limit(),
                     " in all, put-buffer-bytes in the tenants file, or "
                     "--put-buffer-bytes-per-tenant); try again later"));
  }
  if (of_server_.Grow(bytes)) return absl::OkStatus();
  of_tenant_.Shrink(bytes);
  return absl::ResourceExhaustedError(
      absl::StrCat("unfinished uploads leave no room for ", bytes, " bytes more (",
                   server_bytes_.limit(), " in all, --put-buffer-bytes); try again later"));
}

absl::Status EnterUpload(TenantUploads* tenant, Budget::Share* place) {
  *place = Budget::Share(&tenant->calls);
  if (place->Grow(1)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("this tenant has ", tenant->calls.limit(),
                   " uploads in flight (max-puts in the tenants file, or "
                   "--max-puts-per-tenant); try again later"));
}

}  // namespace kvstream

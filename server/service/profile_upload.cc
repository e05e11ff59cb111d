#include "server/service/profile_upload.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/ids.h"

namespace kvstream {
namespace {

constexpr size_t kMaxDataBytes = 1 << 20;

}  // namespace

ProfileUpload::ProfileUpload(const RpcEnvironment* environment)
    : environment_(environment), room_(environment->upload_bytes, environment->tenant_uploads) {}

absl::Status ProfileUpload::OnMessage(const v1::PutProfileRequest& message) {
  const std::string& data = message.data();
  if (data.empty() || data.size() > kMaxDataBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a data message has ", data.size(),
                                                   " bytes; 1 to ", kMaxDataBytes, " are allowed"));
  }
  const uint64_t limit = environment_->options->max_profile_bytes;
  if (data.size() > limit - bytes_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the profile is larger than ", limit,
                                                   " bytes, the server's --max-profile-bytes"));
  }
  if (absl::Status status = room_.Take(data.size()); !status.ok()) return status;
  bytes_.append(data);
  return absl::OkStatus();
}

absl::Status ProfileUpload::OnEnd() {
  absl::StatusOr<ProfileCache::Stored> stored = environment_->profiles->Put(bytes_);
  if (!stored.ok()) return stored.status();
  response_.set_profile_id(IdBytes(stored->profile->id()));
  response_.set_created(stored->created);
  environment_->log->Write(LogLevel::kInfo, "profile put",
                           {{"profile", IdHex(stored->profile->id())},
                            {"bytes", bytes_.size()},
                            {"levels", stored->profile->levels()},
                            {"chunk_tokens", stored->profile->chunk_tokens()},
                            {"created", stored->created}});
  return absl::OkStatus();
}

}  // namespace kvstream

// The store that the options name.
#ifndef KVSTREAM_SERVER_SERVICE_OPEN_STORE_H_
#define KVSTREAM_SERVER_SERVICE_OPEN_STORE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/service/options.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Opens or makes it. The driver's errors, with the option to change; may take seconds after a
// crash. A tier on a disk that is full or fails is done without: then it is the store in the Ceph
// pool alone, and `no_tier` is told why.
absl::StatusOr<std::unique_ptr<ChunkStore>> OpenStore(
    const ServerOptions& options,
    const std::function<void(const absl::Status&)>& no_tier = nullptr);

// Makes options.data_dir from options.restore_from (storage/rocksdb/restore.h); returns a line that
// says what came back.
absl::StatusOr<std::string> RestoreFromBackup(const ServerOptions& options);

// Makes options.data_dir from what can be read of options.salvage_from
// (storage/rocksdb/salvage.h); returns a line that says what that is. `lost` gets one for each
// chunk and profile that lost something.
absl::StatusOr<std::string> SalvageFromDamaged(const ServerOptions& options,
                                               const std::function<void(absl::string_view)>& lost);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_OPEN_STORE_H_

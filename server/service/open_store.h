// The store that the options name.
#ifndef KVSTREAM_SERVER_SERVICE_OPEN_STORE_H_
#define KVSTREAM_SERVER_SERVICE_OPEN_STORE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/service/options.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Opens or makes it. The driver's errors, with the option to change; may take seconds after a
// crash.
absl::StatusOr<std::unique_ptr<ChunkStore>> OpenStore(const ServerOptions& options);

// Makes options.data_dir from options.restore_from (storage/rocksdb/restore.h); returns a line that
// says what came back.
absl::StatusOr<std::string> RestoreFromBackup(const ServerOptions& options);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_OPEN_STORE_H_

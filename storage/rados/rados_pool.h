// A namespace of a Ceph pool over librados: the connection, its errors as statuses, and operations
// in flight side by side. Knows nothing of chunks.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_POOL_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_POOL_H_

#include <rados/librados.h>

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace kvstream {

struct RadosPoolOptions {
  // ceph.conf; empty: where librados looks for it (CEPH_CONF, /etc/ceph/ceph.conf).
  std::string conf_file;
  std::string user = "admin";  // without "client."
  std::string pool;
  std::string name_space;  // of the objects within the pool; may be empty
  // An operation that Ceph has not answered by then fails with UNAVAILABLE; what it would have
  // written may still have been, or not. Whole seconds, at least 1.
  absl::Duration op_timeout = absl::Seconds(10);
  absl::Duration connect_timeout = absl::Seconds(10);
  // Names and values as in ceph.conf, which they override.
  std::vector<std::pair<std::string, std::string>> settings;
  // Operations that one call has in flight.
  size_t window = 64;

  // INVALID_ARGUMENT naming the option.
  absl::Status Validate() const;
};

// UNAVAILABLE for a cluster that does not answer, RESOURCE_EXHAUSTED for a full one, DATA_LOSS for
// bytes that no replica gives back, NOT_FOUND for an absent object; `what` opens the message. `rc`
// is what librados returned, below 0.
absl::Status RadosError(int rc, absl::string_view what);

// Reads of values by key from one object's omap, or a comparison followed by changes of them, which
// Ceph does as a whole or not at all. An absent key has the empty value; no stored value is empty.
struct OmapRead {
  std::string object;
  std::vector<std::string> keys;
  std::vector<std::string> values;  // filled: one for each key
};
struct OmapWrite {
  std::string object;
  std::vector<std::pair<std::string, std::string>> expected;
  std::vector<std::pair<std::string, std::string>> set;
  std::vector<std::string> remove;
  // Filled: something was not as expected, and nothing was changed.
  bool conflict = false;
};
// A page of the entries whose keys begin with `prefix` and are greater than `after`.
struct OmapList {
  std::string object;
  std::string prefix;
  std::string after;
  size_t limit = 0;
  std::vector<std::pair<std::string, std::string>> entries;  // filled: at most `limit`, by key
  bool more = false;                                         // filled: Ceph has more of them
};

// Thread-safe. Every method blocks, at most for about op_timeout after its last operation started,
// and not beyond the caller's deadline (storage/call_deadline.h): what is under way then is
// cancelled and fails as if it had timed out.
class RadosPool {
 public:
  // FAILED_PRECONDITION for a pool, user or configuration that does not exist or may not be used;
  // UNAVAILABLE if no monitor answers within connect_timeout.
  static absl::StatusOr<std::unique_ptr<RadosPool>> Connect(const RadosPoolOptions& options);
  ~RadosPool();
  RadosPool(const RadosPool&) = delete;
  RadosPool& operator=(const RadosPool&) = delete;

  // For operations that have no method here.
  rados_ioctx_t io() const { return io_; }
  const RadosPoolOptions& options() const { return options_; }

  // Runs `count` operations, options().window at a time. `start` begins the i-th with the
  // completion given and returns librados' code; `done` gets the i-th result, in order. `done`
  // always follows, and after it Ceph no longer touches what `start` lent it. What is not begun
  // when the caller's deadline passes has the result -ETIMEDOUT.
  void RunAll(size_t count, absl::FunctionRef<int(size_t, rados_completion_t)> start,
              absl::FunctionRef<void(size_t, int)> done) const;

  // The first error, after all have ended; `what` opens its message. An index object that is
  // missing is DATA_LOSS: they are made once and never removed. If `after_writes` a read sees
  // nothing that is not yet durable.
  absl::Status Read(absl::string_view what, std::vector<OmapRead>* reads,
                    bool after_writes = false) const;
  absl::Status Write(absl::string_view what, std::vector<OmapWrite>* writes) const;
  // Begins one, as RunAll asks for it; librados has taken what it needs on return.
  int StartWrite(const OmapWrite& write, rados_completion_t completion) const;
  absl::Status List(absl::string_view what, std::vector<OmapList>* lists) const;

 private:
  struct Flight;
  struct Run;  // one RunAll that has a deadline

  explicit RadosPool(const RadosPoolOptions& options);
  absl::Status Open();
  // Waits for the operation that was begun first; returns its result.
  int Land(Run* run, Flight* landed) const;
  void CancelUntilClosed();
  bool FirstDeadlineChanged() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closing_ || (!runs_.empty() && runs_.begin()->first < awaited_);
  }

  const RadosPoolOptions options_;
  rados_t cluster_ = nullptr;
  rados_ioctx_t io_ = nullptr;
  mutable absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  // By deadline. Whoever adds one that is earlier than `awaited_` wakes the canceller.
  mutable std::multimap<absl::Time, Run*> runs_ ABSL_GUARDED_BY(mutex_);
  absl::Time awaited_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  std::thread canceller_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_POOL_H_

#include "storage/rados/rados_pool.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/call_deadline.h"

namespace kvstream {
namespace {

struct FreeReadOp {
  void operator()(void* op) const { rados_release_read_op(op); }
};
struct FreeWriteOp {
  void operator()(void* op) const { rados_release_write_op(op); }
};
using ReadOp = std::unique_ptr<void, FreeReadOp>;
using WriteOp = std::unique_ptr<void, FreeWriteOp>;

absl::Status IndexError(int rc, absl::string_view what, const std::string& object) {
  if (rc == -ENOENT) {
    return absl::DataLossError(
        absl::StrCat(what, ": the index object ", object, " is missing from the pool"));
  }
  return RadosError(rc, what);
}

// The entries of an iterator, which came with an operation that answered `rc`; frees it, as is ours
// to do even if the operation failed. One that failed has left the iterator without a position, and
// looking at it would read wild memory.
int TakeAll(rados_omap_iter_t iterator, int rc,
            std::vector<std::pair<std::string, std::string>>* out) {
  if (iterator == nullptr) return rc;
  while (rc >= 0) {
    char *key = nullptr, *value = nullptr;
    size_t key_bytes = 0, value_bytes = 0;
    rc = rados_omap_get_next2(iterator, &key, &value, &key_bytes, &value_bytes);
    if (rc < 0 || key == nullptr) break;
    out->emplace_back(std::string(key, key_bytes), std::string(value, value_bytes));
  }
  rados_omap_get_end(iterator);
  return rc;
}

}  // namespace

absl::Status RadosPoolOptions::Validate() const {
  if (pool.empty()) return absl::InvalidArgumentError("rados: no pool is named");
  if (user.empty()) return absl::InvalidArgumentError("rados: no user is named");
  if (op_timeout < absl::Seconds(1) || connect_timeout < absl::Seconds(1)) {
    return absl::InvalidArgumentError("rados: timeouts must be at least 1 s");
  }
  if (window < 1 || window > 1024) {
    return absl::InvalidArgumentError("rados: window must be from 1 to 1024");
  }
  return absl::OkStatus();
}

absl::Status RadosError(int rc, absl::string_view what) {
  const std::string text =
      absl::StrCat(what, ": Ceph answered: ", std::strerror(-rc), " (", rc, ")");
  switch (-rc) {
    case ENOENT:
      return absl::NotFoundError(text);
    case ETIMEDOUT:
      return absl::UnavailableError(
          absl::StrCat(what, ": Ceph did not answer in time; see `ceph health detail`"));
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(
          absl::StrCat(what, ": the Ceph pool is full or at its quota"));
    case EIO:
    case EILSEQ:
      return absl::DataLossError(text);
    default:
      return absl::UnavailableError(text);
  }
}

absl::StatusOr<std::unique_ptr<RadosPool>> RadosPool::Connect(const RadosPoolOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  auto pool = absl::WrapUnique(new RadosPool(options));
  if (absl::Status status = pool->Open(); !status.ok()) return status;
  return pool;
}

absl::Status RadosPool::Open() {
  if (const int rc = rados_create(&cluster_, options_.user.c_str()); rc < 0) {
    cluster_ = nullptr;
    return RadosError(rc, "rados: no client could be made");
  }
  const char* const file = options_.conf_file.empty() ? nullptr : options_.conf_file.c_str();
  if (const int rc = rados_conf_read_file(cluster_, file); rc < 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "rados: cannot read ", file == nullptr ? "a ceph.conf in its usual places" : file, ": ",
        std::strerror(-rc)));
  }
  const auto seconds = [](absl::Duration time) {
    return absl::StrCat(
        std::max<int64_t>(1, absl::ToInt64Seconds(absl::Ceil(time, absl::Seconds(1)))));
  };
  std::vector<std::pair<std::string, std::string>> settings = {
      {"client_mount_timeout", seconds(options_.connect_timeout)},
      {"rados_mon_op_timeout", seconds(options_.connect_timeout)},
      {"rados_osd_op_timeout", seconds(options_.op_timeout)}};
  settings.insert(settings.end(), options_.settings.begin(), options_.settings.end());
  for (const auto& [name, value] : settings) {
    if (const int rc = rados_conf_set(cluster_, name.c_str(), value.c_str()); rc < 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("rados: Ceph refuses the setting ", name, " = ", value));
    }
  }
  if (const int rc = rados_connect(cluster_); rc < 0) {
    // Nothing to shut down: librados frees a client that never connected in rados_shutdown too.
    if (rc == -ETIMEDOUT) {
      return absl::UnavailableError(absl::StrCat("rados: no monitor answered within ",
                                                 absl::FormatDuration(options_.connect_timeout)));
    }
    if (rc == -ENOENT || rc == -EACCES || rc == -EPERM || rc == -EINVAL) {
      return absl::FailedPreconditionError(
          absl::StrCat("rados: cannot connect as client.", options_.user, ": ", std::strerror(-rc),
                       "; check the configuration, the user and its keyring"));
    }
    return RadosError(rc, "rados: cannot connect");
  }
  if (const int rc = rados_ioctx_create(cluster_, options_.pool.c_str(), &io_); rc < 0) {
    io_ = nullptr;
    if (rc == -ENOENT) {
      return absl::FailedPreconditionError(
          absl::StrCat("rados: there is no pool \"", options_.pool,
                       "\"; make a replicated one: ceph osd pool create ", options_.pool));
    }
    return RadosError(rc, absl::StrCat("rados: cannot open the pool ", options_.pool));
  }
  rados_ioctx_set_namespace(io_, options_.name_space.c_str());
  // A full pool is an answer, not a wait.
  rados_set_pool_full_try(io_);
  canceller_ = std::thread([this] { CancelUntilClosed(); });
  return absl::OkStatus();
}

// An operation that was begun, or could not be: then `rc` is below 0.
struct RadosPool::Flight {
  size_t index = 0;
  rados_completion_t completion = nullptr;
  int rc = 0;
};

// The canceller sees only what is under the mutex, and releases nothing.
struct RadosPool::Run {
  explicit Run(absl::Time until) : deadline(until) {}

  const absl::Time deadline;  // InfiniteFuture: the canceller does not know this one
  absl::Mutex mutex;
  std::deque<Flight> flights ABSL_GUARDED_BY(mutex);  // in the order of their beginning
  bool late ABSL_GUARDED_BY(mutex) = false;
};

RadosPool::RadosPool(const RadosPoolOptions& options) : options_(options) {}

RadosPool::~RadosPool() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  if (canceller_.joinable()) canceller_.join();
  if (io_ != nullptr) rados_ioctx_destroy(io_);
  if (cluster_ != nullptr) rados_shutdown(cluster_);
}

void RadosPool::CancelUntilClosed() {
  absl::MutexLock lock(&mutex_);
  while (!closing_) {
    awaited_ = runs_.empty() ? absl::InfiniteFuture() : runs_.begin()->first;
    mutex_.AwaitWithDeadline(absl::Condition(this, &RadosPool::FirstDeadlineChanged), awaited_);
    const absl::Time now = absl::Now();
    while (!runs_.empty() && runs_.begin()->first <= now) {
      Run& run = *runs_.begin()->second;
      runs_.erase(runs_.begin());
      // Cancelling does not wait. Both locks: the run ends only after it has taken the outer one.
      absl::MutexLock run_lock(&run.mutex);
      run.late = true;
      for (const Flight& flight : run.flights) {
        if (flight.rc >= 0) rados_aio_cancel(io_, flight.completion);
      }
    }
  }
}

int RadosPool::Land(Run* run, Flight* landed) const {
  {
    absl::MutexLock lock(&run->mutex);
    *landed = run->flights.front();
  }
  int rc = landed->rc;
  if (rc >= 0) {
    rados_aio_wait_for_complete(landed->completion);
    rc = rados_aio_get_return_value(landed->completion);
  }
  bool late = false;
  {
    absl::MutexLock lock(&run->mutex);
    run->flights.pop_front();
    late = run->late;
  }
  rados_aio_release(landed->completion);
  // Ceph answers ECANCELED by itself where a comparison fails: that is not known any more.
  return late && rc == -ECANCELED ? -ETIMEDOUT : rc;
}

void RadosPool::RunAll(size_t count, absl::FunctionRef<int(size_t, rados_completion_t)> start,
                       absl::FunctionRef<void(size_t, int)> done) const {
  Run run(CallDeadline::Current());
  const bool bounded = run.deadline < absl::InfiniteFuture();
  if (bounded) {
    absl::MutexLock lock(&mutex_);
    runs_.emplace(run.deadline, &run);
  }
  size_t in_flight = 0;
  const auto land = [&] {
    Flight flight;
    const int rc = Land(&run, &flight);
    --in_flight;
    done(flight.index, rc);
  };
  for (size_t i = 0; i < count; ++i) {
    if (in_flight >= options_.window) land();
    Flight flight;
    flight.index = i;
    rados_aio_create_completion2(nullptr, nullptr, &flight.completion);
    const bool late = bounded && absl::Now() >= run.deadline;
    flight.rc = late ? -ETIMEDOUT : start(i, flight.completion);
    ++in_flight;
    absl::MutexLock lock(&run.mutex);
    // One that was begun while the others were cancelled.
    if (run.late && flight.rc >= 0) rados_aio_cancel(io_, flight.completion);
    run.flights.push_back(flight);
  }
  while (in_flight > 0) land();
  if (!bounded) return;
  absl::MutexLock lock(&mutex_);
  const auto [begin, end] = runs_.equal_range(run.deadline);
  const auto mine = std::find_if(begin, end, [&run](const auto& at) { return at.second == &run; });
  if (mine != end) runs_.erase(mine);
}

absl::Status RadosPool::Read(absl::string_view what, std::vector<OmapRead>* reads,
                             bool after_writes) const {
  std::vector<ReadOp> ops(reads->size());
  std::vector<rados_omap_iter_t> iterators(reads->size(), nullptr);
  std::vector<int> codes(reads->size(), 0);
  absl::Status status;
  RunAll(
      reads->size(),
      [&](size_t i, rados_completion_t completion) {
        const OmapRead& read = (*reads)[i];
        std::vector<const char*> keys;
        std::vector<size_t> sizes;
        for (const std::string& key : read.keys) {
          keys.push_back(key.data());
          sizes.push_back(key.size());
        }
        ops[i].reset(rados_create_read_op());
        rados_read_op_omap_get_vals_by_keys2(ops[i].get(), keys.data(), keys.size(), sizes.data(),
                                             &iterators[i], &codes[i]);
        return rados_aio_read_op_operate(
            ops[i].get(), io_, completion, read.object.c_str(),
            after_writes ? LIBRADOS_OPERATION_ORDER_READS_WRITES : LIBRADOS_OPERATION_NOFLAG);
      },
      [&](size_t i, int rc) {
        OmapRead& read = (*reads)[i];
        std::vector<std::pair<std::string, std::string>> found;
        if (rc >= 0) rc = std::min(codes[i], 0);
        rc = TakeAll(iterators[i], rc, &found);
        ops[i].reset();
        if (rc < 0) {
          status.Update(IndexError(rc, what, read.object));
          return;
        }
        read.values.assign(read.keys.size(), "");
        std::sort(found.begin(), found.end());
        for (size_t k = 0; k < read.keys.size(); ++k) {
          const auto at = std::lower_bound(found.begin(), found.end(),
                                           std::make_pair(read.keys[k], std::string()));
          if (at != found.end() && at->first == read.keys[k]) read.values[k] = at->second;
        }
      });
  return status;
}

int RadosPool::StartWrite(const OmapWrite& write, rados_completion_t completion) const {
  const WriteOp owned(rados_create_write_op());
  void* const op = owned.get();
  rados_write_op_assert_exists(op);
  for (const auto& [key, value] : write.expected) {
    rados_write_op_omap_cmp2(op, key.data(), LIBRADOS_CMPXATTR_OP_EQ, value.data(), key.size(),
                             value.size(), nullptr);
  }
  std::vector<const char*> keys, values;
  std::vector<size_t> key_sizes, value_sizes;
  for (const std::string& key : write.remove) {
    keys.push_back(key.data());
    key_sizes.push_back(key.size());
  }
  if (!keys.empty()) {
    rados_write_op_omap_rm_keys2(op, keys.data(), key_sizes.data(), keys.size());
  }
  keys.clear();
  key_sizes.clear();
  for (const auto& [key, value] : write.set) {
    keys.push_back(key.data());
    key_sizes.push_back(key.size());
    values.push_back(value.data());
    value_sizes.push_back(value.size());
  }
  if (!keys.empty()) {
    rados_write_op_omap_set2(op, keys.data(), values.data(), key_sizes.data(), value_sizes.data(),
                             keys.size());
  }
  return rados_aio_write_op_operate(op, io_, completion, write.object.c_str(), nullptr,
                                    LIBRADOS_OPERATION_NOFLAG);
}

absl::Status RadosPool::Write(absl::string_view what, std::vector<OmapWrite>* writes) const {
  absl::Status status;
  RunAll(
      writes->size(),
      [&](size_t i, rados_completion_t completion) { return StartWrite((*writes)[i], completion); },
      [&](size_t i, int rc) {
        OmapWrite& write = (*writes)[i];
        write.conflict = rc == -ECANCELED;
        if (rc < 0 && !write.conflict) status.Update(IndexError(rc, what, write.object));
      });
  return status;
}

absl::Status RadosPool::List(absl::string_view what, std::vector<OmapList>* lists) const {
  struct Answer {
    ReadOp op;
    rados_omap_iter_t iterator = nullptr;
    unsigned char more = 0;
    int code = 0;
  };
  std::vector<Answer> answers(lists->size());
  absl::Status status;
  RunAll(
      lists->size(),
      [&](size_t i, rados_completion_t completion) {
        const OmapList& list = (*lists)[i];
        Answer& answer = answers[i];
        answer.op.reset(rados_create_read_op());
        rados_read_op_omap_get_vals2(answer.op.get(), list.after.c_str(), list.prefix.c_str(),
                                     list.limit, &answer.iterator, &answer.more, &answer.code);
        return rados_aio_read_op_operate(answer.op.get(), io_, completion, list.object.c_str(),
                                         LIBRADOS_OPERATION_NOFLAG);
      },
      [&](size_t i, int rc) {
        OmapList& list = (*lists)[i];
        Answer& answer = answers[i];
        list.entries.clear();
        if (rc >= 0) rc = std::min(answer.code, 0);
        rc = TakeAll(answer.iterator, rc, &list.entries);
        answer.op.reset();
        list.more = answer.more != 0;
        if (rc < 0) status.Update(IndexError(rc, what, list.object));
      });
  return status;
}

}  // namespace kvstream

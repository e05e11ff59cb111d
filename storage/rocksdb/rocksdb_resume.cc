// The part of RocksDbChunkStore that writes, and that takes writes again after an error.
//
// An attempt to resume may last for seconds, and nobody may write meanwhile. So it has a thread of
// its own: who writes waits for it for a while and is refused then, and what must not wait is
// refused at once.
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/base/attributes.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "storage/call_deadline.h"
#include "storage/rocksdb/rocksdb_chunk_store.h"
#include "storage/rocksdb/status_mapping.h"

namespace kvstream {
namespace {

// In a frame of its own below Commit's, see there.
ABSL_ATTRIBUTE_NOINLINE rocksdb::Status WriteBatchTo(rocksdb::DB* db,
                                                     const rocksdb::WriteOptions& options,
                                                     rocksdb::WriteBatch* batch) {
  return db->Write(options, batch);
}

}  // namespace

absl::Time RocksDbChunkStore::WriteDeadline() const {
  return std::min(absl::Now() + options_.resume_wait, CallDeadline::Current());
}

absl::Status RocksDbChunkStore::RefusalWhileResuming(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat(
      what, ": the store is recovering from an error of its disk; try again in a second"));
}

absl::Status RocksDbChunkStore::AwaitWrites(absl::string_view what) {
  MaybeResume();
  if (!writes_.EnterBy(WriteDeadline())) return RefusalWhileResuming(what);
  writes_.Leave();
  return absl::OkStatus();
}

absl::Status RocksDbChunkStore::Write(rocksdb::WriteBatch* batch, const StoreChange& change,
                                      absl::string_view what,
                                      const absl::optional<rocksdb::WriteOptions>& how) {
  if (const rocksdb::Status merged = change.MergeInto(batch, family(kMeta)); !merged.ok()) {
    return FromRocksDb(merged, what);
  }
  MarkBatch(Mark(), batch);
  MaybeResume();
  rocksdb::WriteOptions options;
  options.sync = options_.sync_writes;
  options = how.value_or(options);
  if (!writes_.EnterBy(options.no_slowdown ? absl::InfinitePast() : WriteDeadline())) {
    return RefusalWhileResuming(what);
  }
  const rocksdb::Status status = Commit(batch, options);
  writes_.Leave();
  ForgetInfosOf(*batch);
  if (status.ok()) {
    errors_->Clear();
    if (options.sync) {
      const uint64_t last = LastSequence(*batch);
      uint64_t known = synced_sequence_.load(std::memory_order_relaxed);
      while (known < last && !synced_sequence_.compare_exchange_weak(known, last)) continue;
    }
  } else if (!status.IsIncomplete()) {
    errors_->Set();
  }
  if (!status.ok() && (status.severity() >= rocksdb::Status::kFatalError || logs_->lost())) {
    errors_->SetLasting();
    const absl::Status refused = FromRocksDb(status, what);
    return absl::Status(refused.code(),
                        absl::StrCat("the store takes no writes until the process is restarted: ",
                                     refused.message()));
  }
  if (!status.ok()) return FromRocksDb(status, what);
  counters_.Apply(change);
  return absl::OkStatus();
}

rocksdb::Status RocksDbChunkStore::Commit(rocksdb::WriteBatch* batch,
                                          const rocksdb::WriteOptions& how) {
  return WriteBatchTo(db_.get(), how, batch);
}

bool RocksDbChunkStore::HasRoomToResume() const {
  // Resuming writes what the buffers hold to tables and starts a new log.
  const uint64_t needed_bytes = 2 * options_.write_buffer_bytes + (uint64_t{16} << 20);
  uint64_t free_bytes = 0;
  const rocksdb::IOStatus status = db_->GetFileSystem()->GetFreeSpace(
      options_.data_dir, rocksdb::IOOptions(), &free_bytes, /*dbg=*/nullptr);
  return !status.ok() || free_bytes >= needed_bytes;
}

void RocksDbChunkStore::MaybeResume() {
  if (!errors_->failed()) return;
  const absl::Time now = options_.now();
  absl::MutexLock lock(&resume_mutex_);
  // Nothing has failed since the last attempt that worked: a write is on its way to find that out.
  if (resumed_at_ == errors_->errors()) return;
  if (closing_ || resuming_ || now < next_resume_) return;
  if (resumer_.joinable()) resumer_.join();  // has nothing left to do
  resuming_ = true;
  next_resume_ = now + options_.resume_interval;
  // Before whoever is here goes on, so that its write waits for the attempt.
  writes_.Shut();
  resumer_ = std::thread([this] { Attempt(); });
}

void RocksDbChunkStore::AwaitResume() {
  MaybeResume();
  absl::MutexLock lock(&resume_mutex_);
  resume_mutex_.Await(absl::Condition(
      +[](bool* resuming) { return !*resuming; }, &resuming_));
}

void RocksDbChunkStore::Attempt() {
  writes_.AwaitEmpty();
  const bool resumed = HasRoomToResume() && Resume();
  absl::MutexLock lock(&resume_mutex_);
  if (resumed) resumed_at_ = errors_->errors();
  resuming_ = false;
  // Not before: the next write that finds the store as it was must be able to try again.
  writes_.Open();
}

bool RocksDbChunkStore::Resume() {
  // RocksDB begins a new log only if there is something to flush. If the failed log is the one to
  // be written to still, a merge of nothing is buffered past it and flushed. A write of another
  // thread in between would meet that log, and then RocksDB's assertions end the process.
  rocksdb::FlushOptions flush;
  flush.allow_write_stall = true;  // writes are kept out anyway
  for (int tries = 0; tries < 3; ++tries) {
    // After a manifest that could not be written RocksDB asserts that no file is deleted, which it
    // sees to for its own work, but not for CompactFiles. A resume that succeeds ends this.
    const bool kept = db_->DisableFileDeletions().ok();
    const rocksdb::Status resumed = gate_->Resume(db_.get());
    if (!resumed.ok()) {
      if (kept) db_->EnableFileDeletions(/*force=*/false).PermitUncheckedError();
      return false;
    }
    logs_->ForgetDirectory();
    if (!logs_->log_failed()) return true;
    rocksdb::WriteOptions past_the_log;
    past_the_log.disableWAL = true;
    rocksdb::WriteBatch nothing;
    rocksdb::Status status = nothing.Merge(family(kMeta), rocksdb_format::kCountersKey,
                                           rocksdb_format::EncodeCounters({}));
    if (status.ok()) status = Commit(&nothing, past_the_log);
    if (status.ok()) status = db_->Flush(flush, families_);
    if (status.ok()) return true;
  }
  return false;
}

void RocksDbChunkStore::TryToWrite() {
  if (errors_->state() != WriteState::kRefused) return;
  rocksdb::WriteBatch nothing;
  const rocksdb::Status status = nothing.Merge(family(kMeta), rocksdb_format::kCountersKey,
                                               rocksdb_format::EncodeCounters({}));
  // What it was for has happened, whatever becomes of it.
  if (status.ok()) Write(&nothing, StoreChange(), "trying to write").IgnoreError();
}

void RocksDbChunkStore::EndResuming() {
  std::thread resumer;
  {
    absl::MutexLock lock(&resume_mutex_);
    closing_ = true;
    resumer = std::move(resumer_);
  }
  // What waits for a flush that is held back ends.
  gate_->OpenForEver();
  if (resumer.joinable()) resumer.join();
}

}  // namespace kvstream

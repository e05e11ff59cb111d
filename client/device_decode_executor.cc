#include "client/device_decode_executor.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/monotonic_clock.h"
#include "client/segment_check.h"

namespace kvstream {
namespace {

// Short against a batch, which takes a GPU some tenths of a millisecond or more.
constexpr absl::Duration kDevicePoll = absl::Microseconds(100);

}  // namespace

DeviceDecodeExecutor::DeviceDecodeExecutor(DeviceDecoderPool* pool, DeviceDecoderKey key,
                                           std::unique_ptr<DeviceChunkDecoder> decoder,
                                           std::shared_ptr<const Profile> profile, DeviceKv out,
                                           void* stream, std::function<void()> notify)
    : pool_(pool),
      key_(key),
      profile_(std::move(profile)),
      out_(std::move(out)),
      stream_(stream),
      notify_(std::move(notify)),
      decoder_(std::move(decoder)),
      thread_([this] { Work(); }) {}

DeviceDecodeExecutor::~DeviceDecodeExecutor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    jobs_.clear();
  }
  thread_.join();
  pool_->Release(key_, std::move(decoder_), reusable_);
}

void DeviceDecodeExecutor::Submit(DecodeJob job) {
  ++unfinished_;
  absl::MutexLock lock(&mutex_);
  jobs_.push_back(std::move(job));
}

std::vector<DecodeResult> DeviceDecodeExecutor::TakeResults() {
  std::vector<DecodeResult> results;
  {
    absl::MutexLock lock(&mutex_);
    results.swap(results_);
  }
  unfinished_ -= static_cast<int>(results.size());
  return results;
}

void DeviceDecodeExecutor::Work() {
  for (;;) {
    const std::vector<DecodeJob> jobs = NextJobs();
    if (jobs.empty() && under_way_.empty()) return;
    // Nothing here shares the statuses with those who take the results.
    std::vector<DecodeResult> results = jobs.empty() ? End() : Begin(jobs);
    if (!results.empty()) Publish(std::move(results));
  }
}

// Waits until there is something to do: jobs that the device can be given; or none, and the oldest
// batch is (or must be) ended; or none at all, when it is time to stop.
std::vector<DecodeJob> DeviceDecodeExecutor::NextJobs() {
  if (under_way_.size() >= static_cast<size_t>(DeviceDecoderPool::kCallsUnderWay)) return {};
  for (;;) {
    // An error of Done is told by Finish, too.
    const bool end_one =
        !under_way_.empty() && decoder_->Done(under_way_.front().ticket).value_or(true);
    absl::MutexLock lock(&mutex_);
    const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return stopping_ || !jobs_.empty();
    };
    if (under_way_.empty()) {
      mutex_.Await(absl::Condition(&has_work));
    } else if (!end_one) {
      // A device cannot wake a thread that also waits for jobs.
      mutex_.AwaitWithTimeout(absl::Condition(&has_work), kDevicePoll);
    }
    if (!jobs_.empty()) {
      const auto end = jobs_.begin() + std::min<ptrdiff_t>(static_cast<ptrdiff_t>(jobs_.size()),
                                                           DeviceDecoderPool::kBatchChunks);
      std::vector<DecodeJob> jobs(std::make_move_iterator(jobs_.begin()),
                                  std::make_move_iterator(end));
      jobs_.erase(jobs_.begin(), end);
      return jobs;
    }
    if (stopping_ || end_one) return {};
  }
}

std::vector<DecodeResult> DeviceDecodeExecutor::Begin(const std::vector<DecodeJob>& jobs) {
  std::vector<DecodeResult> refused;
  const auto refuse = [&refused](const DecodeJob& job, const absl::Status& status) {
    refused.push_back({job.chunk, job.level, status});
  };
  std::vector<DecodeJob> sound;
  for (const DecodeJob& job : jobs) {
    const absl::Status status = device_error_.ok() ? CheckSegments(*profile_, job) : device_error_;
    if (status.ok()) {
      sound.push_back(job);
    } else {
      refuse(job, status);
    }
  }
  absl::Status status = sound.empty() ? absl::OkStatus() : Enqueue(&sound);
  if (absl::IsDataLoss(status) && sound.size() > 1) {
    // One by one, so that the damage is one chunk's only.
    std::vector<DecodeJob> one(1);
    for (DecodeJob& job : sound) {
      one[0] = std::move(job);
      status = device_error_.ok() ? Enqueue(&one) : device_error_;
      if (!status.ok()) refuse(one[0], status);
      one.resize(1);
    }
  } else if (!status.ok()) {
    for (const DecodeJob& job : sound) refuse(job, status);
  }
  return refused;
}

absl::Status DeviceDecodeExecutor::Enqueue(std::vector<DecodeJob>* jobs) {
  std::vector<DeviceChunk> chunks;
  for (const DecodeJob& job : *jobs) chunks.push_back({job.segments, job.first_token});
  Batch batch;
  batch.began = MonotonicNow();
  const absl::StatusOr<DecodeTicket> ticket = decoder_->Decode(chunks, out_, stream_);
  if (!ticket.ok()) {
    reusable_ = false;
    // The target was checked before the load: what is refused now are the segments.
    const absl::Status status = DamageAsDataLoss(ticket.status());
    if (!absl::IsDataLoss(status)) device_error_ = status;
    return status;
  }
  batch.ticket = *ticket;
  batch.jobs = std::move(*jobs);
  under_way_.push_back(std::move(batch));
  return absl::OkStatus();
}

std::vector<DecodeResult> DeviceDecodeExecutor::End() {
  const Batch batch = std::move(under_way_.front());
  under_way_.pop_front();
  std::vector<absl::Status> statuses;
  const absl::Status status = decoder_->Finish(batch.ticket, &statuses);
  const absl::Duration end = MonotonicNow();
  if (!status.ok() && !absl::IsDataLoss(status)) {
    // Not the bytes' fault: the device, or the caller's block table.
    reusable_ = false;
    if (device_error_.ok()) device_error_ = status;
  }
  std::vector<DecodeResult> results;
  int64_t tokens = 0;
  for (size_t i = 0; i < batch.jobs.size(); ++i) {
    const DecodeJob& job = batch.jobs[i];
    // A call that failed as a whole may have nothing to say of its chunks.
    const absl::Status& of_chunk = !device_error_.ok()                    ? device_error_
                                   : statuses.size() == batch.jobs.size() ? statuses[i]
                                                                          : status;
    results.push_back({job.chunk, job.level, of_chunk});
    tokens += job.tokens;
  }
  // What the batch added: while the one before ran, it only waited.
  if (status.ok()) pool_->RecordDecode(key_, tokens, end - std::max(batch.began, last_end_));
  last_end_ = end;
  return results;
}

void DeviceDecodeExecutor::Publish(std::vector<DecodeResult> results) {
  {
    absl::MutexLock lock(&mutex_);
    std::move(results.begin(), results.end(), std::back_inserter(results_));
  }
  notify_();
}

}  // namespace kvstream

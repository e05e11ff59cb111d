// Decodes into device memory, in batches.
#ifndef KVSTREAM_CLIENT_DEVICE_DECODE_EXECUTOR_H_
#define KVSTREAM_CLIENT_DEVICE_DECODE_EXECUTOR_H_

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/decode_executor.h"
#include "client/device_chunk_decoder.h"
#include "client/device_decoder_pool.h"
#include "client/load_assembler.h"
#include "codec/profile.h"

namespace kvstream {

// One thread makes a batch of whatever jobs are there (a lone chunk does not wait for company),
// checks its segments and gives it to the device; while the device works it prepares the next. Two
// batches are under way at most, so that the copy of one overlaps the kernels of the other.
//
// Damage of a chunk costs no other chunk of its batch. After an error of the device nothing more is
// given to it: every further job gets that error.
class DeviceDecodeExecutor final : public DecodeExecutor {
 public:
  // `decoder` is one of the key's, from `pool`, which is borrowed; it goes back there at the end.
  // `out` and `stream`: as DeviceTarget. `notify`: see DecodeExecutorFactory.
  DeviceDecodeExecutor(DeviceDecoderPool* pool, DeviceDecoderKey key,
                       std::unique_ptr<DeviceChunkDecoder> decoder,
                       std::shared_ptr<const Profile> profile, DeviceKv out, void* stream,
                       std::function<void()> notify);
  ~DeviceDecodeExecutor() override;
  DeviceDecodeExecutor(const DeviceDecodeExecutor&) = delete;

  // As many as the device can be given, and as many again for when it is done with them.
  bool has_room() const override { return unfinished_ < kJobsMax; }
  void Submit(DecodeJob job) override;
  std::vector<DecodeResult> TakeResults() override;
  double seconds_per_token() const override { return pool_->SecondsPerToken(key_); }

 private:
  static constexpr int kJobsMax =
      (DeviceDecoderPool::kCallsUnderWay + 1) * DeviceDecoderPool::kBatchChunks;

  // A call of the decoder that is not finished.
  struct Batch {
    DecodeTicket ticket = 0;
    std::vector<DecodeJob> jobs;
    absl::Duration began;
  };

  // All below: of the thread.
  void Work();
  std::vector<DecodeJob> NextJobs();
  // Gives jobs to the device. Returns the results of those that it is not given.
  std::vector<DecodeResult> Begin(const std::vector<DecodeJob>& jobs);
  // Gives the jobs to the device as one batch. Damage if one of them is damaged: then nothing is
  // known of the others.
  absl::Status Enqueue(std::vector<DecodeJob>* jobs);
  // Waits for the oldest batch and returns its results.
  std::vector<DecodeResult> End();
  void Publish(std::vector<DecodeResult> results);

  DeviceDecoderPool* const pool_;
  const DeviceDecoderKey key_;
  const std::shared_ptr<const Profile> profile_;
  const DeviceKv out_;
  void* const stream_;
  const std::function<void()> notify_;
  int unfinished_ = 0;  // submitted and not taken; of the owner's thread

  std::unique_ptr<DeviceChunkDecoder> decoder_;
  std::deque<Batch> under_way_;
  absl::Duration last_end_;
  absl::Status device_error_;  // the first
  // A decoder that has refused a call may still write what it had enqueued of it: it is destroyed,
  // which waits, instead of lent again.
  bool reusable_ = true;

  absl::Mutex mutex_;
  std::vector<DecodeJob> jobs_ ABSL_GUARDED_BY(mutex_);  // at most kJobsMax
  std::vector<DecodeResult> results_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DEVICE_DECODE_EXECUTOR_H_

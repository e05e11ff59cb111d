// Decodes into host memory, on threads.
#ifndef KVSTREAM_CLIENT_DECODE_PIPELINE_H_
#define KVSTREAM_CLIENT_DECODE_PIPELINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "client/decode_executor.h"
#include "client/decoder_pool.h"
#include "client/load_assembler.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

// There is no queue here beyond one job a thread.
class DecodePipeline final : public DecodeExecutor {
 public:
  // `pool` is borrowed; `out` describes memory that must live as long as this object. `notify`: see
  // DecodeExecutorFactory.
  DecodePipeline(DecoderPool* pool, std::shared_ptr<const Profile> profile, MutableKvView out,
                 int threads, std::function<void()> notify);
  ~DecodePipeline() override;
  DecodePipeline(const DecodePipeline&) = delete;

  bool has_room() const override { return under_way_ < threads_max_; }
  void Submit(DecodeJob job) override;
  std::vector<DecodeResult> TakeResults() override;
  double seconds_per_token() const override { return pool_->SecondsPerToken(profile_->id()); }

 private:
  void Work();
  absl::Status Decode(ChunkDecoder* decoder, const DecodeJob& job) const;

  DecoderPool* const pool_;
  const std::shared_ptr<const Profile> profile_;
  const MutableKvView out_;
  const int threads_max_;
  const std::function<void()> notify_;
  int under_way_ = 0;  // submitted and not taken; of the owner's thread

  absl::Mutex mutex_;
  std::vector<DecodeJob> jobs_ ABSL_GUARDED_BY(mutex_);  // at most threads_max_
  std::vector<DecodeResult> results_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DECODE_PIPELINE_H_

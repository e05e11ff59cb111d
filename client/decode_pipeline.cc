#include "client/decode_pipeline.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/monotonic_clock.h"
#include "client/segment_check.h"
#include "codec/decoder.h"

namespace kvstream {

DecodePipeline::DecodePipeline(DecoderPool* pool, std::shared_ptr<const Profile> profile,
                               MutableKvView out, int threads, std::function<void()> notify)
    : pool_(pool),
      profile_(std::move(profile)),
      out_(std::move(out)),
      threads_max_(threads),
      notify_(std::move(notify)) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

DecodePipeline::~DecodePipeline() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    jobs_.clear();
  }
  for (std::thread& thread : threads_) thread.join();
}

void DecodePipeline::Submit(DecodeJob job) {
  ++under_way_;
  absl::MutexLock lock(&mutex_);
  jobs_.push_back(std::move(job));
}

std::vector<DecodeResult> DecodePipeline::TakeResults() {
  std::vector<DecodeResult> results;
  {
    absl::MutexLock lock(&mutex_);
    results.swap(results_);
  }
  under_way_ -= static_cast<int>(results.size());
  return results;
}

void DecodePipeline::Work() {
  std::unique_ptr<ChunkDecoder> decoder;
  for (;;) {
    DecodeJob job;
    {
      absl::MutexLock lock(&mutex_);
      const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !jobs_.empty();
      };
      mutex_.Await(absl::Condition(&has_work));
      if (stopping_) break;
      job = std::move(jobs_.front());
      jobs_.erase(jobs_.begin());
    }
    DecodeResult result{job.chunk, job.level, absl::OkStatus()};
    if (decoder == nullptr) {
      absl::StatusOr<std::unique_ptr<ChunkDecoder>> acquired = pool_->Acquire(profile_);
      if (acquired.ok()) {
        decoder = *std::move(acquired);
      } else {
        // Not the chunk's fault, whatever its code is.
        result.status = absl::InternalError(
            absl::StrCat("cannot set up a decoder: ", acquired.status().ToString()));
      }
    }
    if (decoder != nullptr) {
      const absl::Duration start = MonotonicNow();
      result.status = Decode(decoder.get(), job);
      if (result.status.ok()) {
        pool_->RecordDecode(profile_->id(), job.tokens, MonotonicNow() - start);
      }
    }
    {
      absl::MutexLock lock(&mutex_);
      results_.push_back(std::move(result));
    }
    notify_();
  }
  if (decoder != nullptr) pool_->Release(*profile_, std::move(decoder));
}

absl::Status DecodePipeline::Decode(ChunkDecoder* decoder, const DecodeJob& job) const {
  if (absl::Status status = CheckSegments(*profile_, job); !status.ok()) return status;
  return DamageAsDataLoss(decoder->Decode(job.segments, out_.Slice(job.first_token, job.tokens)));
}

}  // namespace kvstream

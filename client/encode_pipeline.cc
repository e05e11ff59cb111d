#include "client/encode_pipeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kvstream {

EncodePipeline::EncodePipeline(std::shared_ptr<const Profile> profile, KvView kv,
                               std::vector<uint32_t> chunks, int threads)
    : profile_(std::move(profile)),
      kv_(std::move(kv)),
      chunks_(std::move(chunks)),
      ahead_max_(static_cast<size_t>(threads) + 2) {
  const size_t useful = std::min<size_t>(static_cast<size_t>(threads), chunks_.size());
  for (size_t i = 0; i < useful; ++i) threads_.emplace_back([this] { Work(); });
}

EncodePipeline::~EncodePipeline() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<EncodedChunk> EncodePipeline::Next() {
  absl::MutexLock lock(&mutex_);
  if (taken_ == chunks_.size()) return absl::OutOfRangeError("all chunks were taken");
  const auto next_is_done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return done_.count(taken_) > 0;
  };
  mutex_.Await(absl::Condition(&next_is_done));
  return std::move(done_.extract(taken_++).mapped());
}

void EncodePipeline::Work() {
  absl::StatusOr<std::unique_ptr<ChunkEncoder>> encoder = ChunkEncoder::Create(profile_);
  const int64_t chunk_tokens = profile_->chunk_tokens();
  for (;;) {
    size_t position;
    {
      absl::MutexLock lock(&mutex_);
      const auto may_go_on = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || started_ == chunks_.size() || started_ < taken_ + ahead_max_;
      };
      mutex_.Await(absl::Condition(&may_go_on));
      if (stopping_ || started_ == chunks_.size()) return;
      position = started_++;
    }
    const int64_t first = chunks_[position] * chunk_tokens;
    absl::StatusOr<EncodedChunk> encoded;
    if (encoder.ok()) {
      encoded = (*encoder)->Encode(
          kv_.Slice(first, std::min<int64_t>(chunk_tokens, kv_.tokens - first)), first);
    } else {
      encoded = encoder.status();
    }
    if (!encoded.ok()) {
      encoded = absl::Status(
          encoded.status().code(),
          absl::StrCat("encoding chunk ", chunks_[position], ": ", encoded.status().message()));
    }
    absl::MutexLock lock(&mutex_);
    done_.emplace(position, std::move(encoded));
  }
}

}  // namespace kvstream

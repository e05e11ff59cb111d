#include "client/encode_pipeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kvstream {

EncodeWork EncodeFromHost(std::shared_ptr<const Profile> profile, KvView kv, int threads) {
  EncodeWork work;
  work.threads = threads;
  work.make = [profile = std::move(profile), kv = std::move(kv)]() -> absl::StatusOr<EncodeFn> {
    absl::StatusOr<std::unique_ptr<ChunkEncoder>> created = ChunkEncoder::Create(profile);
    if (!created.ok()) return created.status();
    // std::function copies what it holds.
    std::shared_ptr<ChunkEncoder> encoder = *std::move(created);
    return [encoder, kv](int64_t first_token,
                         int64_t tokens) -> absl::StatusOr<std::vector<EncodedChunk>> {
      absl::StatusOr<EncodedChunk> encoded =
          encoder->Encode(kv.Slice(first_token, tokens), first_token);
      if (!encoded.ok()) return encoded.status();
      std::vector<EncodedChunk> chunks;
      chunks.push_back(*std::move(encoded));
      return chunks;
    };
  };
  return work;
}

EncodePipeline::EncodePipeline(int chunk_tokens, int64_t tokens, std::vector<uint32_t> chunks,
                               EncodeWork work)
    : chunk_tokens_(chunk_tokens),
      tokens_(tokens),
      chunks_(std::move(chunks)),
      work_(std::move(work)),
      ahead_max_(static_cast<size_t>(work_.threads * work_.batch_chunks) + 2) {
  const size_t useful = std::min<size_t>(static_cast<size_t>(work_.threads), chunks_.size());
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

size_t EncodePipeline::BatchAt(size_t position) const {
  size_t count = 1;
  while (count < static_cast<size_t>(work_.batch_chunks) && position + count < chunks_.size() &&
         chunks_[position + count] == chunks_[position] + count) {
    ++count;
  }
  return count;
}

void EncodePipeline::Work() {
  const absl::StatusOr<EncodeFn> encode = work_.make();
  for (;;) {
    size_t position;
    size_t count;
    {
      absl::MutexLock lock(&mutex_);
      const auto may_go_on = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || started_ == chunks_.size() ||
               started_ + BatchAt(started_) <= taken_ + ahead_max_;
      };
      mutex_.Await(absl::Condition(&may_go_on));
      if (stopping_ || started_ == chunks_.size()) return;
      position = started_;
      count = BatchAt(position);
      started_ += count;
    }
    const int64_t first = chunks_[position] * chunk_tokens_;
    const int64_t tokens =
        std::min<int64_t>(static_cast<int64_t>(count) * chunk_tokens_, tokens_ - first);
    absl::StatusOr<std::vector<EncodedChunk>> encoded;
    if (encode.ok()) {
      encoded = (*encode)(first, tokens);
    } else {
      encoded = encode.status();
    }
    if (encoded.ok() && encoded->size() != count) {
      encoded = absl::InternalError(absl::StrCat("got ", encoded->size(), " chunks of ", count));
    }
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < count; ++i) {
      if (encoded.ok()) {
        done_.emplace(position + i, std::move((*encoded)[i]));
      } else {
        done_.emplace(position + i,
                      absl::Status(encoded.status().code(),
                                   absl::StrCat("encoding chunk ", chunks_[position + i], ": ",
                                                encoded.status().message())));
      }
    }
  }
}

}  // namespace kvstream

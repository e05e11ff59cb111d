// The threads that encode a context's chunks while earlier ones are sent.
#ifndef KVSTREAM_CLIENT_ENCODE_PIPELINE_H_
#define KVSTREAM_CLIENT_ENCODE_PIPELINE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "codec/encoder.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

// Encodes tokens [first_token, first_token + tokens) of a context: whole chunks, but that the
// context's last may be shorter. Of one thread.
using EncodeFn =
    std::function<absl::StatusOr<std::vector<EncodedChunk>>(int64_t first_token, int64_t tokens)>;

// How the chunks of a context are encoded.
struct EncodeWork {
  std::function<absl::StatusOr<EncodeFn>()> make;  // called by every thread once
  int threads = 1;
  int batch_chunks = 1;  // neighbours that go into one call at most
};

// By ChunkEncoders, from host memory that outlives the work.
EncodeWork EncodeFromHost(std::shared_ptr<const Profile> profile, KvView kv, int threads);

// Owned by one thread.
class EncodePipeline {
 public:
  // Encodes those chunks of a context of so many tokens whose indices are listed, in that order. At
  // most threads * batch_chunks + 2 chunks are encoded and not yet taken.
  EncodePipeline(int chunk_tokens, int64_t tokens, std::vector<uint32_t> chunks, EncodeWork work);
  // Waits for the chunks under way; drops the rest.
  ~EncodePipeline();
  EncodePipeline(const EncodePipeline&) = delete;

  // Waits for the next chunk of the list; call at most once for each. Errors: the encoder's, naming
  // the chunk.
  absl::StatusOr<EncodedChunk> Next();

 private:
  void Work();
  // Neighbours from that position of chunks_ on, as many as go into one call.
  size_t BatchAt(size_t position) const;

  const int64_t chunk_tokens_;
  const int64_t tokens_;
  const std::vector<uint32_t> chunks_;
  const EncodeWork work_;
  const size_t ahead_max_;

  absl::Mutex mutex_;
  size_t started_ ABSL_GUARDED_BY(mutex_) = 0;  // positions of chunks_
  size_t taken_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<size_t, absl::StatusOr<EncodedChunk>> done_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_ENCODE_PIPELINE_H_

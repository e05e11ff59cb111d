// The threads that encode a context's chunks while earlier ones are sent.
#ifndef KVSTREAM_CLIENT_ENCODE_PIPELINE_H_
#define KVSTREAM_CLIENT_ENCODE_PIPELINE_H_

#include <cstdint>
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

// Owned by one thread.
class EncodePipeline {
 public:
  // Encodes the chunks whose indices are listed, in that order. `kv` is the whole context's, in
  // memory that outlives this object. At most threads + 2 chunks are encoded and not yet taken.
  EncodePipeline(std::shared_ptr<const Profile> profile, KvView kv, std::vector<uint32_t> chunks,
                 int threads);
  // Waits for the chunks under way; drops the rest.
  ~EncodePipeline();
  EncodePipeline(const EncodePipeline&) = delete;

  // Waits for the next chunk of the list; call at most once for each. Errors: the encoder's, naming
  // the chunk.
  absl::StatusOr<EncodedChunk> Next();

 private:
  void Work();

  const std::shared_ptr<const Profile> profile_;
  const KvView kv_;
  const std::vector<uint32_t> chunks_;
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

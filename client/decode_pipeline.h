// The threads that decode a load's chunks into the caller's memory while more chunks arrive.
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
#include "client/decoder_pool.h"
#include "client/load_assembler.h"
#include "codec/kv_view.h"
#include "codec/profile.h"

namespace kvstream {

struct DecodeResult {
  uint32_t chunk = 0;
  int level = 0;
  absl::Status status;
};

// Submit and TakeResults belong to one thread. Order of jobs and exclusion between them are the
// caller's business (LoadAssembler): there is no queue here beyond one job a thread, so that the
// newest state decides what is decoded next.
class DecodePipeline {
 public:
  // `pool` is borrowed; `out` describes memory that must live as long as this object. `notify` is
  // called, on any thread and with no lock held, after results have become available.
  DecodePipeline(DecoderPool* pool, std::shared_ptr<const Profile> profile, MutableKvView out,
                 int threads, std::function<void()> notify);
  // Waits for the jobs under way.
  ~DecodePipeline();
  DecodePipeline(const DecodePipeline&) = delete;

  bool has_room() const { return under_way_ < threads_max_; }
  // Precondition: has_room(). The job's segments stay valid until its result is taken.
  void Submit(DecodeJob job);
  std::vector<DecodeResult> TakeResults();

 private:
  void Work();
  // Checks the segments that are new (header and checksum, and that they are this chunk's), then
  // decodes.
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

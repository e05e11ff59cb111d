// Host memory that plays a device's, for tests of loads into device memory.
#ifndef KVSTREAM_CLIENT_TESTING_FAKE_DEVICE_H_
#define KVSTREAM_CLIENT_TESTING_FAKE_DEVICE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "client/device_chunk_decoder.h"
#include "client/testing/synthetic_context.h"

namespace kvstream {

// One device with one stream: a thread that does the work given to it in order, with the host's
// decoder. "Device pointers" are host pointers, block tables too. Thread-safe. Outlives its
// decoders.
class FakeDevice {
 public:
  // One call of DeviceChunkDecoder::Decode.
  struct Call {
    std::vector<int64_t> first_tokens;
    void* stream = nullptr;
    bool paged = false;
  };

  FakeDevice();
  ~FakeDevice();

  DeviceChunkDecoderFactory Factory();

  // ---- the script; set before the first decode unless said otherwise
  // What creating a decoder gives.
  absl::Status create_status;
  // What Decode says at once of a chunk that begins at that token.
  std::function<absl::Status(int64_t first_token)> refuse;
  // What the device finds when it decodes that chunk; with an error it writes garbage there.
  std::function<absl::Status(int64_t first_token)> find;
  // The device does nothing more from now on until Resume(). At any time.
  void Pause();
  void Resume();
  // It fails for good instead of decoding its next chunk. At any time.
  void Break(const absl::Status& error);

  // ---- what became of it
  std::vector<Call> calls() const;
  void WaitForCalls(size_t count) const;
  // Decode calls that were made and not finished, at most.
  int most_calls_under_way() const;
  int64_t chunks_written() const;
  // Decoders made by the factory, siblings made of them, and how many of all exist.
  int roots_created() const;
  int siblings_created() const;
  int decoders_alive() const;
  int most_decoders_alive() const;
  std::vector<DeviceChunkDecoderOptions> options() const;  // of the roots

 private:
  class Decoder;
  struct Work {
    std::function<absl::Status()> run;  // decodes one chunk
    absl::Status* status;               // where its outcome goes
    int* left;                          // of its call
  };

  void RunStream();

  mutable absl::Mutex mutex_;
  std::deque<Work> work_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  std::vector<Call> calls_ ABSL_GUARDED_BY(mutex_);
  int calls_under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  int most_calls_under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t chunks_written_ ABSL_GUARDED_BY(mutex_) = 0;
  int roots_created_ ABSL_GUARDED_BY(mutex_) = 0;
  int siblings_created_ ABSL_GUARDED_BY(mutex_) = 0;
  int most_decoders_alive_ ABSL_GUARDED_BY(mutex_) = 0;
  int decoders_alive_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<DeviceChunkDecoderOptions> options_ ABSL_GUARDED_BY(mutex_);
  std::thread stream_;
};

// A KvBlock's memory as a device would be given it: the part of it that the shard names.
DeviceKvView DeviceViewOf(KvBlock* block, const KvGeometry& geometry, int64_t tokens,
                          DeviceShard shard = {});

// A paged cache in "device" memory, [plane][block][place][head][channel] per layer, with a block
// table that scatters the blocks.
class PagedMemory {
 public:
  PagedMemory(const KvGeometry& geometry, int64_t tokens, int64_t block_size);

  PagedKvView view();
  // The KV gathered back.
  KvBlock Gather() const;
  std::vector<int32_t>& table() { return table_; }

 private:
  const KvGeometry geometry_;
  const int64_t tokens_;
  const int64_t block_size_;
  const int64_t num_blocks_;
  std::vector<int32_t> table_;
  std::vector<std::vector<uint16_t>> layers_;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_TESTING_FAKE_DEVICE_H_

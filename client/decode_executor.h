// What decodes a load's chunks while more of them arrive.
#ifndef KVSTREAM_CLIENT_DECODE_EXECUTOR_H_
#define KVSTREAM_CLIENT_DECODE_EXECUTOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "client/load_assembler.h"

namespace kvstream {

struct DecodeResult {
  uint32_t chunk = 0;
  int level = 0;
  // DATA_LOSS: the chunk arrived damaged, the others are not touched by that. Any other error ends
  // the load.
  absl::Status status;
};

// One per load. All calls come from one thread. Order of jobs and exclusion between them are the
// caller's business (LoadAssembler): an executor takes few jobs at a time, so that the newest state
// decides what is decoded next. Jobs may finish in any order. Once the destructor has returned,
// nothing is written any more.
class DecodeExecutor {
 public:
  // Waits for the jobs under way; those that have not begun are dropped.
  virtual ~DecodeExecutor() = default;

  virtual bool has_room() const = 0;
  // Precondition: has_room(). The job's segments stay valid until its result is taken.
  virtual void Submit(DecodeJob job) = 0;
  // The results since the last call; a chunk with an OK result is in place.
  virtual std::vector<DecodeResult> TakeResults() = 0;
  // Of former decodes of this kind, an average; 0: none yet.
  virtual double seconds_per_token() const = 0;
};

// `notify` is called, on any thread and with no lock held, after results have become available.
using DecodeExecutorFactory =
    std::function<std::unique_ptr<DecodeExecutor>(std::function<void()> notify)>;

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_DECODE_EXECUTOR_H_

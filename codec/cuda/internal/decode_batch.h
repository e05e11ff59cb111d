// The host's part of decoding: checks segments and writes what the kernels read into staging
// memory.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_DECODE_BATCH_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_DECODE_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "codec/cuda/internal/device_tables.h"
#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/staging.h"
#include "codec/kv_view.h"
#include "codec/segment.h"

namespace kvstream {
namespace cuda {

// Parsed segments of one chunk, levels 0 to n; borrows the segments' bytes.
struct ParsedChunk {
  std::vector<SegmentView> levels;
  int64_t first_token = 0;  // of the view
  int32_t status = 0;       // index of its status word

  const SegmentHeader& header() const { return levels[0].header; }
};

// Errors as ChunkDecoder::Decode.
absl::Status ParseChunk(const ProfileData& profile, absl::Span<const absl::string_view> segments,
                        ParsedChunk* out);

// Not thread-safe: holds scratch memory.
class DecodeBatch {
 public:
  explicit DecodeBatch(const DeviceTables& tables) : tables_(tables) {}

  // Most bytes of staging memory that Prepare takes.
  size_t StagingBytes(absl::Span<const ParsedChunk> chunks) const;

  // Fills `batch` (all but its workspace and output) and `levels` (one per level that a chunk has).
  // Errors: DATA_LOSS for blocks that cannot decode or exact tokens that do not, INVALID_ARGUMENT
  // for an override or exception out of range; the chunk's index within `chunks` goes to `*failed`.
  absl::Status Prepare(absl::Span<const ParsedChunk> chunks, Staging* staging, BatchDev* batch,
                       std::vector<LevelDev>* levels, int* failed);

 private:
  absl::Status PrepareChunk(const ParsedChunk& chunk, uint32_t index, Staging* staging,
                            ChunkDev* out);
  absl::Status PrepareLevel(const ParsedChunk& chunk, uint32_t index, int level, Staging* staging);
  absl::Status AddBlocks(const ParsedChunk& chunk, uint32_t index, int level, int32_t coded,
                         Staging* staging);
  absl::Status AddExceptions(const ParsedChunk& chunk, uint32_t index, int level);
  absl::Status ReadStatistics(const SegmentView& segment, Staging* staging, ChunkDev* out);
  absl::Status ReadExactTokens(const ParsedChunk& chunk, Staging* staging, ChunkDev* out);

  // What the launches of one level need, gathered over the chunks.
  struct Level {
    std::vector<ChunkLevelDev> chunks;
    std::vector<TaskDev> coded;
    std::vector<TaskDev> null;
    std::vector<ExceptionDev> exceptions;
  };

  const DeviceTables& tables_;
  std::vector<Level> levels_;
  const uint16_t* payload_host_ = nullptr;  // start of staging, from which offsets count
  bool wide_ = false;

  // Of the chunk in work.
  std::vector<uint8_t> classes_;
  bool overridden_ = false;
  const uint8_t* classes_dev_ = nullptr;
  int64_t reach_ = 0;
  std::vector<uint8_t> symbols_;
  FullOrder order_;
  MutableKvView exact_;
};

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_DECODE_BATCH_H_

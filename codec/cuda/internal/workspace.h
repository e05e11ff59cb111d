// Device memory that the kernels of one batch work in.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_WORKSPACE_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_WORKSPACE_H_

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "codec/cuda/internal/device_memory.h"
#include "codec/cuda/internal/device_tables.h"
#include "codec/cuda/internal/kernel_types.h"

namespace kvstream {
namespace cuda {

class Workspace {
 public:
  // For batches of at most `chunks` full chunks: 8 bytes a coordinate and token, 4 without
  // calibration, and some a coordinate.
  absl::Status Allocate(const DeviceTables& tables, int chunks) {
    const ProfileData& data = tables.data();
    const size_t count = static_cast<size_t>(chunks);
    const size_t stride = (static_cast<size_t>(data.chunk_tokens) + 31) / 32 * 32;
    const size_t coordinates = static_cast<size_t>(data.coordinates);
    const size_t pairs = static_cast<size_t>(tables.device().pairs);
    size_t bytes = 0;
    const auto part = [&](size_t part_bytes) {
      const size_t at = bytes;
      bytes += (part_bytes + 255) / 256 * 256;
      return at;
    };
    const size_t cells = part(count * coordinates * stride * sizeof(int32_t));
    const size_t operands =
        part(data.calibrated ? count * 2 * coordinates * stride * sizeof(uint16_t) : 0);
    const size_t row_max = part(count * coordinates * sizeof(uint32_t));
    const size_t rows = part(count * 2 * coordinates * sizeof(uint32_t));
    const size_t row_counts = part(count * data.groups.size() * sizeof(uint32_t));
    const size_t rotation = part(count * stride * pairs * 2 * sizeof(float));
    absl::Status status = memory_.Allocate(tables.shared_backend(), Memory::Kind::kDevice, bytes);
    if (!status.ok()) return status;
    char* const base = memory_.as<char>();
    buffers_.cells = base + cells;
    buffers_.operands = reinterpret_cast<uint16_t*>(base + operands);
    buffers_.row_max = reinterpret_cast<uint32_t*>(base + row_max);
    buffers_.rows = reinterpret_cast<uint32_t*>(base + rows);
    buffers_.row_counts = reinterpret_cast<uint32_t*>(base + row_counts);
    buffers_.rotation = reinterpret_cast<float*>(base + rotation);
    buffers_.stride = static_cast<int32_t>(stride);
    return absl::OkStatus();
  }

  // A batch of which only the workspace is set.
  const BatchDev& buffers() const { return buffers_; }
  size_t bytes() const { return memory_.bytes(); }

 private:
  Memory memory_;
  BatchDev buffers_ = {};
};

// Everything that follows the copy of the staging memory.
inline absl::Status LaunchBatch(Backend& backend, const BatchDev& batch,
                                const std::vector<LevelDev>& levels, void* stream) {
  absl::Status status;
  if (batch.sinks_max > 0) status = backend.StoreExactTokens(batch, stream);
  if (batch.tokens_max == 0) return status;
  if (status.ok() && batch.profile.pairs > 0) status = backend.PrepareRotation(batch, stream);
  for (const LevelDev& level : levels) {
    if (status.ok()) status = backend.DecodeLevel(batch, level, stream);
  }
  return status.ok() ? backend.Reconstruct(batch, stream) : status;
}

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_WORKSPACE_H_

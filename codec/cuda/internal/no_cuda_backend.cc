#include "codec/cuda/internal/backend.h"

namespace kvstream {
namespace cuda {

absl::StatusOr<std::shared_ptr<Backend>> CreateCudaBackend(int) {
  return absl::FailedPreconditionError(
      "this build has no CUDA: it was made where nvcc was not found (docs/cuda.md)");
}

}  // namespace cuda
}  // namespace kvstream

// Arrays of NumPy and of other libraries, by the protocols that they share.
#ifndef KVSTREAM_CLIENT_PYTHON_ARRAY_VIEW_H_
#define KVSTREAM_CLIENT_PYTHON_ARRAY_VIEW_H_

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/optional.h"

namespace kvstream {

enum class ElementType {
  kFloat16,
  kBfloat16,
  kUint16,
  kOpaque16,  // two bytes without a meaning: how bfloat16 appears where there is no name for it
  kInt32,
  kOther,
};

// Memory that belongs to a Python object.
struct ArrayView {
  char* data = nullptr;  // of the device where on_device
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in bytes
  ElementType type = ElementType::kOther;
  std::string type_name;
  bool writable = true;  // as far as the object says
  bool on_device = false;
  absl::optional<int> device_ordinal;  // unknown with __cuda_array_interface__
  absl::optional<uintptr_t> stream;    // on which the object's library says it works
  // Keeps the memory: the object, or what it exported. The last copy goes with the GIL held.
  std::shared_ptr<void> hold;
};

// An object that ViewArray() can take: a NumPy array, or one with __dlpack__ and
// __dlpack_device__, or with __cuda_array_interface__.
bool IsArray(pybind11::handle object);

// Whether an array lies in GPU memory.
bool IsDeviceArray(pybind11::handle array);

// NumPy's arrays are taken as they are, others by DLPack where they have it (it names the device
// and bfloat16), else by __cuda_array_interface__. TypeError or ValueError, beginning with `what`,
// for what is no array, lies on a device that is not CUDA's, or breaks its protocol. `stream` (a
// cudaStream_t, 0: the legacy default stream): where the memory will be used, told to the producer.
ArrayView ViewArray(pybind11::handle object, const std::string& what, uintptr_t stream = 0);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PYTHON_ARRAY_VIEW_H_

// The C structures of DLPack below version 1, which an unversioned capsule ("dltensor") points to.
// Written after the published ABI (https://dmlc.github.io/dlpack/latest/c_api.html), whose layout
// is fixed: names are ours.
#ifndef KVSTREAM_CLIENT_PYTHON_DLPACK_ABI_H_
#define KVSTREAM_CLIENT_PYTHON_DLPACK_ABI_H_

#include <cstddef>
#include <cstdint>

namespace kvstream {

// Where memory lies; other types are of other vendors.
enum : int32_t {
  kDlCpu = 1,
  kDlCuda = 2,
  kDlCudaHost = 3,  // pinned host memory
  kDlCudaManaged = 13,
};

enum : uint8_t { kDlInt = 0, kDlUint = 1, kDlFloat = 2, kDlBfloat = 4 };

struct DlDevice {
  int32_t type;
  int32_t ordinal;
};

struct DlDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DlTensor {
  void* data;
  DlDevice device;
  int32_t axes;
  DlDataType type;
  const int64_t* shape;    // [axes]
  const int64_t* strides;  // [axes], in elements; null: row-major without gaps
  uint64_t byte_offset;
};

struct DlManagedTensor {
  DlTensor tensor;
  void* context;                      // the producer's
  void (*deleter)(DlManagedTensor*);  // may be null
};

static_assert(sizeof(DlTensor) == 48 && offsetof(DlTensor, shape) == 24, "DLPack's layout");
static_assert(sizeof(DlManagedTensor) == 64, "DLPack's layout");

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PYTHON_DLPACK_ABI_H_

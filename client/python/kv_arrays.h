// KV caches as arrays in host memory.
#ifndef KVSTREAM_CLIENT_PYTHON_KV_ARRAYS_H_
#define KVSTREAM_CLIENT_PYTHON_KV_ARRAYS_H_

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "client/python/array_view.h"
#include "codec/geometry.h"
#include "codec/kv_view.h"

namespace kvstream {

// What Python passes as KV: either one array [layer][key, value][token][head][channel] or a
// sequence with a (key, value) pair of arrays [token][head][channel] for each layer. Of a model
// with latent attention: one array [layer][token][head][channel], or a sequence with an array
// [token][head][channel] for each layer. Elements are 16 bits: float16 or uint16 for F16; uint16 or
// bfloat16 for BF16. Axes may have any strides but channels must be contiguous. Arrays are NumPy's
// or any that ViewArray() takes.
//
// The functions throw ValueError or TypeError naming what does not fit. Views borrow the arrays'
// memory. They need the GIL, also to be destroyed; using the views does not.

// A view with what keeps its memory.
template <typename View>
struct Borrowed {
  View view;
  std::vector<ArrayView> arrays;
};

Borrowed<KvView> ViewKv(pybind11::handle kv, const KvGeometry& geometry);

// The same for arrays to be written; they must be writable.
Borrowed<MutableKvView> ViewMutableKv(pybind11::handle kv, const KvGeometry& geometry);

// The arrays' memory before it is known whose it is. Strides are in elements.
struct KvTensorMemory {
  char* data = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

struct KvMemory {
  int64_t tokens = 0;
  int heads = 0;
  std::vector<KvTensorMemory> keys;    // one per layer
  std::vector<KvTensorMemory> values;  // one per layer, or none
  std::vector<ArrayView> arrays;
};

// What arrays are to be, beyond their profile.
struct KvDemands {
  bool on_device = false;
  bool write = false;
  // A part of the layers or heads will do, as many as the arrays have.
  bool any_layers = false;
  bool any_heads = false;
  uintptr_t stream = 0;  // as ViewArray
};

KvMemory ViewKvMemory(pybind11::handle kv, const KvGeometry& geometry, const KvDemands& demands);

// Throws unless elements are the profile's.
void CheckElements(const ArrayView& array, KvDtype dtype, const std::string& what);

// New arrays in one block of memory, as a list of (key, value) pairs or of latents; float16 for
// F16, uint16 for BF16.
pybind11::list AllocateKv(const KvGeometry& geometry, int64_t tokens);

// Token ids: a sequence or array of integers that fit 32 bits.
std::vector<int32_t> TokenIds(pybind11::handle tokens);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PYTHON_KV_ARRAYS_H_

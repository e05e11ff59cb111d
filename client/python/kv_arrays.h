// KV caches as NumPy arrays.
#ifndef KVSTREAM_CLIENT_PYTHON_KV_ARRAYS_H_
#define KVSTREAM_CLIENT_PYTHON_KV_ARRAYS_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "codec/geometry.h"
#include "codec/kv_view.h"

namespace kvstream {

// What Python passes as KV: either one array [layer][key, value][token][head][channel] or a
// sequence with a (key, value) pair of arrays [token][head][channel] for each layer. Of a model
// with latent attention: one array [layer][token][head][channel], or a sequence with an array
// [token][head][channel] for each layer. Elements are 16 bits: float16 or uint16 for F16; uint16 or
// a bfloat16 extension type for BF16. Axes may have any strides but channels must be contiguous.
//
// The functions throw ValueError or TypeError naming what does not fit. Views borrow the arrays'
// memory: the caller keeps `kv` alive. They need the GIL; the views do not.

KvView ViewKv(pybind11::handle kv, const KvGeometry& geometry);

// The same for arrays to be written; they must be writable.
MutableKvView ViewMutableKv(pybind11::handle kv, const KvGeometry& geometry);

// New arrays in one block of memory, as a list of (key, value) pairs or of latents; float16 for
// F16, uint16 for BF16.
pybind11::list AllocateKv(const KvGeometry& geometry, int64_t tokens);

// Token ids: a sequence or array of integers that fit 32 bits.
std::vector<int32_t> TokenIds(pybind11::handle tokens);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PYTHON_KV_ARRAYS_H_

// KV caches as arrays in GPU memory.
#ifndef KVSTREAM_CLIENT_PYTHON_DEVICE_ARRAYS_H_
#define KVSTREAM_CLIENT_PYTHON_DEVICE_ARRAYS_H_

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "client/device_target.h"
#include "client/python/array_view.h"
#include "codec/geometry.h"

namespace kvstream {

// The class kvstream.PagedKv: an engine's paged cache with the block table of one context.
struct PagedKvArrays {
  pybind11::object caches;       // a sequence with an array for each layer
  pybind11::object block_table;  // [blocks] of int32, in GPU memory
  std::string layout;            // as PagedLayout, in snake case
};

// What goes with arrays in GPU memory; None where Python passed nothing.
struct DeviceArguments {
  pybind11::object stream;
  pybind11::object device;
  pybind11::object first_layer;
  pybind11::object first_head;
  bool any() const {
    return !(stream.is_none() && device.is_none() && first_layer.is_none() && first_head.is_none());
  }
};

// A target with what keeps its memory. Needs the GIL to be destroyed.
struct DeviceArrays {
  DeviceTarget target;
  std::vector<ArrayView> arrays;
};

void RegisterDevice(pybind11::module_& module);

// Whether what was passed as KV lies in GPU memory: a PagedKv, or arrays of which the first
// does.
bool IsDeviceKv(pybind11::handle out);

// With `write`, the arrays must be writable. Throws ValueError or TypeError naming what does not
// fit. Whether there is a device, and memory for all of the tokens, is for the load to say.
DeviceArrays ViewDeviceKv(pybind11::handle out, const DeviceArguments& arguments,
                          const KvGeometry& geometry, bool write);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PYTHON_DEVICE_ARRAYS_H_

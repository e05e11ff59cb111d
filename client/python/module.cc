// The extension module kvstream._kvstream. Its Python face, with types, is _kvstream.pyi.
#include <pybind11/pybind11.h>

#include "client/python/bindings.h"
#include "client/python/device_arrays.h"
#include "client/python/errors.h"

PYBIND11_MODULE(_kvstream, module) {
  module.doc() = "Stores and loads KV caches of language models on a kvstreamd.";
  kvstream::RegisterErrors(module);
  kvstream::RegisterProfile(module);
  kvstream::RegisterCodec(module);
  kvstream::RegisterDevice(module);
  kvstream::RegisterClient(module);
}

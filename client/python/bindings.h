// The parts of the extension module.
#ifndef KVSTREAM_CLIENT_PYTHON_BINDINGS_H_
#define KVSTREAM_CLIENT_PYTHON_BINDINGS_H_

#include <pybind11/pybind11.h>

#include <memory>

#include "codec/profile.h"

namespace kvstream {

void RegisterProfile(pybind11::module_& module);
void RegisterCodec(pybind11::module_& module);
void RegisterClient(pybind11::module_& module);

// pybind11 holds objects by pointers to non-const; Profile has no member that could change it.
inline std::shared_ptr<Profile> AsBound(const std::shared_ptr<const Profile>& profile) {
  return std::const_pointer_cast<Profile>(profile);
}

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PYTHON_BINDINGS_H_

// Statuses as Python exceptions.
#ifndef KVSTREAM_CLIENT_PYTHON_ERRORS_H_
#define KVSTREAM_CLIENT_PYTHON_ERRORS_H_

#include <pybind11/pybind11.h>

#include <exception>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kvstream {

// Carries a status through pybind11, which turns C++ exceptions into Python ones; thrown in this
// folder only.
struct StatusError : std::exception {
  explicit StatusError(absl::Status s) : status(std::move(s)) {}
  const char* what() const noexcept override { return "kvstream status"; }
  absl::Status status;
};

// Defines KVStreamError in the module and makes StatusError become it, with `code` set to the
// status code's name.
void RegisterErrors(pybind11::module_& module);

inline void ThrowIfError(const absl::Status& status) {
  if (!status.ok()) throw StatusError(status);
}

template <typename T>
T ValueOrThrow(absl::StatusOr<T> value) {
  ThrowIfError(value.status());
  return *std::move(value);
}

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_PYTHON_ERRORS_H_

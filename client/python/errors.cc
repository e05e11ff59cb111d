#include "client/python/errors.h"

#include <string>

namespace kvstream {
namespace {

namespace py = pybind11;

// Lives as long as the interpreter.
PyObject* error_class = nullptr;

}  // namespace

void RegisterErrors(py::module_& module) {
  error_class = PyErr_NewExceptionWithDoc(
      "kvstream.KVStreamError",
      "An error of the server, the codec or the transport.\n\n"
      "``code`` is the name of its gRPC status code, such as 'NOT_FOUND', 'DATA_LOSS' or "
      "'UNAVAILABLE'; the message says what happened and what to do.",
      PyExc_RuntimeError, nullptr);
  if (error_class == nullptr) throw py::error_already_set();
  module.add_object("KVStreamError", py::reinterpret_borrow<py::object>(error_class));
  // pybind11 wants the pointer by value.
  // NOLINTNEXTLINE(performance-unnecessary-value-param)
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const StatusError& error) {
      const absl::Status& status = error.status;
      py::object value =
          py::reinterpret_borrow<py::object>(error_class)(py::str(std::string(status.message())));
      value.attr("code") = absl::StatusCodeToString(status.code());
      PyErr_SetObject(error_class, value.ptr());
    }
  });
}

}  // namespace kvstream

#include "client/python/array_view.h"

#include <pybind11/numpy.h>

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/python/dlpack_abi.h"

namespace kvstream {
namespace {

namespace py = pybind11;

constexpr size_t kAxesMax = 16;
constexpr char kCapsuleName[] = "dltensor";
constexpr char kUsedCapsuleName[] = "used_dltensor";
// How DLPack writes the legacy default stream, whose handle is 0.
constexpr uintptr_t kDlpackLegacyStream = 1;

std::shared_ptr<void> Hold(py::handle object) {
  return std::make_shared<py::object>(py::reinterpret_borrow<py::object>(object));
}

bool HasDlpack(py::handle object) {
  return py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__");
}

DlDevice DlpackDevice(py::handle object) {
  const py::object device = object.attr("__dlpack_device__")();
  if (!py::isinstance<py::tuple>(device) || py::len(device) != 2) {
    throw py::type_error("__dlpack_device__() gave no (type, ordinal)");
  }
  const auto pair = py::reinterpret_borrow<py::tuple>(device);
  return {py::int_(pair[0]).cast<int32_t>(), py::int_(pair[1]).cast<int32_t>()};
}

bool IsCuda(const DlDevice& device) {
  return device.type == kDlCuda || device.type == kDlCudaManaged;
}

// Byte strides of an array without gaps. Throws where its size does not fit 63 bits.
std::vector<int64_t> RowMajor(const std::vector<int64_t>& shape, int64_t element_bytes,
                              const std::string& what) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = element_bytes;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    if (shape[i] > 0 && __builtin_mul_overflow(stride, shape[i], &stride)) {
      throw py::value_error(what + " has an impossible size");
    }
  }
  return strides;
}

void CheckShape(const ArrayView& view, const std::string& what) {
  if (view.shape.size() > kAxesMax) throw py::value_error(what + " has too many axes");
  bool empty = false;
  for (int64_t size : view.shape) {
    if (size < 0) throw py::value_error(what + " has an axis of negative size");
    empty |= size == 0;
  }
  if (view.data == nullptr && !empty) throw py::value_error(what + " has no memory");
}

// ------------------------------------------------------------------ NumPy

ArrayView ViewNumpy(const py::array& array) {
  ArrayView view;
  view.data = static_cast<char*>(const_cast<void*>(array.data()));
  view.shape.assign(array.shape(), array.shape() + array.ndim());
  view.strides.assign(array.strides(), array.strides() + array.ndim());
  view.type_name = py::str(array.dtype());
  // Native byte order: others have names like '>f2'.
  if (view.type_name == "float16") view.type = ElementType::kFloat16;
  if (view.type_name == "uint16") view.type = ElementType::kUint16;
  if (view.type_name == "bfloat16" && array.itemsize() == 2) view.type = ElementType::kBfloat16;
  if (view.type_name == "int32") view.type = ElementType::kInt32;
  view.writable = array.writeable();
  view.hold = Hold(array);
  return view;
}

// ------------------------------------------------------------------ DLPack

ElementType TypeOf(const DlDataType& type) {
  if (type.lanes != 1) return ElementType::kOther;
  if (type.bits == 32) return type.code == kDlInt ? ElementType::kInt32 : ElementType::kOther;
  if (type.bits != 16) return ElementType::kOther;
  switch (type.code) {
    case kDlFloat:
      return ElementType::kFloat16;
    case kDlBfloat:
      return ElementType::kBfloat16;
    case kDlUint:
      return ElementType::kUint16;
    default:
      return ElementType::kOther;
  }
}

std::string NameOf(const DlDataType& type) {
  std::string name;
  switch (type.code) {
    case kDlInt:
      name = "int";
      break;
    case kDlUint:
      name = "uint";
      break;
    case kDlFloat:
      name = "float";
      break;
    case kDlBfloat:
      name = "bfloat";
      break;
    default:
      name = absl::StrCat("DLPack code ", type.code, ", bits ");
  }
  return absl::StrCat(name, type.bits, type.lanes == 1 ? "" : " in vectors");
}

ArrayView ViewDlpack(py::handle object, const std::string& what, uintptr_t stream) {
  const DlDevice announced = DlpackDevice(object);
  py::object capsule;
  if (IsCuda(announced)) {
    capsule =
        object.attr("__dlpack__")(py::arg("stream") = stream == 0 ? kDlpackLegacyStream : stream);
  } else if (announced.type == kDlCpu || announced.type == kDlCudaHost) {
    capsule = object.attr("__dlpack__")();
  } else {
    throw py::value_error(absl::StrCat(what, " is on a device of DLPack's type ", announced.type,
                                       "; CUDA's and host memory are served"));
  }
  if (!PyCapsule_IsValid(capsule.ptr(), kCapsuleName)) {
    throw py::type_error(what + ": __dlpack__() gave no capsule that is named 'dltensor'");
  }
  auto* const managed =
      static_cast<DlManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kCapsuleName));
  // From here on the tensor is ours: the producer no longer frees it with the capsule.
  if (PyCapsule_SetName(capsule.ptr(), kUsedCapsuleName) != 0) throw py::error_already_set();
  ArrayView view;
  view.hold = std::shared_ptr<void>(managed, [](void* pointer) {
    auto* const tensor = static_cast<DlManagedTensor*>(pointer);
    if (tensor->deleter != nullptr) tensor->deleter(tensor);
  });

  const DlTensor& tensor = managed->tensor;
  if (tensor.axes < 0 || static_cast<size_t>(tensor.axes) > kAxesMax ||
      (tensor.axes > 0 && tensor.shape == nullptr)) {
    throw py::value_error(absl::StrCat(what, " has ", tensor.axes, " axes"));
  }
  view.on_device = IsCuda(tensor.device);
  if (view.on_device != IsCuda(announced)) {
    throw py::value_error(what + ": __dlpack_device__() and the tensor name different devices");
  }
  if (view.on_device) view.device_ordinal = tensor.device.ordinal;
  if (tensor.data != nullptr) {
    view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  }
  view.type = TypeOf(tensor.type);
  view.type_name = NameOf(tensor.type);
  view.shape.assign(tensor.shape, tensor.shape + tensor.axes);
  CheckShape(view, what);
  const int64_t element_bytes = int64_t{tensor.type.bits} * tensor.type.lanes / 8;
  view.strides = RowMajor(view.shape, element_bytes, what);
  for (int i = 0; i < tensor.axes && tensor.strides != nullptr; ++i) {
    if (__builtin_mul_overflow(tensor.strides[i], element_bytes, &view.strides[i])) {
      throw py::value_error(what + " has an impossible stride");
    }
  }
  return view;
}

// ------------------------------------------------------------------ __cuda_array_interface__

std::vector<int64_t> Integers(const py::object& value, const std::string& what) {
  if (!py::isinstance<py::tuple>(value)) throw py::type_error(what + " is no tuple");
  std::vector<int64_t> out;
  for (const py::handle item : value) {
    if (!py::isinstance<py::int_>(item)) throw py::type_error(what + " holds no integers");
    const long long integer = PyLong_AsLongLong(item.ptr());
    if (integer == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    out.push_back(integer);
  }
  return out;
}

uintptr_t Address(const py::object& value, const std::string& what) {
  if (!py::isinstance<py::int_>(value)) throw py::type_error(what + " is no integer");
  const unsigned long long address = PyLong_AsUnsignedLongLong(value.ptr());
  if (address == std::numeric_limits<unsigned long long>::max() && PyErr_Occurred() != nullptr) {
    throw py::error_already_set();
  }
  return static_cast<uintptr_t>(address);
}

ArrayView ViewCudaArray(py::handle object, const std::string& what) {
  const std::string name = what + ": __cuda_array_interface__";
  const py::object given = object.attr("__cuda_array_interface__");
  if (!py::isinstance<py::dict>(given)) throw py::type_error(name + " is no dict");
  const auto fields = py::reinterpret_borrow<py::dict>(given);
  const auto field = [&](const char* key, bool required) -> py::object {
    if (fields.contains(key)) return fields[key];
    if (required) throw py::value_error(absl::StrCat(name, " has no '", key, "'"));
    return py::none();
  };
  ArrayView view;
  view.on_device = true;
  view.hold = Hold(object);
  view.shape = Integers(field("shape", true), name + "['shape']");
  const py::object typestr = field("typestr", true);
  if (!py::isinstance<py::str>(typestr)) throw py::type_error(name + "['typestr'] is no string");
  view.type_name = py::str(typestr);
  int64_t element_bytes = 2;
  if (view.type_name == "<f2") {
    view.type = ElementType::kFloat16;
  } else if (view.type_name == "<u2") {
    view.type = ElementType::kUint16;
  } else if (view.type_name == "<V2" || view.type_name == "|V2") {
    view.type = ElementType::kOpaque16;
  } else if (view.type_name == "<i4") {
    view.type = ElementType::kInt32;
    element_bytes = 4;
  }
  const py::object data = field("data", true);
  if (!py::isinstance<py::tuple>(data) || py::len(data) != 2) {
    throw py::type_error(name + "['data'] is no (address, read-only)");
  }
  const auto pair = py::reinterpret_borrow<py::tuple>(data);
  view.data = reinterpret_cast<char*>(Address(pair[0], name + "['data'][0]"));
  view.writable = !py::bool_(pair[1]).cast<bool>();
  CheckShape(view, what);
  if (!field("mask", false).is_none()) throw py::value_error(what + " is masked");
  const py::object strides = field("strides", false);
  if (strides.is_none()) {
    view.strides = RowMajor(view.shape, element_bytes, what);
  } else {
    view.strides = Integers(strides, name + "['strides']");
    if (view.strides.size() != view.shape.size()) {
      throw py::value_error(name + " has more or fewer strides than axes");
    }
  }
  if (const py::object stream = field("stream", false); !stream.is_none()) {
    view.stream = Address(stream, name + "['stream']");
    if (*view.stream == 0) throw py::value_error(name + "['stream'] must not be 0");
  }
  return view;
}

}  // namespace

bool IsArray(py::handle object) {
  return py::isinstance<py::array>(object) || HasDlpack(object) ||
         py::hasattr(object, "__cuda_array_interface__");
}

bool IsDeviceArray(py::handle array) {
  if (py::isinstance<py::array>(array)) return false;
  if (HasDlpack(array)) return IsCuda(DlpackDevice(array));
  return py::hasattr(array, "__cuda_array_interface__");
}

ArrayView ViewArray(py::handle object, const std::string& what, uintptr_t stream) {
  if (py::isinstance<py::array>(object)) {
    return ViewNumpy(py::reinterpret_borrow<py::array>(object));
  }
  if (HasDlpack(object)) return ViewDlpack(object, what, stream);
  if (py::hasattr(object, "__cuda_array_interface__")) return ViewCudaArray(object, what);
  throw py::type_error(what +
                       " is no array: neither NumPy's, nor one with __dlpack__ or "
                       "__cuda_array_interface__");
}

}  // namespace kvstream

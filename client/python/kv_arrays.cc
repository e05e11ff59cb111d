#include "client/python/kv_arrays.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

namespace py = pybind11;

constexpr py::ssize_t kElementBytes = 2;

void CheckElements(const py::array& array, KvDtype dtype, const std::string& what) {
  const std::string name = py::str(array.dtype());
  const bool fits = name == "uint16" || name == (dtype == KvDtype::kF16 ? "float16" : "bfloat16");
  if (!fits || array.itemsize() != kElementBytes) {
    throw py::value_error(absl::StrCat(
        what, " has elements of type ", name, "; this profile takes ",
        dtype == KvDtype::kF16 ? "float16, or uint16 with the same bits"
                               : "uint16 with the bits of bfloat16, or a bfloat16 type"));
  }
}

// An array [token][head][channel], or that part of a larger one that begins at `axis`.
template <typename T>
BasicKvTensor<T> ViewTensor(const py::array& array, int axis, T* data, const KvGeometry& geometry,
                            const std::string& what) {
  if (array.shape(axis + 1) != geometry.kv_heads || array.shape(axis + 2) != geometry.head_size) {
    throw py::value_error(absl::StrCat(what, " has ", array.shape(axis + 1), " heads of ",
                                       array.shape(axis + 2), " where the profile has ",
                                       geometry.kv_heads, " of ", geometry.head_size));
  }
  if (geometry.head_size > 1 && array.strides(axis + 2) != kElementBytes) {
    throw py::value_error(what + " must be contiguous along its last axis");
  }
  for (int i : {axis, axis + 1}) {
    if (array.strides(i) % kElementBytes != 0) {
      throw py::value_error(what + " has strides that are no multiple of its element size");
    }
  }
  return {data, array.strides(axis) / kElementBytes, array.strides(axis + 1) / kElementBytes};
}

template <typename T>
T* DataOf(const py::array& array, const std::string& what);

template <>
const uint16_t* DataOf<const uint16_t>(const py::array& array, const std::string&) {
  return static_cast<const uint16_t*>(array.data());
}

template <>
uint16_t* DataOf<uint16_t>(const py::array& array, const std::string& what) {
  if (!array.writeable()) throw py::value_error(what + " is read-only");
  return static_cast<uint16_t*>(const_cast<void*>(array.data()));
}

template <typename T>
BasicKvView<T> ViewOneArray(const py::array& array, const KvGeometry& geometry) {
  // The axis of tokens: a latent has none of keys and values before it.
  const int axis = geometry.has_values() ? 2 : 1;
  if (array.ndim() != axis + 3 || array.shape(0) != geometry.layers ||
      (geometry.has_values() && array.shape(1) != 2)) {
    throw py::value_error(absl::StrCat("one array of KV must have the shape [", geometry.layers,
                                       " layers, ", geometry.has_values() ? "2, " : "",
                                       "tokens, heads, head size]; this one has ", array.ndim(),
                                       " axes"));
  }
  CheckElements(array, geometry.dtype, "kv");
  if (array.strides(0) % kElementBytes != 0 || array.strides(1) % kElementBytes != 0) {
    throw py::value_error("kv has strides that are no multiple of its element size");
  }
  T* const data = DataOf<T>(array, "kv");
  BasicKvView<T> view;
  view.tokens = array.shape(axis);
  for (int layer = 0; layer < geometry.layers; ++layer) {
    T* const key = data + layer * (array.strides(0) / kElementBytes);
    view.keys.push_back(ViewTensor(array, axis, key, geometry, "kv"));
    if (!geometry.has_values()) continue;
    view.values.push_back(
        ViewTensor(array, axis, key + array.strides(1) / kElementBytes, geometry, "kv"));
  }
  return view;
}

template <typename T>
BasicKvView<T> View(py::handle kv, const KvGeometry& geometry) {
  if (py::isinstance<py::array>(kv)) {
    return ViewOneArray<T>(py::reinterpret_borrow<py::array>(kv), geometry);
  }
  if (!py::isinstance<py::sequence>(kv)) {
    throw py::type_error(
        "kv must be an array or a sequence with a (key, value) pair (or a latent) for each layer");
  }
  const auto layers = py::reinterpret_borrow<py::sequence>(kv);
  if (layers.size() != static_cast<size_t>(geometry.layers)) {
    throw py::value_error(
        absl::StrCat("kv has ", layers.size(), " layers where the profile has ", geometry.layers));
  }
  BasicKvView<T> view;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const py::object pair = layers[layer];
    if (geometry.has_values() && (!py::isinstance<py::sequence>(pair) || py::len(pair) != 2)) {
      throw py::type_error(absl::StrCat("layer ", layer, " of kv is no (key, value) pair"));
    }
    for (int part = 0; part < geometry.planes; ++part) {
      const std::string what =
          absl::StrCat("the ", !geometry.has_values() ? "latents" : (part == 0 ? "keys" : "values"),
                       " of layer ", layer);
      const py::object item = geometry.has_values() ? py::object(pair[py::int_(part)]) : pair;
      if (!py::isinstance<py::array>(item)) throw py::type_error(what + " are no NumPy array");
      const auto array = py::reinterpret_borrow<py::array>(item);
      if (array.ndim() != 3) {
        throw py::value_error(
            absl::StrCat(what, " have ", array.ndim(), " axes, not [tokens, heads, head size]"));
      }
      CheckElements(array, geometry.dtype, what);
      if (layer == 0 && part == 0) view.tokens = array.shape(0);
      if (array.shape(0) != view.tokens) {
        throw py::value_error(absl::StrCat(what, " have ", array.shape(0),
                                           " tokens where the first array has ", view.tokens));
      }
      (part == 0 ? view.keys : view.values)
          .push_back(ViewTensor(array, 0, DataOf<T>(array, what), geometry, what));
    }
  }
  return view;
}

}  // namespace

KvView ViewKv(py::handle kv, const KvGeometry& geometry) {
  return View<const uint16_t>(kv, geometry);
}

MutableKvView ViewMutableKv(py::handle kv, const KvGeometry& geometry) {
  return View<uint16_t>(kv, geometry);
}

py::list AllocateKv(const KvGeometry& geometry, int64_t tokens) {
  std::vector<py::ssize_t> shape = {geometry.layers, tokens, geometry.kv_heads, geometry.head_size};
  if (geometry.has_values()) shape.insert(shape.begin() + 1, 2);
  const py::array block(py::dtype(geometry.dtype == KvDtype::kF16 ? "float16" : "uint16"),
                        std::move(shape));
  py::list kv;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    const py::object pair = block[py::int_(layer)];
    if (geometry.has_values()) {
      kv.append(py::make_tuple(pair[py::int_(0)], pair[py::int_(1)]));
    } else {
      kv.append(pair);
    }
  }
  return kv;
}

std::vector<int32_t> TokenIds(py::handle tokens) {
  const py::module_ numpy = py::module_::import("numpy");
  const py::object given = numpy.attr("asarray")(tokens);
  const auto array = py::reinterpret_borrow<py::array>(given);
  const char kind = array.dtype().kind();
  if (array.ndim() != 1 || (kind != 'i' && kind != 'u' && array.size() > 0)) {
    throw py::type_error("tokens must be a flat sequence of integers");
  }
  const auto wide = py::array_t<int64_t, py::array::c_style | py::array::forcecast>(array);
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(wide.size()));
  for (py::ssize_t i = 0; i < wide.size(); ++i) {
    const int64_t id = wide.at(i);
    if (id != static_cast<int32_t>(id)) {
      throw py::value_error(absl::StrCat("token ", i, " does not fit 32 bits"));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

}  // namespace kvstream

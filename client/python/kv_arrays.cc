#include "client/python/kv_arrays.h"

#include <pybind11/numpy.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

namespace py = pybind11;

constexpr int64_t kElementBytes = 2;

// Collects tensors and checks that they agree.
class KvReader {
 public:
  KvReader(const KvGeometry& geometry, const KvDemands& demands)
      : geometry_(geometry), demands_(demands) {}

  KvMemory Read(py::handle kv) {
    if (IsArray(kv)) {
      ReadOneArray(kv);
    } else {
      ReadLayers(kv);
    }
    return std::move(out_);
  }

 private:
  const ArrayView& Add(py::handle object, const std::string& what) {
    // Not before its memory is known to be of the right kind: an export to a device has effects.
    if (IsArray(object) && IsDeviceArray(object) != demands_.on_device) {
      throw py::type_error(absl::StrCat(
          what, demands_.on_device ? " is in host memory where other arrays are in GPU memory"
                                   : " is in GPU memory; host memory is needed here"));
    }
    out_.arrays.push_back(ViewArray(object, what, demands_.stream));
    const ArrayView& array = out_.arrays.back();
    CheckElements(array, geometry_.dtype, what);
    if (demands_.write && !array.writable) throw py::value_error(what + " is read-only");
    return array;
  }

  void CheckLayers(int64_t layers) {
    if (demands_.any_layers ? layers < 1 || layers > geometry_.layers
                            : layers != geometry_.layers) {
      throw py::value_error(
          absl::StrCat("kv has ", layers, " layers where the profile has ", geometry_.layers));
    }
  }

  int64_t Stride(const ArrayView& array, size_t axis, const std::string& what) {
    if (array.strides[axis] % kElementBytes != 0) {
      throw py::value_error(what + " has strides that are no multiple of its element size");
    }
    return array.strides[axis] / kElementBytes;
  }

  // An array [token][head][channel], or that part of a larger one that begins at `axis`.
  KvTensorMemory Tensor(const ArrayView& array, size_t axis, int64_t offset,
                        const std::string& what) {
    const int64_t tokens = array.shape[axis];
    const int64_t heads = array.shape[axis + 1];
    const int64_t size = array.shape[axis + 2];
    const bool heads_fit = demands_.any_heads ? heads >= 1 && heads <= geometry_.kv_heads
                                              : heads == geometry_.kv_heads;
    if (!heads_fit || size != geometry_.head_size) {
      throw py::value_error(absl::StrCat(what, " has ", heads, " heads of ", size,
                                         " where the profile has ", geometry_.kv_heads, " of ",
                                         geometry_.head_size));
    }
    if (out_.keys.empty()) {
      out_.tokens = tokens;
      out_.heads = static_cast<int>(heads);
    }
    if (tokens != out_.tokens || heads != out_.heads) {
      throw py::value_error(absl::StrCat(what, " has ", tokens, " tokens and ", heads,
                                         " heads where the first array has ", out_.tokens, " and ",
                                         out_.heads));
    }
    if (geometry_.head_size > 1 && array.strides[axis + 2] != kElementBytes) {
      throw py::value_error(what + " must be contiguous along its last axis");
    }
    return {array.data + offset * kElementBytes, Stride(array, axis, what),
            Stride(array, axis + 1, what)};
  }

  void ReadOneArray(py::handle kv) {
    const ArrayView& array = Add(kv, "kv");
    // The axis of tokens: a latent has none of keys and values before it.
    const size_t axis = geometry_.has_values() ? 2 : 1;
    if (array.shape.size() != axis + 3 || (geometry_.has_values() && array.shape[1] != 2)) {
      throw py::value_error(absl::StrCat("one array of KV must have the shape [", geometry_.layers,
                                         " layers, ", geometry_.has_values() ? "2, " : "",
                                         "tokens, heads, head size]; this one has ",
                                         array.shape.size(), " axes"));
    }
    CheckLayers(array.shape[0]);
    const int64_t layer_stride = Stride(array, 0, "kv");
    const int64_t plane_stride = geometry_.has_values() ? Stride(array, 1, "kv") : 0;
    for (int64_t layer = 0; layer < array.shape[0]; ++layer) {
      out_.keys.push_back(Tensor(array, axis, layer * layer_stride, "kv"));
      if (!geometry_.has_values()) continue;
      out_.values.push_back(Tensor(array, axis, layer * layer_stride + plane_stride, "kv"));
    }
  }

  void ReadLayers(py::handle kv) {
    if (!py::isinstance<py::sequence>(kv)) {
      throw py::type_error(
          "kv must be an array or a sequence with a (key, value) pair (or a latent) for each "
          "layer");
    }
    const auto layers = py::reinterpret_borrow<py::sequence>(kv);
    CheckLayers(static_cast<int64_t>(layers.size()));
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      const py::object pair = layers[layer];
      if (!geometry_.has_values()) {
        ReadTensor(pair, absl::StrCat("the latents of layer ", layer), &out_.keys);
        continue;
      }
      if (!py::isinstance<py::sequence>(pair) || py::len(pair) != 2) {
        throw py::type_error(absl::StrCat("layer ", layer, " of kv is no (key, value) pair"));
      }
      ReadTensor(pair[py::int_(0)], absl::StrCat("the key of layer ", layer), &out_.keys);
      ReadTensor(pair[py::int_(1)], absl::StrCat("the value of layer ", layer), &out_.values);
    }
  }

  void ReadTensor(const py::object& object, const std::string& what,
                  std::vector<KvTensorMemory>* to) {
    const ArrayView& array = Add(object, what);
    if (array.shape.size() != 3) {
      throw py::value_error(
          absl::StrCat(what, " has ", array.shape.size(), " axes, not [tokens, heads, head size]"));
    }
    to->push_back(Tensor(array, 0, 0, what));
  }

  const KvGeometry& geometry_;
  const KvDemands& demands_;
  KvMemory out_;
};

template <typename T>
Borrowed<BasicKvView<T>> ViewHostKv(py::handle kv, const KvGeometry& geometry, bool write) {
  KvDemands demands;
  demands.write = write;
  KvMemory memory = ViewKvMemory(kv, geometry, demands);
  Borrowed<BasicKvView<T>> out;
  out.view.tokens = memory.tokens;
  const auto add = [](const std::vector<KvTensorMemory>& from, std::vector<BasicKvTensor<T>>* to) {
    for (const KvTensorMemory& tensor : from) {
      to->push_back({reinterpret_cast<T*>(tensor.data), tensor.token_stride, tensor.head_stride});
    }
  };
  add(memory.keys, &out.view.keys);
  add(memory.values, &out.view.values);
  out.arrays = std::move(memory.arrays);
  return out;
}

}  // namespace

void CheckElements(const ArrayView& array, KvDtype dtype, const std::string& what) {
  const bool f16 = dtype == KvDtype::kF16;
  const bool fits =
      array.type == ElementType::kUint16 ||
      (f16 ? array.type == ElementType::kFloat16
           : array.type == ElementType::kBfloat16 || array.type == ElementType::kOpaque16);
  if (fits) return;
  throw py::value_error(absl::StrCat(
      what, " has elements of type ", array.type_name, "; this profile takes ",
      f16 ? "float16, or uint16 with the same bits" : "bfloat16, or uint16 with the same bits"));
}

KvMemory ViewKvMemory(py::handle kv, const KvGeometry& geometry, const KvDemands& demands) {
  return KvReader(geometry, demands).Read(kv);
}

Borrowed<KvView> ViewKv(py::handle kv, const KvGeometry& geometry) {
  return ViewHostKv<const uint16_t>(kv, geometry, false);
}

Borrowed<MutableKvView> ViewMutableKv(py::handle kv, const KvGeometry& geometry) {
  return ViewHostKv<uint16_t>(kv, geometry, true);
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

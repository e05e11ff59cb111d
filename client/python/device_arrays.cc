#include "client/python/device_arrays.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/python/kv_arrays.h"
#include "codec/profile.h"

namespace kvstream {
namespace {

namespace py = pybind11;

constexpr int64_t kElementBytes = 2;
// Handles that mean a device's default stream, legacy or per thread; 0 is the legacy one as well.
constexpr uintptr_t kLegacyStream = 1;

// Where a layout keeps what, as axes of a cache; -1: it has no such axis.
struct LayoutAxes {
  const char* name;
  int plane;
  int block;
  int place;
  int head;
  int axes;
};

constexpr LayoutAxes kLayouts[] = {
    {"plane_major_nhd", 0, 1, 2, 3, 5}, {"plane_major_hnd", 0, 1, 3, 2, 5},
    {"block_major_nhd", 1, 0, 2, 3, 5}, {"block_major_hnd", 1, 0, 3, 2, 5},
    {"latent", -1, 0, 1, -1, 3},
};

const LayoutAxes& LayoutNamed(const std::string& name) {
  std::string all;
  for (const LayoutAxes& layout : kLayouts) {
    if (name == layout.name) return layout;
    absl::StrAppend(&all, all.empty() ? "'" : ", '", layout.name, "'");
  }
  throw py::value_error(absl::StrCat("layout '", name, "' is none of ", all));
}

int NonNegative(const py::object& value, const char* what) {
  if (!py::isinstance<py::int_>(value)) throw py::type_error(std::string(what) + " is no integer");
  const long long number = PyLong_AsLongLong(value.ptr());
  if (number == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (number < 0 || number > std::numeric_limits<int>::max()) {
    throw py::value_error(absl::StrCat(what, " ", number, " is out of range"));
  }
  return static_cast<int>(number);
}

// The stream that Python passed: an integer, or an object of PyTorch's or CuPy's.
absl::optional<uintptr_t> StreamOf(const py::object& stream) {
  if (stream.is_none()) return absl::nullopt;
  py::object handle = stream;
  for (const char* attribute : {"cuda_stream", "ptr"}) {
    if (!py::isinstance<py::int_>(handle) && py::hasattr(handle, attribute)) {
      handle = handle.attr(attribute);
    }
  }
  if (!py::isinstance<py::int_>(handle)) {
    throw py::type_error(
        "stream is neither an integer nor an object with the attribute cuda_stream or ptr");
  }
  const unsigned long long value = PyLong_AsUnsignedLongLong(handle.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw py::value_error("stream is no address");
  }
  return static_cast<uintptr_t>(value);
}

// The first array of what was passed as `out`, or nothing.
py::object FirstArray(py::handle out) {
  py::object object = py::reinterpret_borrow<py::object>(out);
  for (int depth = 0; depth < 3; ++depth) {
    if (IsArray(object)) return object;
    if (!py::isinstance<py::sequence>(object) || py::isinstance<py::str>(object) ||
        py::len(object) == 0) {
      break;
    }
    object = py::object(object[py::int_(0)]);
  }
  return py::none();
}

// Puts target.device_ordinal and target.stream together from what was passed and what the arrays
// say. `given`: the stream that was passed.
void SetPlace(const DeviceArguments& arguments, const absl::optional<uintptr_t>& given,
              DeviceArrays* out) {
  absl::optional<int> device;
  if (!arguments.device.is_none()) device = NonNegative(arguments.device, "device");
  absl::optional<uintptr_t> stream = given;
  for (const ArrayView& array : out->arrays) {
    if (array.device_ordinal.has_value()) {
      if (device.has_value() && *device != *array.device_ordinal) {
        throw py::value_error(absl::StrCat("an array is on device ", *array.device_ordinal,
                                           " where device ", *device, " was named first"));
      }
      device = array.device_ordinal;
    }
    if (!given.has_value() && array.stream.has_value()) {
      if (stream.has_value() && *stream != *array.stream) {
        throw py::value_error("the arrays name different streams; pass stream=");
      }
      stream = array.stream;
    }
  }
  out->target.device_ordinal = device.value_or(0);
  const uintptr_t handle = stream.value_or(0);
  out->target.stream = reinterpret_cast<void*>(handle == kLegacyStream ? 0 : handle);
}

// The part of `all` layers or heads that `count` arrays or heads from `first` on are.
void SetRange(const py::object& first, int count, int all, const char* what, int* out_first,
              int* out_count) {
  *out_first = first.is_none() ? 0 : NonNegative(first, what);
  *out_count = count;
  if (*out_first > all - count) {
    throw py::value_error(absl::StrCat(what, " ", *out_first, " and the ", count,
                                       " that out has are beyond the profile's ", all));
  }
}

void SetPaged(const PagedKvArrays& paged, const DeviceArguments& arguments, uintptr_t stream,
              const KvGeometry& geometry, bool write, DeviceArrays* out) {
  const LayoutAxes& layout = LayoutNamed(paged.layout);
  if ((layout.plane < 0) != !geometry.has_values()) {
    throw py::value_error(absl::StrCat("layout '", layout.name, "' does not fit a model with ",
                                       geometry.has_values() ? "keys and values" : "latents"));
  }
  if (!py::isinstance<py::sequence>(paged.caches) || IsArray(paged.caches)) {
    throw py::type_error("caches must be a sequence with an array for each layer");
  }
  const auto caches = py::reinterpret_borrow<py::sequence>(paged.caches);
  const int layers = static_cast<int>(caches.size());
  if (layers < 1 || layers > geometry.layers ||
      (arguments.first_layer.is_none() && layers != geometry.layers)) {
    throw py::value_error(absl::StrCat("there are caches of ", layers,
                                       " layers where the profile has ", geometry.layers));
  }
  const auto device_array = [&](py::handle object, const std::string& what) -> const ArrayView& {
    if (IsArray(object) && !IsDeviceArray(object)) {
      throw py::type_error(what + " is in host memory, not in GPU memory");
    }
    out->arrays.push_back(ViewArray(object, what, stream));
    return out->arrays.back();
  };

  PagedKvView view;
  int64_t heads = 1;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  for (int layer = 0; layer < layers; ++layer) {
    const std::string what = absl::StrCat("the cache of layer ", layer);
    const ArrayView& cache = device_array(py::object(caches[layer]), what);
    CheckElements(cache, geometry.dtype, what);
    if (write && !cache.writable) throw py::value_error(what + " is read-only");
    if (cache.shape.size() != static_cast<size_t>(layout.axes) ||
        (layout.plane >= 0 && cache.shape[layout.plane] != 2)) {
      throw py::value_error(
          absl::StrCat(what, " has not the ", layout.axes, " axes of layout '", layout.name, "'"));
    }
    if (layer == 0) {
      shape = cache.shape;
      strides = cache.strides;
      heads = layout.head < 0 ? 1 : shape[layout.head];
      const bool heads_fit = arguments.first_head.is_none()
                                 ? heads == geometry.kv_heads
                                 : heads >= 1 && heads <= geometry.kv_heads;
      if (!heads_fit || shape.back() != geometry.head_size) {
        throw py::value_error(absl::StrCat(what, " has ", heads, " heads of ", shape.back(),
                                           " where the profile has ", geometry.kv_heads, " of ",
                                           geometry.head_size, " (check the layout)"));
      }
      if (geometry.head_size > 1 && strides.back() != kElementBytes) {
        throw py::value_error(what + " must be contiguous along its last axis");
      }
      for (const int64_t stride : strides) {
        if (stride % kElementBytes != 0) {
          throw py::value_error(what + " has strides that are no multiple of its element size");
        }
      }
    }
    if (cache.shape != shape || cache.strides != strides) {
      throw py::value_error(what + " has another shape or other strides than that of layer 0");
    }
    char* const values = layout.plane < 0 ? nullptr : cache.data + strides[layout.plane];
    view.layers.push_back({cache.data, values});
  }
  view.num_blocks = shape[layout.block];
  view.block_size = shape[layout.place];
  view.block_stride = strides[layout.block] / kElementBytes;
  view.token_stride = strides[layout.place] / kElementBytes;
  view.head_stride = layout.head < 0 ? 0 : strides[layout.head] / kElementBytes;

  const ArrayView& table = device_array(paged.block_table, "block_table");
  if (table.type != ElementType::kInt32 || table.shape.size() != 1 ||
      (table.shape[0] > 1 && table.strides[0] != 4)) {
    throw py::value_error("block_table must be a contiguous array of int32 with one axis");
  }
  view.block_table_dev = reinterpret_cast<const int32_t*>(table.data);
  view.block_table_entries = table.shape[0];

  DeviceShard* const shard = &out->target.shard;
  SetRange(arguments.first_layer, layers, geometry.layers, "first_layer", &shard->first_layer,
           &shard->layers);
  SetRange(arguments.first_head, static_cast<int>(heads), geometry.kv_heads, "first_head",
           &shard->first_head, &shard->heads);
  out->target.kv = std::move(view);
}

void SetContiguous(py::handle kv, const DeviceArguments& arguments, uintptr_t stream,
                   const KvGeometry& geometry, bool write, DeviceArrays* out) {
  KvDemands demands;
  demands.on_device = true;
  demands.write = write;
  demands.any_layers = !arguments.first_layer.is_none();
  demands.any_heads = !arguments.first_head.is_none();
  demands.stream = stream;
  KvMemory memory = ViewKvMemory(kv, geometry, demands);
  DeviceKvView view;
  view.tokens = memory.tokens;
  const auto add = [](const std::vector<KvTensorMemory>& from, std::vector<DeviceKvTensor>* to) {
    for (const KvTensorMemory& tensor : from) {
      to->push_back({tensor.data, tensor.token_stride, tensor.head_stride});
    }
  };
  add(memory.keys, &view.keys);
  add(memory.values, &view.values);
  DeviceShard* const shard = &out->target.shard;
  SetRange(arguments.first_layer, static_cast<int>(memory.keys.size()), geometry.layers,
           "first_layer", &shard->first_layer, &shard->layers);
  SetRange(arguments.first_head, memory.heads, geometry.kv_heads, "first_head", &shard->first_head,
           &shard->heads);
  out->arrays = std::move(memory.arrays);
  out->target.kv = std::move(view);
}

// What a load would be given, for tests: a machine without a GPU shows nothing else of it.
py::dict Describe(const std::shared_ptr<Profile>& profile, const py::object& out,
                  const py::object& stream, const py::object& device, const py::object& first_layer,
                  const py::object& first_head) {
  const DeviceArrays arrays =
      ViewDeviceKv(out, {stream, device, first_layer, first_head}, profile->geometry(), true);
  const auto address = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); };
  const DeviceTarget& target = arrays.target;
  py::dict result;
  result["device"] = target.device_ordinal;
  result["stream"] = address(target.stream);
  result["shard"] = py::make_tuple(target.shard.first_layer, target.shard.layers,
                                   target.shard.first_head, target.shard.heads);
  py::list tensors;
  if (const auto* view = absl::get_if<DeviceKvView>(&target.kv)) {
    for (const auto* part : {&view->keys, &view->values}) {
      for (const DeviceKvTensor& tensor : *part) {
        tensors.append(
            py::make_tuple(address(tensor.data_dev), tensor.token_stride, tensor.head_stride));
      }
    }
    result["tokens"] = view->tokens;
  } else {
    const PagedKvView& paged = absl::get<PagedKvView>(target.kv);
    for (const PagedKvLayer& layer : paged.layers) {
      tensors.append(py::make_tuple(address(layer.keys_dev), address(layer.values_dev)));
    }
    result["blocks"] = py::make_tuple(paged.num_blocks, paged.block_size);
    result["strides"] = py::make_tuple(paged.block_stride, paged.token_stride, paged.head_stride);
    result["table"] = py::make_tuple(address(paged.block_table_dev), paged.block_table_entries);
  }
  result["tensors"] = tensors;
  return result;
}

}  // namespace

bool IsDeviceKv(py::handle out) {
  if (py::isinstance<PagedKvArrays>(out)) return true;
  const py::object first = FirstArray(out);
  return !first.is_none() && IsDeviceArray(first);
}

DeviceArrays ViewDeviceKv(py::handle out, const DeviceArguments& arguments,
                          const KvGeometry& geometry, bool write) {
  const absl::optional<uintptr_t> stream = StreamOf(arguments.stream);
  DeviceArrays arrays;
  if (py::isinstance<PagedKvArrays>(out)) {
    SetPaged(out.cast<const PagedKvArrays&>(), arguments, stream.value_or(0), geometry, write,
             &arrays);
  } else {
    SetContiguous(out, arguments, stream.value_or(0), geometry, write, &arrays);
  }
  SetPlace(arguments, stream, &arrays);
  return arrays;
}

void RegisterDevice(py::module_& module) {
  py::class_<PagedKvArrays>(
      module, "PagedKv",
      "An engine's paged KV cache in GPU memory, with the block table of one context.")
      .def(py::init([](const py::object& caches, const py::object& block_table,
                       const std::string& layout) {
             LayoutNamed(layout);
             return PagedKvArrays{caches, block_table, layout};
           }),
           py::kw_only(), py::arg("caches"), py::arg("block_table"),
           py::arg("layout") = kLayouts[0].name,
           "caches: for each layer an array [2, blocks, block size, heads, head size] "
           "('plane_major_nhd': vLLM with FlashAttention), [blocks, 2, block size, heads, head "
           "size] ('block_major_nhd': with FlashInfer), either with heads before the block size "
           "('..._hnd'), or [blocks, block size, head size] ('latent'). block_table: int32, the "
           "blocks of the context's tokens in order.")
      .def_readonly("caches", &PagedKvArrays::caches)
      .def_readonly("block_table", &PagedKvArrays::block_table)
      .def_readonly("layout", &PagedKvArrays::layout);
  module.def("_describe_target", &Describe, py::arg("profile"), py::arg("out"), py::kw_only(),
             py::arg("stream") = py::none(), py::arg("device") = py::none(),
             py::arg("first_layer") = py::none(), py::arg("first_head") = py::none());
}

}  // namespace kvstream

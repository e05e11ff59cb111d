#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/python/bindings.h"
#include "client/python/errors.h"
#include "client/python/kv_arrays.h"
#include "codec/calibration.h"
#include "codec/calibration_advice.h"
#include "codec/geometry.h"
#include "codec/profile.h"

namespace kvstream {
namespace {

namespace py = pybind11;

std::shared_ptr<const Profile> ParseProfile(std::string bytes) {
  absl::StatusOr<std::shared_ptr<const Profile>> profile;
  {
    py::gil_scoped_release release;
    profile = Profile::ParseOwned(std::move(bytes));
  }
  return ValueOrThrow(std::move(profile));
}

std::shared_ptr<const Profile> LoadProfile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  if (file) bytes << file.rdbuf();
  if (!file) throw StatusError(absl::NotFoundError(absl::StrCat("cannot read ", path)));
  return ParseProfile(bytes.str());
}

void SaveProfile(const Profile& profile, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << profile.serialized();
  file.close();
  if (!file) throw StatusError(absl::UnavailableError(absl::StrCat("cannot write ", path)));
}

py::dict GeometryDict(const Profile& profile) {
  const KvGeometry& geometry = profile.geometry();
  py::dict out;
  out["layers"] = geometry.layers;
  out["kv_heads"] = geometry.kv_heads;
  out["head_size"] = geometry.head_size;
  out["dtype"] = geometry.dtype == KvDtype::kF16 ? "float16" : "bfloat16";
  out["planes"] = geometry.planes;
  out["rotary_size"] = geometry.rope.rotary_size();
  out["rotary_offset"] = geometry.rope.rotary_offset;
  return out;
}

std::vector<double> Steps(const Profile& profile) {
  std::vector<double> steps;
  steps.reserve(profile.levels());
  for (int level = 0; level < profile.levels(); ++level) steps.push_back(profile.step(level));
  return steps;
}

// "head", "layer", "model" or a number of layers, as the command line has it.
void SetGroup(py::handle group, CalibrationOptions* options) {
  if (py::isinstance<py::int_>(group)) {
    options->group = CalibrationOptions::Group::kLayers;
    options->group_layers = group.cast<int>();
    return;
  }
  const std::string name = py::str(group);
  if (name == "head") {
    options->group = CalibrationOptions::Group::kHead;
  } else if (name == "layer") {
    options->group = CalibrationOptions::Group::kLayers;
    options->group_layers = 1;
  } else if (name == "model") {
    options->group = CalibrationOptions::Group::kModel;
  } else {
    throw py::value_error("group must be 'head', 'layer', 'model' or a number of layers");
  }
}

// Elements of an array in C order; none of None.
std::vector<float> Floats(const py::object& object) {
  if (object.is_none()) return {};
  const auto array = py::array_t<float, py::array::c_style | py::array::forcecast>(object);
  return std::vector<float>(array.data(), array.data() + array.size());
}

std::shared_ptr<const Profile> Build(const std::string& config_json, const py::sequence& samples,
                                     const py::object& query_rms, const py::object& sensitivity,
                                     const py::object& group, std::vector<double> steps,
                                     double value_step_ratio, int chunk_tokens, int sink_tokens) {
  const KvGeometry geometry = ValueOrThrow(GeometryFromConfigJson(config_json));
  CalibrationOptions options;
  SetGroup(group, &options);
  options.steps = std::move(steps);
  options.value_step_ratio = value_step_ratio;
  options.chunk_tokens = chunk_tokens;
  options.sink_tokens = sink_tokens;
  std::vector<Borrowed<KvView>> borrowed;
  std::vector<KvView> views;
  for (const py::handle sample : samples) {
    borrowed.push_back(ViewKv(sample, geometry));
    views.push_back(borrowed.back().view);
  }
  const QueryRms queries = Floats(query_rms);
  options.sensitivity = Floats(sensitivity);
  for (const std::string& warning : CalibrationWarnings(geometry, views, options)) {
    if (PyErr_WarnEx(PyExc_UserWarning, warning.c_str(), 1) != 0) throw py::error_already_set();
  }
  absl::StatusOr<std::shared_ptr<const Profile>> profile;
  {
    py::gil_scoped_release release;
    profile = BuildProfile(geometry, views, queries, options);
  }
  return ValueOrThrow(std::move(profile));
}

}  // namespace

void RegisterProfile(py::module_& module) {
  py::class_<Profile, std::shared_ptr<Profile>>(
      module, "Profile",
      "A model's geometry with the codec's calibration and ladder of levels. Immutable.")
      .def_static(
          "load", [](const std::string& path) { return AsBound(LoadProfile(path)); },
          py::arg("path"), "Reads and checks a .kvprofile file.")
      .def_static(
          "from_bytes", [](std::string bytes) { return AsBound(ParseProfile(std::move(bytes))); },
          py::arg("data"), "Parses and checks the bytes of a profile.")
      .def(
          "to_bytes", [](const Profile& profile) { return py::bytes(profile.serialized()); },
          "The bytes that from_bytes() reads.")
      .def("save", &SaveProfile, py::arg("path"), "Writes the profile to a file.")
      .def_property_readonly(
          "id",
          [](const Profile& profile) {
            return py::bytes(reinterpret_cast<const char*>(profile.id().data()),
                             profile.id().size());
          },
          "32 bytes: the hash of the profile's bytes.")
      .def_property_readonly("levels", &Profile::levels,
                             "Rungs of the ladder; levels are 0 (coarsest) to levels - 1.")
      .def_property_readonly("steps", &Steps,
                             "Quantisation step of each level, in standard deviations of a layer.")
      .def_property_readonly("chunk_tokens", &Profile::chunk_tokens, "Tokens of a full chunk.")
      .def_property_readonly("sink_tokens", &Profile::sink_tokens,
                             "First tokens of a context that are kept exact.")
      .def_property_readonly("group", &Profile::group_description,
                             "Which values share a transform.")
      .def_property_readonly("geometry", &GeometryDict,
                             "layers, planes (2: keys and values, 1: a latent), kv_heads, "
                             "head_size, dtype, rotary_size and rotary_offset of the model.")
      .def("__repr__", [](const Profile& profile) {
        return absl::StrCat("<kvstream.Profile ",
                            absl::BytesToHexString(absl::string_view(
                                reinterpret_cast<const char*>(profile.id().data()), 8)),
                            ": ", profile.geometry().layers, " layers of ",
                            profile.geometry().kv_heads, " heads of ", profile.geometry().head_size,
                            ", ", profile.levels(), " levels>");
      });

  const CalibrationOptions defaults;
  module.def(
      "build_profile",
      [](const std::string& config_json, const py::sequence& samples, const py::object& query_rms,
         const py::object& sensitivity, const py::object& group, std::vector<double> steps,
         double value_step_ratio, int chunk_tokens, int sink_tokens) {
        return AsBound(Build(config_json, samples, query_rms, sensitivity, group, std::move(steps),
                             value_step_ratio, chunk_tokens, sink_tokens));
      },
      py::arg("config_json"), py::arg("samples"), py::kw_only(), py::arg("query_rms") = py::none(),
      py::arg("sensitivity") = py::none(), py::arg("group") = "layer",
      py::arg("steps") = defaults.steps, py::arg("value_step_ratio") = defaults.value_step_ratio,
      py::arg("chunk_tokens") = defaults.chunk_tokens,
      py::arg("sink_tokens") = defaults.sink_tokens,
      "Calibrates a profile on the KV of sample contexts, each from its first token on.\n\n"
      "config_json is the text of the model's Hugging Face config.json. No samples give the "
      "fallback without calibration. query_rms: [layers, kv_heads, head_size], the root mean "
      "square of the queries. sensitivity: [layers, planes, kv_heads, head_size], the mean square "
      "of the "
      "gradient of the log-likelihood with respect to cached keys (plane 0) and values (1).");
}

}  // namespace kvstream

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/python/bindings.h"
#include "client/python/errors.h"
#include "client/python/kv_arrays.h"
#include "codec/decoder.h"
#include "codec/encoder.h"

namespace kvstream {
namespace {

namespace py = pybind11;

py::list Encode(const std::shared_ptr<Profile>& profile, const py::object& kv,
                int64_t first_position) {
  const Borrowed<KvView> borrowed = ViewKv(kv, profile->geometry());
  const KvView& view = borrowed.view;
  if (first_position < 0) throw py::value_error("first_position is negative");
  std::vector<EncodedChunk> chunks;
  {
    py::gil_scoped_release release;
    const std::unique_ptr<ChunkEncoder> encoder = ValueOrThrow(ChunkEncoder::Create(profile));
    const int64_t step = profile->chunk_tokens();
    for (int64_t first = 0; first < view.tokens; first += step) {
      chunks.push_back(ValueOrThrow(encoder->Encode(
          view.Slice(first, std::min(step, view.tokens - first)), first_position + first)));
    }
  }
  py::list out;
  for (const EncodedChunk& chunk : chunks) {
    py::list segments;
    for (const std::string& segment : chunk.segments) segments.append(py::bytes(segment));
    out.append(segments);
  }
  return out;
}

// Each chunk's segments up to `level`; the bytes objects stay alive in `chunks`.
std::vector<std::vector<absl::string_view>> Segments(const py::sequence& chunks, int level) {
  std::vector<std::vector<absl::string_view>> out;
  for (const py::handle chunk : chunks) {
    const auto segments = py::cast<py::sequence>(chunk);
    if (segments.size() <= static_cast<size_t>(level)) {
      throw py::value_error(absl::StrCat("chunk ", out.size(), " has ", segments.size(),
                                         " segments, level ", level, " needs ", level + 1));
    }
    out.emplace_back();
    for (int i = 0; i <= level; ++i) {
      const py::object segment = segments[static_cast<size_t>(i)];
      if (!py::isinstance<py::bytes>(segment)) throw py::type_error("segments must be bytes");
      char* data;
      py::ssize_t size;
      PyBytes_AsStringAndSize(segment.ptr(), &data, &size);
      out.back().emplace_back(data, static_cast<size_t>(size));
    }
  }
  return out;
}

py::object Decode(const std::shared_ptr<Profile>& profile, const py::sequence& chunks,
                  const py::object& level, const py::object& out) {
  const int wanted = level.is_none() ? profile->levels() - 1 : level.cast<int>();
  if (wanted < 0 || wanted >= profile->levels()) {
    throw py::value_error(
        absl::StrCat("level ", wanted, " is not in 0 to ", profile->levels() - 1));
  }
  // A tuple of tuples of bytes cannot be changed by others while the GIL is released.
  py::tuple kept(chunks.size());
  for (size_t i = 0; i < chunks.size(); ++i) kept[i] = py::tuple(py::object(chunks[i]));
  const std::vector<std::vector<absl::string_view>> segments = Segments(kept, wanted);
  // Segments say how many tokens their chunk has.
  int64_t tokens = 0;
  std::vector<int64_t> chunk_tokens;
  for (const auto& chunk : segments) {
    chunk_tokens.push_back(ValueOrThrow(ValidateSegment(*profile, chunk[0])).tokens);
    tokens += chunk_tokens.back();
  }
  const py::object kv = out.is_none() ? py::object(AllocateKv(profile->geometry(), tokens)) : out;
  const Borrowed<MutableKvView> borrowed = ViewMutableKv(kv, profile->geometry());
  const MutableKvView& view = borrowed.view;
  if (view.tokens != tokens) {
    throw py::value_error(
        absl::StrCat("out has ", view.tokens, " tokens, the chunks have ", tokens));
  }
  {
    py::gil_scoped_release release;
    const std::unique_ptr<ChunkDecoder> decoder = ValueOrThrow(ChunkDecoder::Create(profile));
    int64_t first = 0;
    for (size_t i = 0; i < segments.size(); ++i) {
      ThrowIfError(decoder->Decode(segments[i], view.Slice(first, chunk_tokens[i])));
      first += chunk_tokens[i];
    }
  }
  return kv;
}

}  // namespace

void RegisterCodec(py::module_& module) {
  module.def("encode", &Encode, py::arg("profile"), py::arg("kv"), py::kw_only(),
             py::arg("first_position") = 0,
             "Encodes KV chunk by chunk; returns each chunk's segments, level 0 first.");
  module.def(
      "decode", &Decode, py::arg("profile"), py::arg("chunks"), py::kw_only(),
      py::arg("level") = py::none(), py::arg("out") = py::none(),
      "Decodes consecutive chunks at a level (default: the finest) into `out` or new arrays, "
      "and returns those.");
}

}  // namespace kvstream

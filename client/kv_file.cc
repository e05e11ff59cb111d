#include "client/kv_file.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace kvstream {
namespace {

TensorDtype TensorDtypeOf(KvDtype dtype) {
  return dtype == KvDtype::kF16 ? TensorDtype::kF16 : TensorDtype::kBF16;
}

std::string TensorName(const KvGeometry& geometry, int layer, int plane) {
  return absl::StrCat("layers.", layer,
                      !geometry.has_values() ? ".latent" : (plane == 0 ? ".key" : ".value"));
}

std::string ShapeText(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::Status Wrong(const SafetensorsFile& file, absl::string_view tensor, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor ", tensor, " ", what));
}

// Finds and checks one KV tensor. *tokens is set by the first (from -1) and checked by all others.
absl::StatusOr<KvTensor> FindKv(const SafetensorsFile& file, const std::string& name,
                                const KvGeometry& geometry, int64_t* tokens) {
  const TensorEntry* entry = file.Find(name);
  if (entry == nullptr) {
    return Wrong(file, name,
                 absl::StrCat("is missing; the model has ", geometry.layers, " layers"));
  }
  const TensorDtype wanted = TensorDtypeOf(geometry.dtype);
  if (entry->dtype != wanted) {
    return Wrong(
        file, name,
        absl::StrCat("is ", TensorDtypeName(entry->dtype), ", must be ", TensorDtypeName(wanted)));
  }
  if (*tokens < 0 && entry->shape.size() == 3) *tokens = entry->shape[0];
  const std::vector<int64_t> shape = {*tokens, geometry.kv_heads, geometry.head_size};
  if (entry->shape != shape) {
    return Wrong(file, name,
                 absl::StrCat("has shape ", ShapeText(entry->shape), ", must be [",
                              *tokens < 0 ? "tokens" : absl::StrCat(*tokens), ", ",
                              geometry.kv_heads, ", ", geometry.head_size, "]"));
  }
  const char* data = file.Bytes(*entry).data();
  if (reinterpret_cast<uintptr_t>(data) % alignof(uint16_t) != 0) {
    return Wrong(file, name, "begins at an odd offset; write the file with an aligned header");
  }
  KvTensor tensor;
  tensor.data = reinterpret_cast<const uint16_t*>(data);
  tensor.head_stride = geometry.head_size;
  tensor.token_stride = static_cast<ptrdiff_t>(geometry.kv_heads) * geometry.head_size;
  return tensor;
}

absl::StatusOr<std::vector<int32_t>> TokensOf(const SafetensorsFile& file,
                                              const TensorEntry& entry) {
  if (entry.shape.size() != 1 ||
      (entry.dtype != TensorDtype::kI32 && entry.dtype != TensorDtype::kI64)) {
    return Wrong(file, entry.name,
                 absl::StrCat("is ", TensorDtypeName(entry.dtype), " of shape ",
                              ShapeText(entry.shape), ", must be I32 or I64 of shape [tokens]"));
  }
  const absl::string_view bytes = file.Bytes(entry);
  std::vector<int32_t> tokens(static_cast<size_t>(entry.shape[0]));
  if (entry.dtype == TensorDtype::kI32) {
    if (!tokens.empty()) std::memcpy(tokens.data(), bytes.data(), bytes.size());
    return tokens;
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    int64_t token;
    std::memcpy(&token, bytes.data() + i * sizeof(token), sizeof(token));
    if (token < std::numeric_limits<int32_t>::min() ||
        token > std::numeric_limits<int32_t>::max()) {
      return Wrong(file, entry.name, absl::StrCat("holds an id beyond 32 bits at index ", i));
    }
    tokens[i] = static_cast<int32_t>(token);
  }
  return tokens;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvFile>> KvFile::Open(const std::string& path,
                                                     const KvGeometry& geometry) {
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  std::unique_ptr<KvFile> out(new KvFile);
  out->file_ = *std::move(file);
  const SafetensorsFile& mapped = *out->file_;

  int64_t tokens = -1;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int plane = 0; plane < geometry.planes; ++plane) {
      absl::StatusOr<KvTensor> tensor =
          FindKv(mapped, TensorName(geometry, layer, plane), geometry, &tokens);
      if (!tensor.ok()) return tensor.status();
      (plane == 0 ? out->kv_.keys : out->kv_.values).push_back(*tensor);
    }
  }
  const std::string beyond = TensorName(geometry, geometry.layers, 0);
  if (mapped.Find(beyond) != nullptr) {
    return Wrong(mapped, beyond,
                 absl::StrCat("is one too many: the model has ", geometry.layers, " layers"));
  }
  out->kv_.tokens = tokens;

  if (const TensorEntry* entry = mapped.Find("tokens")) {
    absl::StatusOr<std::vector<int32_t>> ids = TokensOf(mapped, *entry);
    if (!ids.ok()) return ids.status();
    if (static_cast<int64_t>(ids->size()) != tokens) {
      return Wrong(mapped, "tokens",
                   absl::StrCat("has ", ids->size(), " ids, but the KV has ", tokens, " tokens"));
    }
    out->has_tokens_ = true;
    out->tokens_ = *std::move(ids);
  }
  return out;
}

absl::StatusOr<KvDtype> KvFileDtype(const std::string& path) {
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  std::string name = "layers.0.key";
  const TensorEntry* entry = (*file)->Find(name);
  if (const TensorEntry* latent = (*file)->Find("layers.0.latent"); entry == nullptr && latent) {
    name = latent->name;
    entry = latent;
  }
  if (entry == nullptr) return Wrong(**file, name, "is missing");
  if (entry->dtype == TensorDtype::kF16) return KvDtype::kF16;
  if (entry->dtype == TensorDtype::kBF16) return KvDtype::kBF16;
  return Wrong(**file, name,
               absl::StrCat("is ", TensorDtypeName(entry->dtype), ", must be F16 or BF16"));
}

absl::StatusOr<std::vector<int32_t>> ReadTokens(const std::string& path) {
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  const TensorEntry* entry = (*file)->Find("tokens");
  if (entry == nullptr)
    return Wrong(**file, "tokens", "is missing; it holds the context's token ids");
  return TokensOf(**file, *entry);
}

absl::StatusOr<KvBuffer> KvBuffer::Create(const KvGeometry& geometry, int64_t tokens) {
  const int64_t row = int64_t{geometry.kv_heads} * geometry.head_size;
  uint64_t values = 0;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(tokens),
                             static_cast<uint64_t>(geometry.values_per_token()), &values) ||
      __builtin_mul_overflow(values, uint64_t{sizeof(uint16_t)}, &bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the KV of ", tokens, " tokens"));
  }
  KvBuffer buffer;
  // calloc: pages of zeros that are only there once touched.
  buffer.memory_ = {static_cast<uint16_t*>(std::calloc(values + 1, sizeof(uint16_t))), std::free};
  if (buffer.memory_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the KV of ", tokens, " tokens (", bytes, " bytes)"));
  }
  uint16_t* next = buffer.memory_.get();
  buffer.view_.tokens = tokens;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int plane = 0; plane < geometry.planes; ++plane) {
      MutableKvTensor tensor;
      tensor.data = next;
      tensor.head_stride = geometry.head_size;
      tensor.token_stride = row;
      (plane == 0 ? buffer.view_.keys : buffer.view_.values).push_back(tensor);
      next += tokens * row;
    }
  }
  return buffer;
}

KvView KvBuffer::const_view() const {
  KvView view;
  view.tokens = view_.tokens;
  const auto borrow = [](const std::vector<MutableKvTensor>& from, std::vector<KvTensor>& to) {
    for (const MutableKvTensor& tensor : from) {
      to.push_back({tensor.data, tensor.token_stride, tensor.head_stride});
    }
  };
  borrow(view_.keys, view.keys);
  borrow(view_.values, view.values);
  return view;
}

absl::Status WriteKvFile(const std::string& path, const KvGeometry& geometry, const KvView& kv,
                         absl::Span<const int32_t> tokens,
                         const std::map<std::string, std::string>& metadata) {
  const int64_t row = int64_t{geometry.kv_heads} * geometry.head_size;
  const size_t bytes = static_cast<size_t>(kv.tokens * row) * sizeof(uint16_t);
  std::vector<TensorToWrite> tensors;
  const size_t values = geometry.has_values() ? static_cast<size_t>(geometry.layers) : 0;
  if (kv.keys.size() != geometry.layers || kv.values.size() != values) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": KV has ", kv.keys.size(), " layers, must have ", geometry.layers));
  }
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int plane = 0; plane < geometry.planes; ++plane) {
      const KvTensor& tensor = plane == 0 ? kv.keys[layer] : kv.values[layer];
      if (tensor.head_stride != geometry.head_size || tensor.token_stride != row) {
        return absl::InvalidArgumentError(absl::StrCat(
            path, ": ", TensorName(geometry, layer, plane), " is not dense in memory"));
      }
      tensors.push_back({TensorName(geometry, layer, plane),
                         TensorDtypeOf(geometry.dtype),
                         {kv.tokens, geometry.kv_heads, geometry.head_size},
                         {absl::string_view(reinterpret_cast<const char*>(tensor.data), bytes)}});
    }
  }
  if (!tokens.empty()) {
    tensors.push_back({"tokens",
                       TensorDtype::kI32,
                       {static_cast<int64_t>(tokens.size())},
                       {absl::string_view(reinterpret_cast<const char*>(tokens.data()),
                                          tokens.size() * sizeof(int32_t))}});
  }
  return WriteSafetensors(path, tensors, metadata);
}

void CopyKv(const KvGeometry& geometry, const KvView& from, const MutableKvView& to, int64_t first,
            int64_t count) {
  const auto copy = [&](const KvTensor& source, const MutableKvTensor& target) {
    for (int64_t token = first; token < first + count; ++token) {
      for (int head = 0; head < geometry.kv_heads; ++head) {
        std::memcpy(target.at(token, head), source.at(token, head),
                    static_cast<size_t>(geometry.head_size) * sizeof(uint16_t));
      }
    }
  };
  for (int layer = 0; layer < geometry.layers; ++layer) {
    copy(from.keys[layer], to.keys[layer]);
    if (geometry.has_values()) copy(from.values[layer], to.values[layer]);
  }
}

}  // namespace kvstream

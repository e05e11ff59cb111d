// KV caches as safetensors files: per layer `layers.{i}.key` and `layers.{i}.value`, or
// `layers.{i}.latent` of a model with latent attention, shape [tokens, kv_heads, head_size], F16 or
// BF16, keys after RoPE; and `tokens`, shape [tokens], I32 or I64.
#ifndef KVSTREAM_CLIENT_KV_FILE_H_
#define KVSTREAM_CLIENT_KV_FILE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/safetensors.h"
#include "codec/geometry.h"
#include "codec/kv_view.h"

namespace kvstream {

// One context's KV in a mapped file; nothing is copied but the token ids. Thread-compatible. Every
// error names the path and the tensor.
class KvFile {
 public:
  // INVALID_ARGUMENT if a tensor is missing, or has another shape or dtype than `geometry` (of
  // which only layers, planes, kv_heads, head_size and dtype are read), if the file holds more
  // layers, or if a tensor does not begin at an even address. `tokens` may be missing.
  static absl::StatusOr<std::unique_ptr<KvFile>> Open(const std::string& path,
                                                      const KvGeometry& geometry);

  // Borrowed from the mapping: valid as long as this object.
  const KvView& kv() const { return kv_; }
  bool has_tokens() const { return has_tokens_; }
  // As many as kv().tokens; empty if the file has none.
  absl::Span<const int32_t> tokens() const { return tokens_; }
  const std::string& path() const { return file_->path(); }

 private:
  KvFile() = default;

  std::unique_ptr<SafetensorsFile> file_;
  KvView kv_;
  bool has_tokens_ = false;
  std::vector<int32_t> tokens_;
};

// The dtype of layers.0.key or layers.0.latent. INVALID_ARGUMENT if it is missing or neither F16
// nor BF16.
absl::StatusOr<KvDtype> KvFileDtype(const std::string& path);

// Only `tokens` of a file, which need not hold any KV. INVALID_ARGUMENT if there are none.
absl::StatusOr<std::vector<int32_t>> ReadTokens(const std::string& path);

// Owns zeroed memory for the KV of `tokens` tokens, laid out as
// [layer][plane][token][head][channel], planes being keys and values or one latent.
class KvBuffer {
 public:
  // RESOURCE_EXHAUSTED if the memory is not there. Precondition: geometry.Validate().ok(), tokens
  // >= 0.
  static absl::StatusOr<KvBuffer> Create(const KvGeometry& geometry, int64_t tokens);

  // Borrowed: valid as long as this object, also after it was moved.
  const MutableKvView& view() const { return view_; }
  KvView const_view() const;

 private:
  std::unique_ptr<uint16_t, void (*)(void*)> memory_{nullptr, nullptr};
  MutableKvView view_;
};

// Writes KV whose tokens are dense (as in KvBuffer and KvFile, or slices of them). tokens: as many
// as kv.tokens, or empty. INVALID_ARGUMENT for other strides.
absl::Status WriteKvFile(const std::string& path, const KvGeometry& geometry, const KvView& kv,
                         absl::Span<const int32_t> tokens,
                         const std::map<std::string, std::string>& metadata = {});

// Copies tokens [first, first + count) from one view to the same tokens of another of the same
// geometry.
void CopyKv(const KvGeometry& geometry, const KvView& from, const MutableKvView& to, int64_t first,
            int64_t count);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_KV_FILE_H_

// Reader and writer of safetensors files: 8 bytes little-endian header length, a JSON header, then
// the tensors' bytes.
#ifndef KVSTREAM_CLIENT_SAFETENSORS_H_
#define KVSTREAM_CLIENT_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace kvstream {

enum class TensorDtype : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64
};
// Such as "BF16".
absl::string_view TensorDtypeName(TensorDtype dtype);
size_t TensorDtypeBytes(TensorDtype dtype);

// One tensor of a file; row-major, little-endian.
struct TensorEntry {
  std::string name;
  TensorDtype dtype = TensorDtype::kF16;
  std::vector<int64_t> shape;
  // Where its bytes are, counted from the start of the file. size_bytes is the shape's product
  // times the element's size.
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
};

struct SafetensorsHeader {
  std::map<std::string, TensorEntry, std::less<>> tensors;
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// Parses the header at the start of `file`, the bytes of a whole file, which are not trusted. What
// it returns is consistent: every tensor lies inside the file, no two overlap, sizes agree with
// shapes. INVALID_ARGUMENT otherwise, naming the tensor. Headers over 4 MiB are refused. Gaps
// between tensors are allowed.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file);

// A file mapped into memory, read-only. Thread-compatible. Pages are read when touched; if another
// process truncates the file meanwhile, touching them ends this process (SIGBUS), as with every
// mapping.
class SafetensorsFile {
 public:
  // Errors: the operating system's, or ParseSafetensorsHeader's; both name the path.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }
  // Null if there is none of that name. Lives as long as the file.
  const TensorEntry* Find(absl::string_view name) const;
  // Borrowed from the mapping.
  absl::string_view Bytes(const TensorEntry& tensor) const {
    return bytes_.substr(tensor.offset, tensor.size_bytes);
  }

 private:
  SafetensorsFile(std::string path, absl::string_view bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  const std::string path_;
  const absl::string_view bytes_;  // the mapping
  SafetensorsHeader header_;
};

// A tensor to be written; `rows` are its bytes in order, in as many pieces as the caller likes,
// borrowed.
struct TensorToWrite {
  std::string name;
  TensorDtype dtype = TensorDtype::kF16;
  std::vector<int64_t> shape;
  std::vector<absl::string_view> pieces;
};

// Writes the tensors in the order given, aligned to 8 bytes, through an AtomicFile.
// INVALID_ARGUMENT if a tensor's pieces do not add up to its shape or a name occurs twice.
absl::Status WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                              const std::map<std::string, std::string>& metadata);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_SAFETENSORS_H_

#include "client/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/atomic_file.h"
#include "nlohmann/json.hpp"

namespace kvstream {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kHeaderBytesMax = uint64_t{4} << 20;
constexpr int kDepthMax = 8;
constexpr size_t kDimensionsMax = 16;
constexpr size_t kTensorsMax = 65536;
constexpr absl::string_view kMetadataKey = "__metadata__";

struct DtypeFacts {
  TensorDtype dtype;
  absl::string_view name;
  size_t bytes;
};
constexpr DtypeFacts kDtypes[] = {
    {TensorDtype::kBool, "BOOL", 1},      {TensorDtype::kU8, "U8", 1},
    {TensorDtype::kI8, "I8", 1},          {TensorDtype::kF8E5M2, "F8_E5M2", 1},
    {TensorDtype::kF8E4M3, "F8_E4M3", 1}, {TensorDtype::kU16, "U16", 2},
    {TensorDtype::kI16, "I16", 2},        {TensorDtype::kF16, "F16", 2},
    {TensorDtype::kBF16, "BF16", 2},      {TensorDtype::kU32, "U32", 4},
    {TensorDtype::kI32, "I32", 4},        {TensorDtype::kF32, "F32", 4},
    {TensorDtype::kU64, "U64", 8},        {TensorDtype::kI64, "I64", 8},
    {TensorDtype::kF64, "F64", 8},
};

const DtypeFacts& FactsOf(TensorDtype dtype) { return kDtypes[static_cast<size_t>(dtype)]; }

// A name from the file as it may be printed: short, without control characters.
std::string Printable(absl::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 64)) out += c >= ' ' && c <= '~' ? c : '?';
  if (text.size() > 64) out += "...";
  return out;
}

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("safetensors header: ", what));
}

absl::Status InvalidTensor(absl::string_view name, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor \"", Printable(name), "\": ", what));
}

// An integer of 0 to 2^63 - 1; false otherwise.
bool ReadCount(const json& value, uint64_t* out) {
  if (!value.is_number_unsigned()) return false;
  *out = value.get<uint64_t>();
  return *out <= static_cast<uint64_t>(INT64_MAX);
}

// The shape's product times the element's size; false on overflow.
bool SizeOf(const std::vector<int64_t>& shape, size_t element_bytes, uint64_t* out) {
  uint64_t product = element_bytes;
  for (const int64_t dimension : shape) {
    if (dimension < 0 ||
        __builtin_mul_overflow(product, static_cast<uint64_t>(dimension), &product)) {
      return false;
    }
  }
  *out = product;
  return true;
}

absl::StatusOr<TensorEntry> ParseTensor(const std::string& name, const json& value,
                                        uint64_t data_start, uint64_t data_bytes) {
  TensorEntry tensor;
  tensor.name = name;
  if (!value.is_object()) return InvalidTensor(name, "its entry is not an object");

  const auto dtype = value.find("dtype");
  if (dtype == value.end() || !dtype->is_string()) return InvalidTensor(name, "has no dtype");
  const std::string& dtype_name = dtype->get_ref<const std::string&>();
  const auto* facts = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                   [&](const DtypeFacts& f) { return f.name == dtype_name; });
  if (facts == std::end(kDtypes)) {
    return InvalidTensor(name, absl::StrCat("unknown dtype \"", Printable(dtype_name), "\""));
  }
  tensor.dtype = facts->dtype;

  const auto shape = value.find("shape");
  if (shape == value.end() || !shape->is_array() || shape->size() > kDimensionsMax) {
    return InvalidTensor(name,
                         absl::StrCat("has no shape of at most ", kDimensionsMax, " dimensions"));
  }
  for (const json& dimension : *shape) {
    uint64_t count;
    if (!ReadCount(dimension, &count))
      return InvalidTensor(name, "its shape is not a list of counts");
    tensor.shape.push_back(static_cast<int64_t>(count));
  }

  const auto offsets = value.find("data_offsets");
  uint64_t begin;
  uint64_t end;
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2 ||
      !ReadCount((*offsets)[0], &begin) || !ReadCount((*offsets)[1], &end)) {
    return InvalidTensor(name, "has no data_offsets of two numbers");
  }
  if (begin > end || end > data_bytes) {
    return InvalidTensor(
        name, absl::StrCat("data_offsets ", begin, " to ", end, " lie outside of the ", data_bytes,
                           " bytes of data; is the file truncated?"));
  }
  if (!SizeOf(tensor.shape, facts->bytes, &tensor.size_bytes) || tensor.size_bytes != end - begin) {
    return InvalidTensor(
        name, absl::StrCat("has ", end - begin,
                           " bytes of data, which is not what its shape and dtype need"));
  }
  tensor.offset = data_start + begin;
  return tensor;
}

absl::Status CheckNoOverlap(const SafetensorsHeader& header) {
  std::vector<const TensorEntry*> by_offset;
  for (const auto& [name, tensor] : header.tensors) {
    if (tensor.size_bytes > 0) by_offset.push_back(&tensor);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const TensorEntry* a, const TensorEntry* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const TensorEntry& before = *by_offset[i - 1];
    if (before.offset + before.size_bytes > by_offset[i]->offset) {
      return InvalidTensor(by_offset[i]->name,
                           absl::StrCat("overlaps tensor \"", Printable(before.name), "\""));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<json> ParseHeaderJson(absl::string_view text) {
  bool too_deep = false;
  std::set<std::string> names;
  std::string twice;
  bool has_twice = false;
  const json::parser_callback_t check = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kDepthMax) too_deep = true;
    // The library keeps the last of equal keys; a file that has some is not to be trusted.
    if (event == json::parse_event_t::key && depth == 1) {
      const std::string& name = parsed.get_ref<const std::string&>();
      if (!names.insert(name).second && !has_twice) {
        has_twice = true;
        twice = name;
      }
    }
    return !too_deep;
  };
  json parsed =
      json::parse(text.data(), text.data() + text.size(), check, /*allow_exceptions=*/false);
  if (too_deep) return Invalid("is nested too deep");
  if (parsed.is_discarded() || !parsed.is_object()) return Invalid("is not a JSON object");
  if (has_twice) return InvalidTensor(twice, "occurs twice in the header");
  if (parsed.size() > kTensorsMax) {
    return Invalid(absl::StrCat("names ", parsed.size(), " tensors, more than ", kTensorsMax));
  }
  return parsed;
}

}  // namespace

absl::string_view TensorDtypeName(TensorDtype dtype) { return FactsOf(dtype).name; }

size_t TensorDtypeBytes(TensorDtype dtype) { return FactsOf(dtype).bytes; }

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file) {
  if (file.size() < kLengthBytes) {
    return Invalid(absl::StrCat("the file has only ", file.size(), " bytes"));
  }
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | static_cast<uint8_t>(file[i]);
  if (length > kHeaderBytesMax || length > file.size() - kLengthBytes) {
    return Invalid(absl::StrCat("its length of ", length, " bytes does not fit a file of ",
                                file.size(), " bytes or exceeds ", kHeaderBytesMax,
                                "; the file is truncated or no safetensors file"));
  }
  const absl::StatusOr<json> parsed = ParseHeaderJson(file.substr(kLengthBytes, length));
  if (!parsed.ok()) return parsed.status();

  SafetensorsHeader header;
  const uint64_t data_start = kLengthBytes + length;
  for (const auto& item : parsed->items()) {
    if (item.key() == kMetadataKey) {
      if (!item.value().is_object()) return Invalid("__metadata__ is not an object");
      for (const auto& pair : item.value().items()) {
        if (!pair.value().is_string()) return Invalid("__metadata__ holds something but strings");
        header.metadata[pair.key()] = pair.value().get<std::string>();
      }
      continue;
    }
    absl::StatusOr<TensorEntry> tensor =
        ParseTensor(item.key(), item.value(), data_start, file.size() - data_start);
    if (!tensor.ok()) return tensor.status();
    header.tensors.emplace(item.key(), *std::move(tensor));
  }
  const absl::Status apart = CheckNoOverlap(header);
  if (!apart.ok()) return apart;
  return header;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  struct stat facts;
  void* mapping = MAP_FAILED;
  if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not a regular file"));
  }
  const size_t size = static_cast<size_t>(facts.st_size);
  if (size > 0) mapping = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  const int map_errno = errno;
  close(fd);
  if (size > 0 && mapping == MAP_FAILED) {
    return absl::ErrnoToStatus(map_errno, absl::StrCat("cannot map ", path));
  }
  const absl::string_view bytes =
      size > 0 ? absl::string_view(static_cast<const char*>(mapping), size) : absl::string_view();
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(path, bytes));
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(bytes);
  if (!header.ok()) {
    return absl::Status(header.status().code(),
                        absl::StrCat(path, ": ", header.status().message()));
  }
  file->header_ = *std::move(header);
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (!bytes_.empty()) munmap(const_cast<char*>(bytes_.data()), bytes_.size());
}

const TensorEntry* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = header_.tensors.find(name);
  return it == header_.tensors.end() ? nullptr : &it->second;
}

absl::Status WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[std::string(kMetadataKey)] = metadata;
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    uint64_t size = 0;
    uint64_t given = 0;
    for (const absl::string_view piece : tensor.pieces) given += piece.size();
    if (!SizeOf(tensor.shape, TensorDtypeBytes(tensor.dtype), &size) || size != given) {
      return InvalidTensor(
          tensor.name, absl::StrCat("has ", given, " bytes, which is not what its shape needs"));
    }
    if (header.contains(tensor.name)) return InvalidTensor(tensor.name, "is to be written twice");
    header[tensor.name] = {{"dtype", std::string(TensorDtypeName(tensor.dtype))},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + size}}};
    offset += size;
  }
  // Bytes that are not UTF-8 become U+FFFD instead of an exception.
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string length(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));

  absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  absl::Status written = (*file)->Append(length + text);
  for (const TensorToWrite& tensor : tensors) {
    for (const absl::string_view piece : tensor.pieces) {
      if (written.ok()) written = (*file)->Append(piece);
    }
  }
  if (!written.ok()) return written;
  return (*file)->Commit();
}

}  // namespace kvstream

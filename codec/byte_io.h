// Little-endian fields of stored bytes.
#ifndef KVSTREAM_CODEC_BYTE_IO_H_
#define KVSTREAM_CODEC_BYTE_IO_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/strings/string_view.h"

namespace kvstream {

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "stored fields are read by memcpy: a little-endian host is required"
#endif

template <typename T>
inline T LoadLe(const char* at) {
  static_assert(std::is_trivially_copyable<T>::value, "plain fields only");
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

template <typename T>
inline void StoreLe(T value, char* at) {
  std::memcpy(at, &value, sizeof(value));
}

template <typename T>
inline void AppendLe(T value, std::string* out) {
  const size_t end = out->size();
  out->resize(end + sizeof(T));
  StoreLe(value, &(*out)[end]);
}

// Reads fields from the front of borrowed bytes. A read beyond the end gives zero and makes ok()
// false for good, so that a run of reads needs one check.
class ByteReader {
 public:
  explicit ByteReader(absl::string_view bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  size_t remaining() const { return bytes_.size(); }

  template <typename T>
  T Read() {
    const absl::string_view field = Take(sizeof(T));
    return ok_ ? LoadLe<T>(field.data()) : T();
  }

  // The next `count` bytes, empty if there are not so many.
  absl::string_view Take(uint64_t count) {
    if (count > bytes_.size()) ok_ = false;
    if (!ok_) return {};
    const absl::string_view out = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return out;
  }

 private:
  absl::string_view bytes_;
  bool ok_ = true;
};

// LEB128: 7 bits a byte, low first.
inline void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// Fails (reader.ok() false or `*valid` false) on truncation and on values beyond 64 bits.
inline uint64_t ReadVarint(ByteReader& reader, bool* valid) {
  uint64_t value = 0;
  for (int shift = 0; shift < 63; shift += 7) {
    const uint8_t byte = reader.Read<uint8_t>();
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  *valid = false;
  return 0;
}

inline uint64_t ZigZag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}
inline int64_t UnZigZag(uint64_t value) {
  return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
}

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_BYTE_IO_H_

#include "storage/rocksdb/skip_damage.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace kvstream {
namespace {

constexpr size_t kPrefixBytes = sizeof(uint64_t);

// The beginning of a key as a number, and the least key that begins with it.
uint64_t Prefix(absl::string_view key) {
  uint64_t prefix = 0;
  for (size_t i = 0; i < kPrefixBytes; ++i) {
    prefix = prefix << 8 | (i < key.size() ? static_cast<uint8_t>(key[i]) : 0);
  }
  return prefix;
}
std::string LeastKey(uint64_t prefix) {
  std::string key(kPrefixBytes, '\0');
  for (size_t i = 0; i < kPrefixBytes; ++i) key[i] = static_cast<char>(prefix >> (56 - 8 * i));
  return key;
}

}  // namespace

bool SkipDamage(absl::string_view last, rocksdb::Iterator* it) {
  // An iterator can only be put on keys: this tries some further and further away, then halves the
  // distance.
  const uint64_t begin = Prefix(last);
  if (begin == UINT64_MAX) return false;
  const auto readable = [&](uint64_t prefix) {
    it->Seek(LeastKey(prefix));
    return it->status().ok();
  };
  uint64_t damaged = begin;
  uint64_t step = 1;
  while (!readable(begin + step)) {
    damaged = begin + step;
    const uint64_t next = step * 2;
    if (step > UINT64_MAX / 2 || next > UINT64_MAX - begin) {
      if (!readable(UINT64_MAX)) return false;
      step = UINT64_MAX - begin;
      break;
    }
    step = next;
  }
  uint64_t intact = begin + step;
  while (intact - damaged > 1) {
    const uint64_t middle = damaged + (intact - damaged) / 2;
    (readable(middle) ? intact : damaged) = middle;
  }
  it->Seek(LeastKey(intact));
  return it->status().ok() && it->Valid();
}

}  // namespace kvstream

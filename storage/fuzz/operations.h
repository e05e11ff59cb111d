// What the operation-sequence fuzz targets share.
#ifndef KVSTREAM_STORAGE_FUZZ_OPERATIONS_H_
#define KVSTREAM_STORAGE_FUZZ_OPERATIONS_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace kvstream {

// Inputs that the replay makes of random bytes, each at most so long. Defined by each target.
extern const int kReplayedInputs;
extern const size_t kReplayedBytes;
// Of all inputs so far: a replay in which little happens tests nothing. Defined by each target.
bool ReplayedEnough();

// Takes numbers off the input; 0 once it is used up.
class Operations {
 public:
  Operations(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool done() const { return at_ >= size_; }
  uint64_t Byte() { return done() ? 0 : data_[at_++]; }
  uint64_t Below(uint64_t bound) { return (bound > 256 ? Byte() << 8 | Byte() : Byte()) % bound; }

 private:
  const uint8_t* const data_;
  const size_t size_;
  size_t at_ = 0;
};

}  // namespace kvstream

// Ends the process, as libFuzzer wants it.
#define FUZZ_CHECK(condition)                                                        \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: violated: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)

// libFuzzer's entry, defined by each target.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

#endif  // KVSTREAM_STORAGE_FUZZ_OPERATIONS_H_

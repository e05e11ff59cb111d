// Interleaved range asymmetric numeral systems (rANS): 32-bit states, 16-bit words, probabilities
// of 12 bits.
//
// A block has up to 32 lanes, each with its own state, on one stream of words. A state x lies in
// [2^16, 2^32). To decode a symbol of frequency f that starts at c of 4096: slot = x mod 4096 names
// the symbol, x = f * (x / 4096) + slot - c, and if x < 2^16 then x = x * 2^16 + next word. Within
// a step lanes take their words in lane order. The encoder runs the same steps backwards from x =
// 2^16 in every lane; a decoder that does not end there has read damaged bytes. Bytes of a block:
// the states of its lanes (uint32 each), then the words.
#ifndef KVSTREAM_CODEC_RANS_H_
#define KVSTREAM_CODEC_RANS_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "codec/class_tables.h"

namespace kvstream {

constexpr int kLanes = 32;
constexpr uint32_t kRansLow = 1u << 16;

// Encodes one block. Everything is put in the reverse of decoding order.
class RansEncoder {
 public:
  RansEncoder() { Reset(); }

  // Precondition: 1 <= frequency < 4096.
  void Put(int lane, uint32_t start, uint32_t frequency) {
    uint32_t x = state_[lane];
    if (x >= frequency << 20) {
      words_.push_back(static_cast<uint16_t>(x));
      x >>= 16;
    }
    state_[lane] = ((x / frequency) << kProbabilityBits) + x % frequency + start;
  }

  // `bits` (1 to 15) equally likely bits.
  void PutBits(int lane, uint32_t value, int bits) {
    uint32_t x = state_[lane];
    if (x >= 1u << (32 - bits)) {
      words_.push_back(static_cast<uint16_t>(x));
      x >>= 16;
    }
    state_[lane] = x << bits | value;
  }

  // Appends the block to `out` and starts over.
  void Finish(int lanes, std::string* out) {
    const size_t begin = out->size();
    out->resize(begin + lanes * 4 + words_.size() * 2);
    char* at = &(*out)[begin];
    std::memcpy(at, state_, lanes * 4);
    at += lanes * 4;
    for (size_t i = words_.size(); i > 0; --i, at += 2) std::memcpy(at, &words_[i - 1], 2);
    Reset();
  }

 private:
  void Reset() {
    words_.clear();
    for (uint32_t& x : state_) x = kRansLow;
  }

  uint32_t state_[kLanes];
  std::vector<uint16_t> words_;
};

// State of decoding one block; the loops over lanes are the callers' (level_decoder.cc), which
// instantiate them with and without the check for the end of the words.
struct RansDecoder {
  uint32_t state[kLanes];
  const char* next = nullptr;
  const char* end = nullptr;
  bool overrun = false;

  // False if `block` is too short for the states or a state is below 2^16.
  bool Init(absl::string_view block, int lanes) {
    if (block.size() < static_cast<size_t>(lanes) * 4) return false;
    std::memcpy(state, block.data(), lanes * 4);
    for (int lane = lanes; lane < kLanes; ++lane) state[lane] = kRansLow;
    for (int lane = 0; lane < lanes; ++lane) {
      if (state[lane] < kRansLow) return false;
    }
    next = block.data() + lanes * 4;
    end = block.data() + block.size();
    return true;
  }

  // True if a step of 32 lanes can run without checks.
  bool roomy() const { return end - next >= 2 * kLanes; }

  template <bool kChecked>
  uint32_t Renormalise(uint32_t x) {
    if (x < kRansLow) {
      if (kChecked && end - next < 2) {
        overrun = true;
        return kRansLow;
      }
      uint16_t word;
      std::memcpy(&word, next, 2);
      next += 2;
      x = x << 16 | word;
    }
    return x;
  }

  template <bool kChecked>
  uint32_t Bits(int lane, int bits) {
    const uint32_t x = state[lane];
    state[lane] = Renormalise<kChecked>(x >> bits);
    return x & ((1u << bits) - 1);
  }

  // True if every word was used and every lane is back at the encoder's start.
  bool Finished() const {
    if (overrun || next != end) return false;
    for (uint32_t x : state) {
      if (x != kRansLow) return false;
    }
    return true;
  }
};

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_RANS_H_

// What the codec's fuzz targets share: a small world of valid bytes, and an entry that mends
// checksums so that mutations get past them.
#ifndef KVSTREAM_CODEC_FUZZ_FUZZ_TARGET_H_
#define KVSTREAM_CODEC_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kvstream {

// Valid inputs of the target; defined by each target. Mutations start from them where no corpus is
// given.
std::vector<std::string> FuzzSeeds();

}  // namespace kvstream

// libFuzzer's entry, defined by each target: must not crash on any bytes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

#endif  // KVSTREAM_CODEC_FUZZ_FUZZ_TARGET_H_

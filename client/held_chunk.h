// What a client holds of a chunk when its load is moved to another daemon.
#ifndef KVSTREAM_CLIENT_HELD_CHUNK_H_
#define KVSTREAM_CLIENT_HELD_CHUNK_H_

#include <cstdint>
#include <memory>
#include <vector>

namespace kvstream {

// A chunk that stands decoded in the caller's memory, with the bytes that it was decoded from,
// since a finer level is decoded from them again. Movable.
struct HeldChunk {
  // Segments received whole, level 0 first; 0: nothing is held, and no other field counts.
  int levels = 0;
  // At which the chunk stands, 0 to levels - 1. The segments above it came and were not decoded.
  int decoded_level = -1;
  std::vector<uint64_t> segment_bytes;  // as many
  // That the daemon which sent the newest of them had, at least `levels`.
  int stored_levels = 0;
  // As many as `levels`; none where the chunk stands at the profile's finest level.
  std::vector<std::unique_ptr<char[]>> segments;

  // Whether more of it may be had.
  bool refinable() const { return levels > 0 && decoded_level + 1 < stored_levels; }
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_HELD_CHUNK_H_

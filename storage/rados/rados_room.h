// Shares a store's capacity out to its shards, so that each put can see from its shard alone
// whether it fits.
#ifndef KVSTREAM_STORAGE_RADOS_RADOS_ROOM_H_
#define KVSTREAM_STORAGE_RADOS_RADOS_ROOM_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "storage/rados/rados_format.h"
#include "storage/rados/rados_pool.h"

namespace kvstream {

// What a pass of the keeper found, over all shards, before it changed anything.
struct RadosRoomReport {
  uint64_t payload_bytes = 0;  // of stored chunks
  uint64_t data_bytes = 0;     // of all data, also such as is being written or on its way out
  uint64_t unmet_bytes = 0;    // that uploads wait for and there was no room for
};

// A shard's data never grows past what is allotted to it: both stand in the shard's state, which
// every upload compares as it takes room. What is allotted to all shards together is never more
// than the capacity, once all that there was before there was a keeper fits. So the bound holds at
// every moment, however many daemons put, however late they are, whoever dies.
//
// One daemon at a time moves room between shards: first it takes from some, then it gives to
// others. Should it die in between, the rest is not allotted to anybody until the next pass, which
// counts anew. A keeper writes its number into all shards before it moves anything, and every
// move compares that number: one that has lost its lock without noticing can move nothing more, and
// the next one counts what it left.
//
// Not thread-safe; one for each daemon. `Balance` may only be called by who has the keeper's lock.
class RadosRoom {
 public:
  // The pool is borrowed. `keeper` is this daemon's number, not 0, and of no other. A test may have
  // `before_write` called between the reads of each of the three steps of a pass (taking over,
  // taking, giving) and their writes.
  RadosRoom(const RadosPool* pool, std::vector<std::string> objects, uint64_t capacity_bytes,
            uint64_t keeper, std::function<void()> before_write = nullptr);

  // One pass: becomes keeper where it is not, gives to those that want, shares the rest out evenly.
  // What was given for a want stays there until it is used, or kWantTime has passed. Costs a read
  // of each shard, and a write of those that change; nothing is written where nobody wants anything
  // and no shard has less than half of an even share. ABORTED if another daemon has become keeper
  // meanwhile.
  absl::StatusOr<RadosRoomReport> Balance(absl::string_view what, absl::Time now);
  static constexpr absl::Duration kWantTime = absl::Seconds(3);

 private:
  struct Shard {
    std::string bytes;
    rados_format::ShardState state;
    // Since when there is room for what is wanted, as far as this keeper saw.
    absl::Time met_since = absl::InfiniteFuture();
  };

  absl::Status Read(absl::string_view what, std::vector<size_t> which);
  // Writes what `change` makes of the states of these shards, each again until nobody was faster;
  // `change` returns false where there is nothing to do.
  absl::Status Write(absl::string_view what, std::vector<size_t> which,
                     const std::function<bool(size_t, rados_format::ShardState*)>& change,
                     bool takes_over);
  absl::Status TakeOver(absl::string_view what);
  uint64_t Allotted() const;
  // What each shard should have; nothing is kept back but for wants that are not met.
  std::vector<uint64_t> Targets(uint64_t* unmet_bytes) const;

  const RadosPool* const pool_;
  const std::vector<std::string> objects_;
  const uint64_t capacity_bytes_;
  const uint64_t keeper_;
  const std::function<void()> before_write_;
  std::vector<Shard> shards_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_RADOS_ROOM_H_

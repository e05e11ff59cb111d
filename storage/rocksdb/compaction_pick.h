// Which tables to compact so that deleted segments leave the disk soonest.
#ifndef KVSTREAM_STORAGE_ROCKSDB_COMPACTION_PICK_H_
#define KVSTREAM_STORAGE_ROCKSDB_COMPACTION_PICK_H_

#include <rocksdb/metadata.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/optional.h"

namespace kvstream {

struct CompactionPick {
  std::vector<std::string> files;  // input, for DB::CompactFiles
  int output_level = 0;
  uint64_t entries_per_table = 0;  // at most, of what is written; 0: as many as fit
  uint64_t bytes = 0;              // of `files`
};

// A deletion frees what it deletes when it reaches the last level. RocksDB's own choice follows the
// sizes of levels; this one follows deletions: of all tables above the last level, level 0 apart,
// the one with the most deletions for the bytes that compacting it into the next level rewrites.
// Level 0, whose tables overlap all others, goes as a whole, and only if nothing else is left. None
// if all tables lie on the last level, or others are being compacted.
//
// No pick reads more than `bytes_max`, level 0 apart, while there is another one. A table that
// overlaps too much of the next level, since it spans much of the id space, is first cut on its own
// level, again and again, into a table an entry at last. What is too large on the last level, since
// a larger store left it, is cut before anything else; until then an entry above it may still
// overlap too much, and is taken as it is if nothing else is left.
absl::optional<CompactionPick> PickCompaction(const rocksdb::ColumnFamilyMetaData& tables,
                                              uint64_t bytes_max);

// Whether a table on the last level is so large that an entry above it may be too much for one
// pick: more than half of `bytes_max`, and not a single entry.
bool HasOversizedTable(const rocksdb::ColumnFamilyMetaData& tables, uint64_t bytes_max);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_COMPACTION_PICK_H_

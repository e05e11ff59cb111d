#include "storage/rocksdb/compaction_pick.h"

#include <algorithm>
#include <utility>

namespace kvstream {
namespace {

using Tables = std::vector<rocksdb::SstFileMetaData>;

// What one cut makes of a table, at most.
constexpr uint64_t kPieces = 16;

// Adds the tables of a sorted level that overlap [smallest, largest]; false if one is busy.
bool AddOverlapping(const Tables& level, const std::string& smallest, const std::string& largest,
                    CompactionPick* pick) {
  auto table = std::lower_bound(
      level.begin(), level.end(), smallest,
      [](const rocksdb::SstFileMetaData& a, const std::string& key) { return a.largestkey < key; });
  for (; table != level.end() && table->smallestkey <= largest; ++table) {
    if (table->being_compacted) return false;
    pick->files.push_back(table->relative_filename);
    pick->bytes += table->size;
  }
  return true;
}

bool Oversized(const rocksdb::SstFileMetaData& table, uint64_t bytes_max) {
  return table.size > bytes_max / 2 && table.smallestkey != table.largestkey;
}

CompactionPick Cut(const rocksdb::SstFileMetaData& table, size_t level) {
  return {{table.relative_filename},
          static_cast<int>(level),
          std::max<uint64_t>((table.num_entries + kPieces - 1) / kPieces, 1),
          table.size};
}

}  // namespace

bool HasOversizedTable(const rocksdb::ColumnFamilyMetaData& tables, uint64_t bytes_max) {
  if (tables.levels.empty()) return false;
  const Tables& last = tables.levels.back().files;
  return std::any_of(last.begin(), last.end(), [&](const rocksdb::SstFileMetaData& table) {
    return Oversized(table, bytes_max);
  });
}

absl::optional<CompactionPick> PickCompaction(const rocksdb::ColumnFamilyMetaData& tables,
                                              uint64_t bytes_max) {
  const size_t levels = tables.levels.size();
  if (levels > 1) {
    for (const rocksdb::SstFileMetaData& table : tables.levels.back().files) {
      if (!table.being_compacted && Oversized(table, bytes_max)) return Cut(table, levels - 1);
    }
  }
  absl::optional<CompactionPick> best;
  double best_score = -1;
  absl::optional<CompactionPick> cut;
  absl::optional<CompactionPick> oversized;  // the smallest
  for (size_t level = 1; level + 1 < levels; ++level) {
    for (const rocksdb::SstFileMetaData& table : tables.levels[level].files) {
      if (table.being_compacted) continue;
      CompactionPick pick;
      pick.output_level = static_cast<int>(level) + 1;
      pick.files.push_back(table.relative_filename);
      pick.bytes = table.size;
      if (!AddOverlapping(tables.levels[level + 1].files, table.smallestkey, table.largestkey,
                          &pick)) {
        continue;
      }
      if (pick.bytes > bytes_max && table.smallestkey != table.largestkey) {
        cut = Cut(table, level);
        continue;
      }
      if (pick.bytes > bytes_max) {
        if (!oversized.has_value() || pick.bytes < oversized->bytes) oversized = std::move(pick);
        continue;
      }
      const double score =
          (static_cast<double>(table.num_deletions) + 1e-3) / static_cast<double>(pick.bytes + 1);
      if (score <= best_score) continue;
      best_score = score;
      best = std::move(pick);
    }
  }
  if (!best.has_value()) best = std::move(cut);
  if (!best.has_value()) best = std::move(oversized);
  if (best.has_value() || levels < 2 || tables.levels[0].files.empty()) return best;

  CompactionPick pick;
  for (const rocksdb::SstFileMetaData& table : tables.levels[0].files) {
    if (table.being_compacted) return absl::nullopt;
    pick.files.push_back(table.relative_filename);
    pick.bytes += table.size;
  }
  // Levels between are empty, or busy.
  for (size_t level = 1; level + 1 < levels; ++level) {
    if (!tables.levels[level].files.empty()) return absl::nullopt;
  }
  // Into the level above the last, so that it does not rewrite everything.
  pick.output_level = static_cast<int>(levels) - 2;
  return pick;
}

}  // namespace kvstream

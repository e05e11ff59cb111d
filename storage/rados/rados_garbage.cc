// RadosIndex: data that nothing needs any more.
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "storage/rados/rados_data.h"
#include "storage/rados/rados_format.h"
#include "storage/rados/rados_index.h"

namespace kvstream {

using rados_format::GarbageRecord;
using rados_format::GarbageState;
using rados_format::ShardState;

absl::StatusOr<std::vector<RadosIndex::Piece>> RadosIndex::ListGarbage(
    absl::string_view what, absl::Time announced_before, absl::Time retired_before,
    absl::FunctionRef<bool(const ChunkId&)> held) {
  constexpr size_t kPage = 256;
  std::vector<Piece> pieces;
  absl::Status damage;
  std::vector<OmapList> lists;
  for (const std::string& object : objects_) {
    OmapList list;
    list.object = object;
    list.prefix = list.after = rados_format::kGarbagePrefix;
    list.limit = kPage;
    lists.push_back(std::move(list));
  }
  while (!lists.empty()) {
    if (absl::Status status = pool_->List(what, &lists); !status.ok()) return status;
    std::vector<OmapList> rest;
    for (OmapList& list : lists) {
      bool done = !list.more || list.entries.empty();
      const size_t before = pieces.size();
      for (const auto& [key, value] : list.entries) {
        list.after = key;
        const absl::StatusOr<rados_format::GarbageKey> name = rados_format::DecodeGarbageKey(key);
        const absl::StatusOr<GarbageRecord> record = rados_format::DecodeGarbage(value);
        damage.Update(name.status());
        damage.Update(record.status());
        if (!name.ok() || !record.ok()) continue;
        // In the order of time.
        done = done || name->since >= std::max(announced_before, retired_before);
        if (done && list.more) break;
        const bool pending = record->state == GarbageState::kPending;
        if (name->since >= (pending ? announced_before : retired_before)) continue;
        if (!pending && name->since >= announced_before && held(name->id)) continue;
        pieces.push_back({list.object, key, value, *name, *record});
      }
      if (!done && pieces.size() == before) rest.push_back(std::move(list));
    }
    lists = std::move(rest);
  }
  if (pieces.empty() && !damage.ok()) return damage;
  return pieces;
}

absl::Status RadosIndex::EndUploads(absl::string_view what, std::vector<Piece>* pieces) {
  std::vector<OmapWrite> writes;
  std::vector<size_t> of;
  for (size_t i = 0; i < pieces->size(); ++i) {
    Piece& piece = (*pieces)[i];
    if (piece.record.state != GarbageState::kPending) continue;
    // From here on the upload cannot commit; only then may its data go.
    piece.record.state = GarbageState::kRetired;
    OmapWrite write;
    write.object = piece.object;
    write.expected = {{piece.key, piece.value}};
    piece.value = rados_format::EncodeGarbage(piece.record);
    write.set = {{piece.key, piece.value}};
    writes.push_back(std::move(write));
    of.push_back(i);
  }
  if (absl::Status status = pool_->Write(what, &writes); !status.ok()) return status;
  for (size_t w = writes.size(); w-- > 0;) {
    if (writes[w].conflict) pieces->erase(pieces->begin() + static_cast<std::ptrdiff_t>(of[w]));
  }
  return absl::OkStatus();
}

absl::Status RadosIndex::Unname(absl::string_view what, const std::vector<Piece>& pieces) {
  std::map<std::string, std::vector<std::string>> keys;  // by index object
  for (const Piece& piece : pieces) {
    const absl::optional<ChunkId>& parent = piece.record.parent;
    if (!parent.has_value()) continue;
    keys[ObjectOf(*parent)].push_back(
        rados_format::ChildKey(*parent, {piece.name.id, piece.name.generation}));
  }
  std::vector<OmapWrite> writes;
  for (auto& [object, in_shard] : keys) {
    OmapWrite write;
    write.object = object;
    write.remove = std::move(in_shard);
    writes.push_back(std::move(write));
  }
  return pool_->Write(what, &writes);
}

absl::StatusOr<size_t> RadosIndex::Forget(absl::string_view what,
                                          const std::vector<Piece>& pieces) {
  std::map<std::string, std::vector<const Piece*>> todo;  // by index object
  for (const Piece& piece : pieces) todo[piece.object].push_back(&piece);
  size_t forgotten = 0;
  for (int attempt = 0; !todo.empty(); ++attempt) {
    if (attempt > 0 && !BackOff(attempt)) return TooContended(what);
    std::vector<OmapRead> reads;
    for (const auto& [object, in_shard] : todo) {
      reads.push_back({object, {rados_format::kStateKey}, {}});
      for (const Piece* piece : in_shard) reads.back().keys.push_back(piece->key);
    }
    if (absl::Status status = pool_->Read(what, &reads, true); !status.ok()) return status;
    std::vector<OmapWrite> writes;
    for (const OmapRead& read : reads) {
      absl::StatusOr<ShardState> state = rados_format::DecodeState(read.values[0]);
      if (!state.ok()) return state.status();
      OmapWrite write;
      write.object = read.object;
      write.expected = {{rados_format::kStateKey, read.values[0]}};
      const std::vector<const Piece*>& in_shard = todo[read.object];
      for (size_t i = 0; i < in_shard.size(); ++i) {
        const Piece& piece = *in_shard[i];
        // What somebody else has forgotten is off the shard's already.
        if (read.values[i + 1] != piece.value) continue;
        const uint64_t bytes = piece.record.total_bytes - piece.record.keep_bytes;
        state->data_bytes -= std::min(state->data_bytes, bytes);
        write.expected.emplace_back(piece.key, piece.value);
        write.remove.push_back(piece.key);
      }
      if (write.remove.empty()) {
        todo.erase(read.object);
        continue;
      }
      write.set = {{rados_format::kStateKey, rados_format::EncodeState(*state)}};
      writes.push_back(std::move(write));
    }
    const absl::Status status = pool_->Write(what, &writes);
    if (!status.ok()) return status;
    for (const OmapWrite& write : writes) {
      if (write.conflict) continue;
      forgotten += write.remove.size();
      todo.erase(write.object);
    }
  }
  return forgotten;
}

absl::StatusOr<size_t> RadosIndex::CollectGarbage(absl::string_view what,
                                                  absl::Time announced_before,
                                                  absl::Time retired_before,
                                                  absl::FunctionRef<bool(const ChunkId&)> held) {
  size_t removed = 0;
  for (;;) {
    absl::StatusOr<std::vector<Piece>> pieces =
        ListGarbage(what, announced_before, retired_before, held);
    if (!pieces.ok()) return pieces.status();
    if (pieces->empty()) return removed;
    if (absl::Status status = EndUploads(what, &*pieces); !status.ok()) return status;
    std::vector<RadosDataCut> cuts;
    for (const Piece& piece : *pieces) {
      cuts.push_back({{piece.name.id, piece.name.generation},
                      piece.record.keep_bytes,
                      piece.record.total_bytes});
    }
    if (absl::Status status = ShrinkRadosData(*pool_, what, cuts); !status.ok()) return status;
    if (absl::Status status = Unname(what, *pieces); !status.ok()) return status;
    const absl::StatusOr<size_t> forgotten = Forget(what, *pieces);
    if (!forgotten.ok()) return forgotten.status();
    if (*forgotten == 0) return removed;  // somebody else is at it
    removed += *forgotten;
  }
}

}  // namespace kvstream

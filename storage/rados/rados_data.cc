#include "storage/rados/rados_data.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

namespace kvstream {
namespace {

using rados_format::kPartBytes;

uint64_t PartsOf(uint64_t bytes) { return (bytes + kPartBytes - 1) / kPartBytes; }

}  // namespace

absl::Status WriteRadosData(const RadosPool& pool, absl::string_view what,
                            const RadosDataName& name, absl::Span<const absl::string_view> segments,
                            const absl::optional<OmapWrite>& beside) {
  // The pieces of segments that each part is made of.
  std::vector<std::vector<absl::string_view>> parts;
  uint64_t in_part = kPartBytes;
  for (absl::string_view segment : segments) {
    while (!segment.empty()) {
      if (in_part == kPartBytes) {
        parts.emplace_back();
        in_part = 0;
      }
      const absl::string_view piece = segment.substr(0, kPartBytes - in_part);
      parts.back().push_back(piece);
      in_part += piece.size();
      segment.remove_prefix(piece.size());
    }
  }
  absl::Status status;
  pool.RunAll(
      parts.size() + (beside.has_value() ? 1 : 0),
      [&](size_t part, rados_completion_t completion) {
        if (part == parts.size()) return pool.StartWrite(*beside, completion);
        const rados_write_op_t op = rados_create_write_op();
        rados_write_op_create(op, LIBRADOS_CREATE_EXCLUSIVE, nullptr);
        uint64_t offset = 0;
        for (absl::string_view piece : parts[part]) {
          rados_write_op_write(op, piece.data(), piece.size(), offset);
          offset += piece.size();
        }
        const int rc = rados_aio_write_op_operate(
            op, pool.io(), completion,
            rados_format::DataObject(name.id, name.generation, part).c_str(), nullptr,
            LIBRADOS_OPERATION_NOFLAG);
        rados_release_write_op(op);  // librados has taken what it needs
        return rc;
      },
      [&](size_t, int rc) {
        if (rc < 0) status.Update(RadosError(rc, what));
      });
  return status;
}

absl::StatusOr<PinnedBytes> ReadRadosData(const RadosPool& pool, absl::string_view what,
                                          const RadosDataName& name, uint64_t offset,
                                          uint64_t bytes) {
  if (bytes == 0) return PinnedBytes();
  // Not filled with zeros first, which would cost a pass over the memory.
  std::unique_ptr<char[]> buffer(new char[bytes]);
  const uint64_t first = offset / kPartBytes;
  const uint64_t parts = PartsOf(offset + bytes) - first;
  const auto range_of = [&](uint64_t i) {
    const uint64_t part_start = (first + i) * kPartBytes;
    const uint64_t begin = std::max(offset, part_start);
    return std::make_pair(begin, std::min(offset + bytes, part_start + kPartBytes) - begin);
  };
  absl::Status status;
  pool.RunAll(
      parts,
      [&](size_t i, rados_completion_t completion) {
        const auto [begin, length] = range_of(i);
        return rados_aio_read(
            pool.io(), rados_format::DataObject(name.id, name.generation, first + i).c_str(),
            completion, buffer.get() + (begin - offset), length, begin % kPartBytes);
      },
      [&](size_t i, int rc) {
        if (rc >= 0 && static_cast<uint64_t>(rc) < range_of(i).second) rc = -ENOENT;
        if (rc < 0) status.Update(RadosError(rc, what));
      });
  if (!status.ok()) return status;
  char* const raw = buffer.release();
  return PinnedBytes(absl::string_view(raw, bytes), [raw] { delete[] raw; });
}

absl::Status ShrinkRadosData(const RadosPool& pool, absl::string_view what,
                             absl::Span<const RadosDataCut> cuts) {
  struct Part {
    const RadosDataName* name;
    uint64_t number;
    uint64_t keep;  // bytes of it
  };
  std::vector<Part> parts;
  for (const RadosDataCut& cut : cuts) {
    // The part that is cut, or the first that goes.
    const uint64_t first = cut.keep_bytes / kPartBytes;
    for (uint64_t part = first; part < PartsOf(cut.total_bytes); ++part) {
      parts.push_back({&cut.name, part, part == first ? cut.keep_bytes % kPartBytes : 0});
    }
  }
  absl::Status status;
  pool.RunAll(
      parts.size(),
      [&](size_t i, rados_completion_t completion) {
        const rados_write_op_t op = rados_create_write_op();
        rados_write_op_assert_exists(op);
        if (parts[i].keep == 0) {
          rados_write_op_remove(op);
        } else {
          rados_write_op_truncate(op, parts[i].keep);
        }
        const RadosDataName& name = *parts[i].name;
        const int rc = rados_aio_write_op_operate(
            op, pool.io(), completion,
            rados_format::DataObject(name.id, name.generation, parts[i].number).c_str(), nullptr,
            LIBRADOS_OPERATION_NOFLAG);
        rados_release_write_op(op);
        return rc;
      },
      [&](size_t, int rc) {
        if (rc < 0 && rc != -ENOENT) status.Update(RadosError(rc, what));
      });
  return status;
}

}  // namespace kvstream

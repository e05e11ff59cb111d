// What every driver accepts, checked in one place so that all drivers refuse the same chunks with
// the same words.
#ifndef KVSTREAM_STORAGE_CHUNK_LIMITS_H_
#define KVSTREAM_STORAGE_CHUNK_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "storage/chunk_store.h"

namespace kvstream {

// Levels of a chunk: 1 to this many, since a level is one byte of a key.
inline constexpr size_t kMaxChunkLevels = 256;
// Bytes of ChunkInfo::model.
inline constexpr size_t kMaxModelBytes = 512;
// Bytes of ChunkPin::owner, at least one.
inline constexpr size_t kMaxPinOwnerBytes = 64;
// Bytes of ChunkInfo::tenant.
inline constexpr size_t kMaxTenantBytes = 64;
// Bytes of all segments of a chunk together, and of a profile.
inline constexpr uint64_t kMaxChunkBytes = uint64_t{1} << 30;
inline constexpr uint64_t kMaxProfileBytes = uint64_t{1} << 30;

// INVALID_ARGUMENT, naming the chunk and the field, if the info is outside the limits above, if a
// time does not fit 64-bit nanoseconds since the Unix epoch (years 1678 to 2262), or if the
// segments are not the ones that it announces. O(levels).
absl::Status ValidateChunk(const ChunkId& id, const ChunkInfo& info,
                           absl::Span<const absl::string_view> segments);

// INVALID_ARGUMENT if a profile is larger than kMaxProfileBytes.
absl::Status ValidateProfile(const StoredProfileId& id, absl::string_view bytes);

// Whether a Put of `given` restores levels that the stored chunk has lost: it is the same chunk, as
// far as infos tell, with more levels. That their common segments are the same bytes is for the
// store to see.
bool RestoresLevels(const ChunkInfo& stored, const ChunkInfo& given);

// INVALID_ARGUMENT unless at least one level is to be kept.
absl::Status ValidateTrim(uint32_t keep_levels);

// INVALID_ARGUMENT if a time that `what` is to be set to is neither endless nor fits 64-bit
// nanoseconds since the Unix epoch.
absl::Status ValidateExpires(absl::string_view what, absl::Time expires);

// INVALID_ARGUMENT unless the owner has 1 to kMaxPinOwnerBytes bytes and the time fits.
absl::Status ValidatePin(absl::string_view owner, absl::Time until);

// As stores keep it: cut to whole nanoseconds. Endless stays endless.
absl::Time WholeNanos(absl::Time time);

// Takes the finest levels off an info so that at most `keep_levels` are left; returns the bytes of
// those taken.
uint64_t TrimInfo(ChunkInfo* info, uint32_t keep_levels);

// Sum of the segments' sizes of a validated info.
uint64_t PayloadBytes(const ChunkInfo& info);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_CHUNK_LIMITS_H_

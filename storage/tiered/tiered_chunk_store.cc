#include "storage/tiered/tiered_chunk_store.h"

#include <openssl/sha.h>
#include <xxhash.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/time/clock.h"

namespace kvstream {
namespace {

// The name of a segment in the tier. A cryptographic hash, since clients choose ids: nobody can
// make two segments of which one is taken for the other.
ChunkId TierName(const ChunkId& id, uint32_t level, const SegmentVersion& version) {
  std::string key = "kvstream tier 1:";
  key.append(id.begin(), id.end());
  for (uint64_t number : {uint64_t{level}, version.bytes, version.hash}) {
    for (int i = 0; i < 8; ++i) key.push_back(static_cast<char>(number >> (8 * i)));
  }
  ChunkId name;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), name.data());
  return name;
}

// What the tier's eviction weighs: a refinement counts half of what it refines, as it would were
// it a level there.
ChunkInfo TierInfo(uint32_t level, const SegmentVersion& version) {
  ChunkInfo info;
  info.tokens = std::max<uint32_t>(1, level < 32 ? version.tokens >> level : 0);
  info.first_token = version.first_token;
  info.segment_bytes = {version.bytes};
  info.created = absl::Now();
  return info;
}

}  // namespace

absl::Status TieredChunkStoreOptions::Validate() const {
  if (fill_threads >= 1 && fill_threads <= 64) return absl::OkStatus();
  return absl::InvalidArgumentError("tiered store: fill_threads must be from 1 to 64");
}

absl::StatusOr<std::unique_ptr<TieredChunkStore>> TieredChunkStore::Create(
    std::unique_ptr<VersionedChunkStore> below, std::unique_ptr<ChunkStore> tier,
    const TieredChunkStoreOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  return absl::WrapUnique(new TieredChunkStore(std::move(below), std::move(tier), options));
}

TieredChunkStore::TieredChunkStore(std::unique_ptr<VersionedChunkStore> below,
                                   std::unique_ptr<ChunkStore> tier,
                                   const TieredChunkStoreOptions& options)
    : ForwardingChunkStore(std::move(below)),
      options_(options),
      below_(static_cast<VersionedChunkStore*>(&inner())),
      tier_(std::move(tier)) {
  for (int i = 0; i < options_.fill_threads; ++i) {
    threads_.emplace_back([this] { FillUntilClosed(); });
  }
}

TieredChunkStore::~TieredChunkStore() {
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<PinnedBytes> TieredChunkStore::ReadSegment(const ChunkId& id, uint32_t level) {
  const absl::StatusOr<SegmentVersion> version = below_->Version(id, level);
  if (!version.ok()) return version.status();
  const ChunkId name = TierName(id, level, *version);
  absl::StatusOr<PinnedBytes> kept = tier_->ReadSegment(name, 0);
  const bool hit = kept.ok() && kept->bytes().size() == version->bytes;
  {
    absl::MutexLock lock(&mutex_);
    ++(hit ? counters_.hits : counters_.misses);
    if (!kept.ok() && !absl::IsNotFound(kept.status())) ++counters_.errors;
  }
  if (hit) {
    tier_->Touch({name});
    return kept;
  }
  absl::StatusOr<PinnedBytes> read = below_->ReadSegment(id, level);
  if (!read.ok()) return read;
  const absl::string_view bytes = read->bytes();
  auto shared = std::make_shared<const PinnedBytes>(*std::move(read));
  const bool damaged = kept.ok() || absl::IsDataLoss(kept.status());
  Enqueue({name, TierInfo(level, *version), version->hash, shared, damaged});
  return PinnedBytes(bytes, [shared = std::move(shared)]() mutable { shared.reset(); });
}

absl::optional<absl::StatusOr<PinnedBytes>> TieredChunkStore::TryReadSegment(const ChunkId& id,
                                                                             uint32_t level) {
  const absl::optional<SegmentVersion> version = below_->TryVersion(id, level);
  if (!version.has_value()) return absl::nullopt;
  const ChunkId name = TierName(id, level, *version);
  absl::optional<absl::StatusOr<PinnedBytes>> kept = tier_->TryReadSegment(name, 0);
  // Whatever is wrong with the tier, there is the store below.
  if (!kept.has_value() || !kept->ok() || (*kept)->bytes().size() != version->bytes) {
    return absl::nullopt;
  }
  tier_->Touch({name});
  absl::MutexLock lock(&mutex_);
  ++counters_.hits;
  return kept;
}

void TieredChunkStore::Enqueue(Fill fill) {
  const uint64_t bytes = fill.bytes->bytes().size();
  absl::MutexLock lock(&mutex_);
  if (bytes > options_.fill_bytes - std::min(options_.fill_bytes, filling_bytes_)) {
    ++counters_.dropped;
    return;
  }
  filling_bytes_ += bytes;
  queue_.push_back(std::move(fill));
}

void TieredChunkStore::FillUntilClosed() {
  for (;;) {
    Fill fill;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &TieredChunkStore::HasWork));
      if (closing_) return;
      fill = std::move(queue_.front());
      queue_.pop_front();
      ++filling_;
    }
    const absl::string_view bytes = fill.bytes->bytes();
    const uint64_t count = bytes.size();
    // Between the question for the version and the read the chunk may have been replaced.
    const bool same =
        count == fill.info.segment_bytes[0] && XXH3_64bits(bytes.data(), bytes.size()) == fill.hash;
    // Or a Put would leave as it is what every load must then pass over.
    if (same && fill.damaged) tier_->Discard({fill.name}).IgnoreError();
    const bool kept = same && tier_->Put(fill.name, fill.info, {bytes}).ok();
    fill.bytes.reset();
    absl::MutexLock lock(&mutex_);
    ++(kept ? counters_.fills : counters_.dropped);
    filling_bytes_ -= count;
    --filling_;
  }
}

absl::StatusOr<StoreStats> TieredChunkStore::Stats() {
  absl::StatusOr<StoreStats> stats = below_->Stats();
  if (!stats.ok()) return stats;
  if (const absl::StatusOr<StoreStats> tier = tier_->Stats(); tier.ok()) {
    stats->disk_bytes = tier->disk_bytes;
    stats->capacity_bytes = tier->capacity_bytes;
    stats->evicted_segments = tier->evicted_segments;
    stats->evicted_bytes = tier->evicted_bytes;
    stats->evicted_chunks = tier->evicted_chunks;
    stats->damaged_files = tier->damaged_files;
  }
  return stats;
}

TierCounters TieredChunkStore::counters() const {
  absl::MutexLock lock(&mutex_);
  return counters_;
}

void TieredChunkStore::AwaitFills() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &TieredChunkStore::IsIdle));
}

}  // namespace kvstream

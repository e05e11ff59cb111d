#include "storage/tenant_view.h"

#include <openssl/sha.h>

#include <algorithm>
#include <set>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "storage/chunk_limits.h"
#include "storage/id_text.h"

namespace kvstream {
namespace {

// One tag for each kind of id, so that none of one kind can be made to meet one of another. The
// number is the version of the scheme.
constexpr absl::string_view kChunkTag = "kvstream tenant chunk 1";
constexpr absl::string_view kProfileTag = "kvstream tenant profile 1";
constexpr absl::string_view kSlotTag = "kvstream tenant profile slot 1";

// Ids of one question of LongestPrefix: starts small, since most chains that are not stored miss at
// once.
constexpr size_t kFirstPrefixBatch = 64;
constexpr size_t kLastPrefixBatch = 4096;

// Pins of one question of ListPins.
constexpr size_t kPinsPage = 1000;

constexpr size_t kSlotBytes = sizeof(StoredProfileId) + sizeof(uint64_t);

// SHA-256 of: tag; size of the tenant's name, 1 byte; name; `rest`. No tag begins another, so
// different arguments are different messages.
ChunkId Hash(absl::string_view tag, absl::string_view tenant, absl::string_view rest) {
  const char size = static_cast<char>(tenant.size());
  const std::string message = absl::StrCat(tag, absl::string_view(&size, 1), tenant, rest);
  ChunkId id;
  SHA256(reinterpret_cast<const unsigned char*>(message.data()), message.size(), id.data());
  return id;
}

absl::string_view View(const ChunkId& id) {
  return {reinterpret_cast<const char*>(id.data()), id.size()};
}

std::string LittleEndian(uint64_t value, size_t bytes) {
  std::string out;
  for (size_t i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

// The inner store names ids that the caller has never seen.
absl::Status Naming(absl::string_view operation, const ChunkId& id, const absl::Status& status) {
  if (status.ok()) return status;
  if (absl::IsNotFound(status)) {
    return absl::NotFoundError(
        absl::StrCat(operation, " of chunk ", ShortHex(id), ": the chunk or level is not stored"));
  }
  return absl::Status(status.code(),
                      absl::StrCat(operation, " of chunk ", ShortHex(id), ": ", status.message()));
}

}  // namespace

class TenantView::Reservation {
 public:
  Reservation() = default;
  ~Reservation() {
    if (view_ == nullptr) return;
    absl::MutexLock lock(&view_->mutex_);
    view_->reserved_bytes_ -= bytes_;
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  void Hold(TenantView* view, uint64_t bytes) {
    view_ = view;
    bytes_ = bytes;
  }

 private:
  TenantView* view_ = nullptr;
  uint64_t bytes_ = 0;
};

absl::StatusOr<std::unique_ptr<TenantView>> TenantView::Create(ChunkStore* store,
                                                               TenantViewOptions options) {
  if (options.tenant.empty() || options.tenant.size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a tenant's name has 1 to ", kMaxTenantBytes,
                                                   " bytes, not ", options.tenant.size()));
  }
  if (options.quota_bytes > 0) {
    const absl::StatusOr<TenantUse> use = store->GetTenantUse(options.tenant);
    if (!use.ok()) return use.status();
  }
  return absl::WrapUnique(new TenantView(store, std::move(options)));
}

absl::Status TenantView::SetLimits(const TenantViewOptions& options) {
  if (options.quota_bytes > 0) {
    const absl::StatusOr<TenantUse> use = store_->GetTenantUse(options_.tenant);
    if (!use.ok()) return use.status();
  }
  quota_bytes_.store(options.quota_bytes, std::memory_order_relaxed);
  pin_bytes_max_.store(options.pin_bytes_max, std::memory_order_relaxed);
  pins_max_.store(options.pins_max, std::memory_order_relaxed);
  return absl::OkStatus();
}

ChunkId TenantView::StoredId(absl::string_view tenant, const ChunkId& id) {
  return Hash(kChunkTag, tenant, View(id));
}

StoredProfileId TenantView::StoredProfile(absl::string_view tenant, const StoredProfileId& id) {
  return Hash(kProfileTag, tenant, View(id));
}

StoredProfileId TenantView::SlotId(uint32_t number) const {
  return Hash(kSlotTag, options_.tenant, LittleEndian(number, sizeof(number)));
}

std::vector<ChunkId> TenantView::Stored(absl::Span<const ChunkId> ids) const {
  std::vector<ChunkId> stored;
  stored.reserve(ids.size());
  for (const ChunkId& id : ids) stored.push_back(Stored(id));
  return stored;
}

absl::optional<ChunkInfo> TenantView::Outer(ChunkInfo info) const {
  if (info.tenant != options_.tenant || !info.outer_id.has_value()) return absl::nullopt;
  info.parent = info.outer_parent;
  info.tenant.clear();
  info.outer_id.reset();
  info.outer_parent.reset();
  return info;
}

absl::StatusOr<uint64_t> TenantView::UsedBytes() {
  const absl::StatusOr<TenantUse> use = store_->GetTenantUse(options_.tenant);
  if (!use.ok()) return use.status();
  const absl::StatusOr<std::vector<Slot>> slots = Slots();
  if (!slots.ok()) return slots.status();
  uint64_t bytes = use->payload_bytes;
  for (const Slot& slot : *slots) bytes += slot.bytes;
  return bytes;
}

absl::Status TenantView::Reserve(uint64_t bytes, absl::string_view what, Reservation* reservation) {
  const uint64_t quota_bytes = this->quota_bytes();
  if (quota_bytes == 0) return absl::OkStatus();
  // Before the lock: may read profiles of other processes, and ask a cluster; it knows the answer
  // for a while.
  if (const absl::StatusOr<std::vector<Slot>> slots = Slots(); !slots.ok()) return slots.status();
  if (const auto use = store_->GetTenantUse(options_.tenant); !use.ok()) return use.status();
  uint64_t used_bytes = 0;
  {
    absl::MutexLock lock(&mutex_);
    // What has been put is counted before its reservation ends: under this lock every write is in
    // one sum or, for a moment, in both.
    const absl::StatusOr<TenantUse> use = store_->GetTenantUse(options_.tenant);
    if (!use.ok()) return use.status();
    used_bytes = use->payload_bytes;
    for (const Slot& slot : slots_) used_bytes += slot.bytes;
    const uint64_t taken_bytes = used_bytes + reserved_bytes_;
    if (taken_bytes <= quota_bytes && bytes <= quota_bytes - taken_bytes) {
      reserved_bytes_ += bytes;
      reservation->Hold(this, bytes);
      return absl::OkStatus();
    }
  }
  refused_.fetch_add(1, std::memory_order_relaxed);
  return absl::ResourceExhaustedError(absl::StrCat(
      what, ": ", bytes, " bytes do not fit the quota of tenant ", options_.tenant, ": it has ",
      used_bytes, " of ", quota_bytes, " bytes; delete chunks or ask for a larger quota"));
}

absl::StatusOr<bool> TenantView::Put(const ChunkId& id, const ChunkInfo& info,
                                     absl::Span<const absl::string_view> segments) {
  if (absl::Status status = ValidateChunk(id, info, segments); !status.ok()) return status;
  const std::string what = absl::StrCat("Put of chunk ", ShortHex(id));
  if (!info.tenant.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": names a tenant; the store does that"));
  }
  const ChunkId stored_id = Stored(id);
  uint64_t bytes = PayloadBytes(info);
  ChunkInfo stored = info;
  stored.tenant = options_.tenant;
  stored.outer_id = id;
  stored.outer_parent = info.parent;
  if (info.parent.has_value()) stored.parent = Stored(*info.parent);

  Reservation reservation;
  if (quota_bytes() > 0) {
    const auto before = store_->GetInfos({&stored_id, 1});
    if (!before.ok()) return Naming("Put", id, before.status());
    if (before->front().has_value()) {
      const ChunkInfo& there = *before->front();
      bytes = RestoresLevels(there, stored) ? bytes - PayloadBytes(there) : 0;
    }
    if (bytes > 0) {
      if (absl::Status status = Reserve(bytes, what, &reservation); !status.ok()) return status;
    }
  }
  const absl::StatusOr<bool> put = store_->Put(stored_id, stored, segments);
  if (!put.ok()) return Naming("Put", id, put.status());
  return put;
}

absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> TenantView::GetInfos(
    absl::Span<const ChunkId> ids) {
  absl::StatusOr<std::vector<absl::optional<ChunkInfo>>> infos = store_->GetInfos(Stored(ids));
  if (!infos.ok()) return infos;
  for (absl::optional<ChunkInfo>& info : *infos) {
    if (info.has_value()) info = Outer(*std::move(info));
  }
  return infos;
}

absl::StatusOr<size_t> TenantView::LongestPrefix(absl::Span<const ChunkId> ids) {
  size_t length = 0;
  for (size_t batch = kFirstPrefixBatch; length < ids.size();
       batch = std::min(4 * batch, kLastPrefixBatch)) {
    const std::vector<ChunkId> asked = Stored(ids.subspan(length, batch));
    const absl::StatusOr<size_t> of_batch = store_->LongestPrefix(asked);
    if (!of_batch.ok()) return of_batch;
    length += *of_batch;
    if (*of_batch < asked.size()) break;
  }
  return length;
}

absl::StatusOr<PinnedBytes> TenantView::ReadSegment(const ChunkId& id, uint32_t level) {
  absl::StatusOr<PinnedBytes> pinned = store_->ReadSegment(Stored(id), level);
  if (!pinned.ok()) return Naming("ReadSegment", id, pinned.status());
  return pinned;
}

absl::optional<absl::StatusOr<PinnedBytes>> TenantView::TryReadSegment(const ChunkId& id,
                                                                       uint32_t level) {
  absl::optional<absl::StatusOr<PinnedBytes>> pinned = store_->TryReadSegment(Stored(id), level);
  if (pinned.has_value() && !pinned->ok()) {
    return absl::StatusOr<PinnedBytes>(Naming("ReadSegment", id, pinned->status()));
  }
  return pinned;
}

absl::StatusOr<size_t> TenantView::Delete(absl::Span<const ChunkId> ids) {
  return store_->Delete(Stored(ids));
}

absl::StatusOr<size_t> TenantView::Trim(absl::Span<const ChunkId> ids, uint32_t keep_levels) {
  return store_->Trim(Stored(ids), keep_levels);
}

ChunkHold TenantView::Hold(absl::Span<const ChunkId> ids) { return store_->Hold(Stored(ids)); }

void TenantView::Touch(absl::Span<const ChunkId> ids) { store_->Touch(Stored(ids)); }

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> TenantView::List(
    const absl::optional<ChunkId>& after, size_t limit) {
  std::vector<std::pair<ChunkId, ChunkInfo>> listed;
  absl::optional<ChunkId> from;
  if (after.has_value()) from = Stored(*after);
  while (listed.size() < limit) {
    auto page = store_->ListTenant(options_.tenant, from, limit - listed.size());
    if (!page.ok()) return page.status();
    if (page->empty()) break;
    from = page->back().first;
    for (auto& [id, info] : *page) {
      const absl::optional<ChunkId> outer_id = info.outer_id;
      absl::optional<ChunkInfo> outer = Outer(std::move(info));
      if (outer.has_value()) listed.emplace_back(*outer_id, *std::move(outer));
    }
  }
  return listed;
}

absl::StatusOr<std::vector<std::pair<ChunkId, ChunkInfo>>> TenantView::ListTenant(
    absl::string_view tenant, const absl::optional<ChunkId>& after, size_t limit) {
  if (!tenant.empty()) return std::vector<std::pair<ChunkId, ChunkInfo>>();
  return List(after, limit);
}

absl::StatusOr<size_t> TenantView::Renew(absl::Span<const ChunkId> ids, absl::Time expires) {
  return store_->Renew(Stored(ids), expires);
}

absl::StatusOr<size_t> TenantView::Pin(absl::Span<const ChunkId> ids, absl::string_view owner,
                                       absl::Time until) {
  std::vector<ChunkId> stored_ids = Stored(ids);
  const uint64_t bytes_max = pin_bytes_max_.load(std::memory_order_relaxed);
  const uint64_t pins_max = pins_max_.load(std::memory_order_relaxed);
  if ((bytes_max == 0 && pins_max == 0) ||
      absl::IsUnimplemented(store_->GetTenantUse(options_.tenant).status())) {
    return store_->Pin(stored_ids, owner, until);
  }
  const absl::StatusOr<TenantUse> added = NewPins(stored_ids, owner);
  if (!added.ok()) return added.status();
  {
    absl::MutexLock lock(&mutex_);
    const absl::StatusOr<TenantUse> use = store_->GetTenantUse(options_.tenant);
    if (!use.ok()) return use.status();
    const uint64_t bytes = use->pinned_bytes + reserved_pin_bytes_ + added->pinned_bytes;
    const uint64_t pins = use->pins + reserved_pins_ + added->pins;
    const bool too_many = pins_max > 0 && added->pins > 0 && pins > pins_max;
    if (too_many || (bytes_max > 0 && added->pinned_bytes > 0 && bytes > bytes_max)) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "Pin: tenant ", options_.tenant, " would have ", pins, " pins of ", bytes,
          " bytes; its limits are ", pins_max, " and ", bytes_max, ": end other pins first"));
    }
    reserved_pin_bytes_ += added->pinned_bytes;
    reserved_pins_ += added->pins;
  }
  const absl::StatusOr<size_t> pinned = store_->Pin(stored_ids, owner, until);
  absl::MutexLock lock(&mutex_);
  reserved_pin_bytes_ -= added->pinned_bytes;
  reserved_pins_ -= added->pins;
  return pinned;
}

absl::StatusOr<TenantUse> TenantView::NewPins(const std::vector<ChunkId>& stored_ids,
                                              absl::string_view owner) {
  const std::set<ChunkId> once(stored_ids.begin(), stored_ids.end());
  const std::vector<ChunkId> ids(once.begin(), once.end());
  const auto infos = store_->GetInfos(ids);
  if (!infos.ok()) return infos.status();
  const absl::StatusOr<std::vector<ChunkPin>> pins = store_->PinsOf(ids);
  if (!pins.ok()) return pins.status();
  std::set<ChunkId> pinned, by_owner;
  for (const ChunkPin& pin : *pins) {
    pinned.insert(pin.id);
    if (pin.owner == owner) by_owner.insert(pin.id);
  }
  TenantUse added;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!(*infos)[i].has_value()) continue;
    if (pinned.count(ids[i]) == 0) added.pinned_bytes += PayloadBytes(*(*infos)[i]);
    if (by_owner.count(ids[i]) == 0) ++added.pins;
  }
  return added;
}

absl::StatusOr<size_t> TenantView::Unpin(absl::Span<const ChunkId> ids,
                                         const absl::optional<std::string>& owner) {
  return store_->Unpin(Stored(ids), owner);
}

absl::StatusOr<std::vector<ChunkPin>> TenantView::Outer(std::vector<ChunkPin> pins) {
  std::vector<ChunkId> ids;
  ids.reserve(pins.size());
  for (const ChunkPin& pin : pins) ids.push_back(pin.id);
  const auto infos = store_->GetInfos(ids);
  if (!infos.ok()) return infos.status();
  std::vector<ChunkPin> own;
  for (size_t i = 0; i < pins.size(); ++i) {
    const absl::optional<ChunkInfo>& info = (*infos)[i];
    if (!info.has_value() || info->tenant != options_.tenant || !info->outer_id) continue;
    pins[i].id = *info->outer_id;
    own.push_back(std::move(pins[i]));
  }
  return own;
}

absl::StatusOr<std::vector<ChunkPin>> TenantView::PinsPage(const absl::optional<ChunkPin>& after,
                                                           size_t limit) {
  absl::StatusOr<std::vector<ChunkPin>> page =
      store_->ListTenantPins(options_.tenant, after, limit);
  if (!absl::IsUnimplemented(page.status())) return page;
  return store_->ListPins(after, limit);
}

absl::StatusOr<std::vector<ChunkPin>> TenantView::ListPins(const absl::optional<ChunkPin>& after,
                                                           size_t limit) {
  std::vector<ChunkPin> listed;
  absl::optional<ChunkPin> from = after;
  if (from.has_value()) from->id = Stored(from->id);
  while (listed.size() < limit) {
    absl::StatusOr<std::vector<ChunkPin>> page =
        PinsPage(from, std::min(limit - listed.size(), kPinsPage));
    if (!page.ok()) return page.status();
    if (page->empty()) break;
    from = page->back();
    const absl::StatusOr<std::vector<ChunkPin>> own = Outer(*std::move(page));
    if (!own.ok()) return own.status();
    listed.insert(listed.end(), own->begin(), own->end());
  }
  return listed;
}

absl::StatusOr<std::vector<ChunkPin>> TenantView::PinsOf(absl::Span<const ChunkId> ids) {
  absl::StatusOr<std::vector<ChunkPin>> pins = store_->PinsOf(Stored(ids));
  if (!pins.ok()) return pins.status();
  return Outer(*std::move(pins));
}

absl::StatusOr<size_t> TenantView::DeleteSoon(absl::Span<const ChunkId> ids) {
  return store_->DeleteSoon(Stored(ids));
}

absl::StatusOr<std::vector<ChunkId>> TenantView::Children(const ChunkId& id, size_t limit) {
  const absl::StatusOr<std::vector<ChunkId>> children = store_->Children(Stored(id), limit);
  if (!children.ok()) return children.status();
  const auto infos = store_->GetInfos(*children);
  if (!infos.ok()) return infos.status();
  std::vector<ChunkId> outer;
  for (const absl::optional<ChunkInfo>& info : *infos) {
    if (!info.has_value() || info->tenant != options_.tenant || !info->outer_id) continue;
    outer.push_back(*info->outer_id);
  }
  return outer;
}

absl::StatusOr<PinnedBytes> TenantView::ScrubSegment(const ChunkId& id, uint32_t level) {
  absl::StatusOr<PinnedBytes> pinned = store_->ScrubSegment(Stored(id), level);
  if (!pinned.ok()) return Naming("ScrubSegment", id, pinned.status());
  return pinned;
}

absl::StatusOr<size_t> TenantView::Discard(absl::Span<const ChunkId> ids) {
  return store_->Discard(Stored(ids));
}

absl::StatusOr<std::vector<TenantView::Slot>> TenantView::Slots() {
  while (true) {
    uint32_t number = 0;
    {
      absl::MutexLock lock(&mutex_);
      number = static_cast<uint32_t>(slots_.size());
      if (number == kMaxProfiles) return slots_;
    }
    const absl::StatusOr<std::string> bytes = store_->GetProfile(SlotId(number));
    if (bytes.ok() && bytes->size() != kSlotBytes) {
      return absl::DataLossError(absl::StrCat("profile slot ", number, " of tenant ",
                                              options_.tenant, " has ", bytes->size(), " bytes"));
    }
    if (!bytes.ok() && !absl::IsNotFound(bytes.status())) return bytes.status();
    absl::MutexLock lock(&mutex_);
    if (slots_.size() != number) continue;  // another thread was faster
    if (!bytes.ok()) return slots_;
    Slot slot;
    std::copy_n(bytes->begin(), slot.id.size(), slot.id.begin());
    for (size_t i = 0; i < sizeof(uint64_t); ++i) {
      slot.bytes |= uint64_t{static_cast<uint8_t>((*bytes)[slot.id.size() + i])} << (8 * i);
    }
    slots_.push_back(slot);
  }
}

absl::Status TenantView::TakeSlot(const StoredProfileId& id, uint64_t bytes) {
  while (true) {
    const absl::StatusOr<std::vector<Slot>> slots = Slots();
    if (!slots.ok()) return slots.status();
    if (std::any_of(slots->begin(), slots->end(),
                    [&id](const Slot& slot) { return slot.id == id; })) {
      return absl::OkStatus();
    }
    if (slots->size() == kMaxProfiles) {
      return absl::ResourceExhaustedError(absl::StrCat("PutProfile of profile ", ShortHex(id),
                                                       ": tenant ", options_.tenant, " has ",
                                                       kMaxProfiles, " profiles, the most"));
    }
    const auto number = static_cast<uint32_t>(slots->size());
    const absl::StatusOr<bool> taken = store_->PutProfile(
        SlotId(number), absl::StrCat(View(id), LittleEndian(bytes, sizeof(bytes))));
    if (!taken.ok()) return taken.status();
    // Whoever took it, the next round reads whose it is.
  }
}

absl::StatusOr<bool> TenantView::PutProfile(const StoredProfileId& id, absl::string_view bytes) {
  if (absl::Status status = ValidateProfile(id, bytes); !status.ok()) return status;
  const absl::StatusOr<std::vector<Slot>> slots = Slots();
  if (!slots.ok()) return slots.status();
  Reservation reservation;
  if (std::none_of(slots->begin(), slots->end(),
                   [&id](const Slot& slot) { return slot.id == id; })) {
    const std::string what = absl::StrCat("PutProfile of profile ", ShortHex(id));
    if (absl::Status status = Reserve(bytes.size(), what, &reservation); !status.ok()) {
      return status;
    }
    if (absl::Status status = TakeSlot(id, bytes.size()); !status.ok()) return status;
  }
  return store_->PutProfile(StoredProfile(options_.tenant, id), bytes);
}

absl::StatusOr<std::string> TenantView::GetProfile(const StoredProfileId& id) {
  absl::StatusOr<std::string> bytes = store_->GetProfile(StoredProfile(options_.tenant, id));
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(
        absl::StrCat("GetProfile of profile ", ShortHex(id), ": the profile is not stored"));
  }
  return bytes;
}

absl::StatusOr<std::vector<StoredProfileId>> TenantView::ListProfiles() {
  const absl::StatusOr<std::vector<Slot>> slots = Slots();
  if (!slots.ok()) return slots.status();
  std::vector<StoredProfileId> ids;
  ids.reserve(slots->size());
  for (const Slot& slot : *slots) ids.push_back(slot.id);
  return ids;
}

absl::StatusOr<StoreStats> TenantView::Stats() {
  const absl::StatusOr<TenantUse> use = store_->GetTenantUse(options_.tenant);
  if (!use.ok()) return use.status();
  StoreStats stats;
  stats.chunks = use->chunks;
  stats.payload_bytes = use->payload_bytes;
  stats.capacity_bytes = quota_bytes();
  return stats;
}

}  // namespace kvstream

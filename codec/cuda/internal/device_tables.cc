#include "codec/cuda/internal/device_tables.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "codec/level_coder.h"

namespace kvstream {
namespace cuda {
namespace {

// Transforms are packed and copied in runs of rows of this size, so that the host needs no second
// copy of them.
constexpr size_t kUploadBytes = size_t{32} << 20;

BaseTableDev PackBaseTable(const BaseTable& table) {
  BaseTableDev out = {};
  out.max_symbol = table.max_symbol;
  out.shift = table.shift;
  uint32_t start = 0;
  for (size_t i = 0; i < table.frequency.size(); ++i) {
    out.entry[i] = table.frequency[i] | start << 16;
    std::fill(out.symbol + start, out.symbol + start + table.frequency[i], static_cast<uint8_t>(i));
    start += table.frequency[i];
  }
  return out;
}

RefineTableDev PackRefineTable(const RefineTable& table) {
  RefineTableDev out = {};
  for (int context = 0; context < kRefineContexts; ++context) {
    for (int i = 0; i < 3; ++i) out.frequency[context][i] = table.frequency[context][i];
  }
  return out;
}

}  // namespace

void MakeFullOrder(const ProfileData& profile, int level, const std::vector<uint8_t>& classes,
                   FullOrder* out) {
  CodingOrder(profile, level, classes, &out->order);
  out->coded = static_cast<int32_t>(out->order.size());
  for (size_t i = 0; i < classes.size(); ++i) {
    if (profile.tables.Null(level, classes[i])) out->order.push_back(static_cast<int32_t>(i));
  }
}

int64_t ReachOfClasses(const ProfileData& profile, const std::vector<uint8_t>& classes) {
  int64_t reach = 0;
  for (uint8_t klass : classes) {
    const BaseTable& table = profile.tables.base[klass];
    reach = std::max<int64_t>(reach, (int64_t{table.max_symbol} + 1) << table.shift);
  }
  return reach;
}

absl::StatusOr<std::shared_ptr<const DeviceTables>> DeviceTables::Create(
    std::shared_ptr<Backend> backend, std::shared_ptr<const Profile> profile,
    const DeviceShard& shard) {
  if (profile == nullptr) return absl::InvalidArgumentError("profile is null");
  absl::StatusOr<ShardLayout> layout = MakeShardLayout(profile->data(), shard);
  if (!layout.ok()) return layout.status();
  std::shared_ptr<DeviceTables> out(new DeviceTables);
  out->backend_ = std::move(backend);
  out->profile_ = std::move(profile);
  out->layout_ = *std::move(layout);
  const DeviceScope scope(*out->backend_);
  absl::Status status = out->Fill();
  if (!status.ok()) return status;
  return std::shared_ptr<const DeviceTables>(std::move(out));
}

absl::Status DeviceTables::Fill() {
  const ProfileData& data = profile_->data();
  const ClassTables& tables = data.tables;
  absl::Status status;
  // Copies a vector to the device; the first error stays in `status`.
  const auto put = [&](const auto& values) {
    using T = typename std::decay<decltype(values[0])>::type;
    T* out = nullptr;
    if (!status.ok()) return out;
    memory_.emplace_back();
    const size_t bytes = values.size() * sizeof(T);
    status = memory_.back().Allocate(backend_, Memory::Kind::kDevice, bytes);
    if (!status.ok()) return out;
    out = memory_.back().template as<T>();
    // Pageable memory on the default stream: the copy has left `values` when this returns.
    status = backend_->Upload(out, values.data(), bytes, nullptr);
    if (status.ok()) status = backend_->Synchronize(nullptr);
    return out;
  };
  std::vector<BaseTableDev> base;
  for (const BaseTable& table : tables.base) base.push_back(PackBaseTable(table));
  std::vector<RefineTableDev> refine;
  for (const RefineTable& table : tables.refine) refine.push_back(PackRefineTable(table));
  std::vector<ShrinkDev> shrink;
  for (const Shrink& value : tables.shrink) shrink.push_back({value[0], value[1]});

  device_.base = put(base);
  device_.refine = put(refine);
  device_.shrink = put(shrink);
  device_.groups = put(layout_.groups);
  device_.slots = put(layout_.slots);
  device_.tile_group = put(layout_.tile_group);
  device_.mean = put(data.mean);
  device_.unit = put(data.unit);
  device_.inverse_frequency = put(data.geometry.rope.inverse_frequency);
  const uint8_t* const classes = put(data.classes);
  reach_ = ReachOfClasses(data, data.classes);
  for (int level = 0; level < data.levels; ++level) {
    FullOrder full;
    MakeFullOrder(data, level, data.classes, &full);
    levels_.push_back({put(full.order), classes});
    coded_.push_back(full.coded);
  }
  if (!status.ok()) return status;

  memory_.emplace_back();
  status = memory_.back().Allocate(backend_, Memory::Kind::kDevice, layout_.matrix_halves * 2);
  if (!status.ok()) return status;
  status = UploadMatrices(memory_.back().as<uint16_t>());
  if (!status.ok()) return status;
  device_.matrices = memory_.back().as<uint16_t>();

  device_.attention_factor = data.geometry.rope.attention_factor;
  device_.classes = tables.classes;
  device_.coordinates = data.coordinates;
  device_.channels = data.channels();
  device_.group_count = static_cast<int32_t>(layout_.groups.size());
  device_.slot_count = static_cast<int32_t>(layout_.slots.size());
  device_.pairs = data.geometry.rope.layout == RopeParameters::Layout::kNone
                      ? 0
                      : static_cast<int32_t>(data.geometry.rope.inverse_frequency.size());
  device_.planes = layout_.planes;
  device_.dtype = static_cast<int32_t>(data.geometry.dtype);
  return absl::OkStatus();
}

absl::Status DeviceTables::UploadMatrices(uint16_t* to_dev) {
  if (!data().calibrated) return absl::OkStatus();
  for (size_t group = 0; group < layout_.groups.size(); ++group) {
    const GroupDev& packed = layout_.groups[group];
    if (packed.slots == 0) continue;
    const int run = static_cast<int>(
        std::max<size_t>(1, kUploadBytes / (static_cast<size_t>(packed.slots) * 2)));
    for (int row = 0; row < packed.rank; row += run) {
      const int count = std::min(run, packed.rank - row);
      const std::vector<uint16_t> rows =
          PackRows(data(), layout_, static_cast<int>(group), row, count);
      absl::Status status = backend_->Upload(
          to_dev + packed.matrix_offset + static_cast<uint64_t>(row) * packed.slots, rows.data(),
          rows.size() * 2, nullptr);
      if (status.ok()) status = backend_->Synchronize(nullptr);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

int64_t DeviceTables::bytes() const {
  int64_t bytes = 0;
  for (const Memory& memory : memory_) bytes += static_cast<int64_t>(memory.bytes());
  return bytes;
}

}  // namespace cuda
}  // namespace kvstream

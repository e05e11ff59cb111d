#include "codec/profile.h"

#include <openssl/sha.h>
#include <xxhash.h>

#include <cmath>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/float16.h"
#include "codec/format.h"
#include "codec/profile_data.h"
#include "codec/quantize.h"

namespace kvstream {
namespace {

constexpr float kUnitMin = 1e-12f;
constexpr float kUnitMax = 1e12f;
constexpr float kMeanMax = 1e6f;
// Rows are orthonormal up to rounding, so that no entry exceeds 1 by more than that.
constexpr float kMatrixEntryMax = 1.01f;

template <typename... T>
absl::Status Invalid(const T&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("profile: ", parts...));
}

// Fixed part of the header, in the order of docs/format.md.
absl::Status ParseHeader(ByteReader& in, uint16_t version, ProfileData& data) {
  KvGeometry& geometry = data.geometry;
  const uint32_t layers = in.Read<uint32_t>();
  const uint32_t kv_heads = in.Read<uint32_t>();
  const uint32_t head_size = in.Read<uint32_t>();
  const uint8_t dtype = in.Read<uint8_t>();
  const uint8_t layout = in.Read<uint8_t>();
  const uint16_t pairs = in.Read<uint16_t>();
  geometry.rope.attention_factor = in.Read<double>();
  for (int i = 0; i < pairs && in.ok(); ++i)
    geometry.rope.inverse_frequency.push_back(in.Read<double>());
  const uint16_t planes = version >= 2 ? in.Read<uint16_t>() : 2;
  const uint16_t rotary_offset = version >= 2 ? in.Read<uint16_t>() : 0;
  if (!in.ok()) return Invalid("truncated in the geometry");
  if (layers > (1u << 20) || kv_heads > (1u << 20) || head_size > (1u << 20))
    return Invalid("a dimension of the geometry is out of range");
  geometry.layers = static_cast<int>(layers);
  geometry.kv_heads = static_cast<int>(kv_heads);
  geometry.head_size = static_cast<int>(head_size);
  geometry.planes = planes;
  geometry.rope.rotary_offset = rotary_offset;
  if (dtype > 1) return Invalid("dtype is ", dtype, ", must be 0 or 1");
  geometry.dtype = static_cast<KvDtype>(dtype);
  if (layout > 2) return Invalid("rope layout is ", layout, ", must be 0 to 2");
  geometry.rope.layout = static_cast<RopeParameters::Layout>(layout);
  absl::Status status = geometry.Validate();
  if (!status.ok()) return Invalid(status.message());
  if (geometry.values_per_token() > kMaxChannels) {
    return Invalid("a token has ", geometry.values_per_token(), " values, at most ", kMaxChannels,
                   " are supported");
  }

  data.chunk_tokens = static_cast<int>(in.Read<uint16_t>());
  data.sink_tokens = static_cast<int>(in.Read<uint16_t>());
  data.levels = in.Read<uint8_t>();
  const uint8_t group_kind = in.Read<uint8_t>();
  data.group_layers = in.Read<uint16_t>();
  if (!in.ok()) return Invalid("truncated in the header");
  if (data.chunk_tokens < 1 || data.chunk_tokens > kMaxChunkTokens)
    return Invalid("chunk_tokens is ", data.chunk_tokens, ", must be 1 to ", kMaxChunkTokens);
  if (data.sink_tokens > kMaxSinkTokens)
    return Invalid("sink_tokens is ", data.sink_tokens, ", must be at most ", kMaxSinkTokens);
  if (data.levels < 1 || data.levels > kMaxLevels)
    return Invalid("levels is ", data.levels, ", must be 1 to ", kMaxLevels);
  if (group_kind > 3) return Invalid("group kind is ", group_kind, ", must be 0 to 3");
  data.group_kind = static_cast<GroupKind>(group_kind);
  data.calibrated = data.group_kind != GroupKind::kNone;
  for (int level = 0; level < data.levels; ++level) {
    const double step = in.Read<double>();
    if (!(step > 1e-6 && step < 1e6)) return Invalid("step of level ", level, " is out of range");
    if (level > 0 && std::abs(step * 3 / data.steps.back() - 1) > 1e-6)
      return Invalid("step of level ", level, " is not a third of the one before");
    data.steps.push_back(step);
  }
  return in.ok() ? absl::OkStatus() : Invalid("truncated in the steps");
}

absl::Status ParseReferences(ByteReader& in, ProfileData& data) {
  data.references.resize(data.sink_tokens);
  for (int position = 0; position < data.sink_tokens; ++position) {
    const uint8_t present = in.Read<uint8_t>();
    if (!in.ok()) return Invalid("truncated in the reference tokens");
    if (present > 1)
      return Invalid("flag of reference token ", position, " is ", present, ", must be 0 or 1");
    if (present == 0) continue;
    const absl::string_view bytes = in.Take(uint64_t{2} * data.channels());
    if (!in.ok()) return Invalid("truncated in the reference tokens");
    data.references[position].resize(data.channels());
    std::memcpy(data.references[position].data(), bytes.data(), bytes.size());
    for (uint16_t value : data.references[position]) {
      if (!IsFinite16(value, data.geometry.dtype))
        return Invalid("reference token ", position, " has a value that is not finite");
    }
  }
  return absl::OkStatus();
}

absl::Status ParseChannels(ByteReader& in, ProfileData& data) {
  const int32_t channels = data.channels();
  const absl::string_view means = in.Take(uint64_t{4} * channels);
  const absl::string_view units = in.Take(uint64_t{4} * channels);
  if (!in.ok()) return Invalid("truncated in the channels' means and units");
  data.mean.resize(channels);
  data.unit.resize(channels);
  std::memcpy(data.mean.data(), means.data(), means.size());
  std::memcpy(data.unit.data(), units.data(), units.size());
  for (int32_t c = 0; c < channels; ++c) {
    if (!(std::abs(data.mean[c]) <= kMeanMax))
      return Invalid("mean of channel ", c, " is out of range");
    if (!(data.unit[c] >= kUnitMin && data.unit[c] <= kUnitMax))
      return Invalid("unit of channel ", c, " is out of range");
  }
  return absl::OkStatus();
}

absl::Status ParseGroups(ByteReader& in, ProfileData& data) {
  const uint32_t count = in.Read<uint32_t>();
  const int32_t channels = data.channels();
  if (!in.ok() || count < 1 || count > static_cast<uint32_t>(channels))
    return Invalid("number of groups is out of range");
  int64_t channel = 0;
  int64_t coordinate = 0;
  for (uint32_t i = 0; i < count; ++i) {
    ProfileGroup group;
    const uint32_t group_channels = in.Read<uint32_t>();
    const uint32_t rank = in.Read<uint32_t>();
    if (!in.ok()) return Invalid("truncated in the groups");
    if (group_channels < 1 || group_channels > channels - channel)
      return Invalid("group ", i, " has ", group_channels, " channels, beyond the model's");
    if (group_channels % data.geometry.head_size != 0)
      return Invalid("group ", i, " has ", group_channels, " channels, not whole heads");
    if (rank > group_channels)
      return Invalid("group ", i, " has rank ", rank, ", above its channels");
    if (!data.calibrated && rank != group_channels)
      return Invalid("group ", i, " of an identity transform must have full rank");
    group.first_channel = static_cast<int32_t>(channel);
    group.channels = static_cast<int32_t>(group_channels);
    group.rank = static_cast<int32_t>(rank);
    group.first_coordinate = static_cast<int32_t>(coordinate);
    channel += group_channels;
    coordinate += rank;
    data.groups.push_back(group);
  }
  if (channel != channels) return Invalid("groups cover ", channel, " of ", channels, " channels");
  data.coordinates = static_cast<int32_t>(coordinate);
  return absl::OkStatus();
}

absl::Status ParseTables(ByteReader& in, ProfileData& data) {
  ClassTables& tables = data.tables;
  tables.levels = data.levels;
  tables.classes = in.Read<uint8_t>();
  if (!in.ok() || tables.classes < 1) return Invalid("number of classes is out of range");
  for (int klass = 0; klass < tables.classes; ++klass) {
    BaseTable base;
    base.shift = in.Read<uint8_t>();
    base.max_symbol = in.Read<uint8_t>();
    if (base.shift > kMaxShift || base.max_symbol > kMaxBaseSymbolInTable)
      return Invalid("base table ", klass, " has a shift or alphabet out of range");
    int sum = 0;
    for (int i = 0; !base.null() && i < 2 * base.max_symbol + 1; ++i) {
      base.frequency.push_back(in.Read<uint16_t>());
      if (base.frequency.back() < 1 || base.frequency.back() >= kProbabilityScale)
        return Invalid("base table ", klass, " has a frequency out of range");
      sum += base.frequency.back();
    }
    if (!base.null() && sum != kProbabilityScale)
      return Invalid("base table ", klass, " does not sum to 4096");
    tables.base.push_back(std::move(base));
  }
  for (int i = 0; i < tables.classes * (data.levels - 1); ++i) {
    RefineTable refine;
    const uint8_t coded = in.Read<uint8_t>();
    if (!in.ok() || coded > 1) return Invalid("refinement table ", i, " has a flag out of range");
    refine.null = coded == 0;
    for (int context = 0; !refine.null && context < kRefineContexts; ++context) {
      int sum = 0;
      for (uint16_t& frequency : refine.frequency[context]) {
        frequency = in.Read<uint16_t>();
        if (frequency < 1 || frequency >= kProbabilityScale)
          return Invalid("refinement table ", i, " has a frequency out of range");
        sum += frequency;
      }
      if (sum != kProbabilityScale) return Invalid("refinement table ", i, " does not sum to 4096");
    }
    tables.refine.push_back(refine);
  }
  for (int i = 0; i < tables.classes * data.levels; ++i) {
    Shrink shrink;
    for (float& value : shrink) {
      value = in.Read<float>();
      if (!(value >= -1 && value <= 1)) return Invalid("shrink ", i, " is out of range");
    }
    tables.shrink.push_back(shrink);
  }
  if (!in.ok()) return Invalid("truncated in the tables");

  const absl::string_view classes = in.Take(data.coordinates);
  if (!in.ok()) return Invalid("truncated in the coordinates' classes");
  data.classes.assign(classes.begin(), classes.end());
  for (uint8_t klass : data.classes) {
    if (klass >= tables.classes)
      return Invalid("class of a coordinate is ", klass, ", there are ", tables.classes);
  }
  return absl::OkStatus();
}

// Offsets count from the start of the serialised bytes, of which `in` is a suffix.
absl::Status ParseMatrices(ByteReader& in, ProfileData& data) {
  if (!data.calibrated) return absl::OkStatus();
  for (ProfileGroup& group : data.groups) {
    group.matrix_offset = data.serialized.size() - kChecksumBytes - in.remaining();
    const absl::string_view bytes = in.Take(uint64_t{2} * group.rank * group.channels);
    if (!in.ok()) return Invalid("truncated in the transforms");
    for (size_t i = 0; i < bytes.size(); i += 2) {
      const float entry = FloatFromHalf(LoadLe<uint16_t>(bytes.data() + i));
      if (!(std::abs(entry) <= kMatrixEntryMax))
        return Invalid("an entry of a transform is out of range");
    }
  }
  return absl::OkStatus();
}

absl::Status ParseAll(ProfileData& data) {
  const absl::string_view bytes = data.serialized;
  ByteReader in(bytes);
  const uint32_t magic = in.Read<uint32_t>();
  const uint16_t version = in.Read<uint16_t>();
  const uint16_t reserved = in.Read<uint16_t>();
  const uint64_t size = in.Read<uint64_t>();
  if (!in.ok() || in.remaining() < kChecksumBytes)
    return Invalid("truncated, only ", bytes.size(), " bytes");
  if (magic != kProfileMagic) return Invalid("magic is wrong, this is no profile");
  if (version < 1 || version > kProfileVersion)
    return Invalid("version is ", version, ", this build reads 1 to ", kProfileVersion);
  if (reserved != 0) return Invalid("reserved field is not zero");
  if (size != bytes.size())
    return absl::DataLossError(
        absl::StrCat("profile: has ", bytes.size(), " bytes, its header says ", size));
  const size_t body = bytes.size() - kChecksumBytes;
  if (XXH3_64bits(bytes.data(), body) != LoadLe<uint64_t>(bytes.data() + body))
    return absl::DataLossError("profile: checksum does not match");

  ByteReader fields(bytes.substr(16, body - 16));
  absl::Status status = ParseHeader(fields, version, data);
  if (status.ok()) status = ParseReferences(fields, data);
  if (status.ok()) status = ParseChannels(fields, data);
  if (status.ok()) status = ParseGroups(fields, data);
  if (status.ok()) status = ParseTables(fields, data);
  if (status.ok()) status = ParseMatrices(fields, data);
  if (!status.ok()) return status;
  if (fields.remaining() != 0) return Invalid(fields.remaining(), " bytes too many");
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), data.id.data());
  return absl::OkStatus();
}

}  // namespace

std::string SerializeProfile(const ProfileFields& fields) {
  const ProfileData& data = fields.data;
  std::string out;
  AppendLe(kProfileMagic, &out);
  AppendLe(kProfileVersion, &out);
  AppendLe(uint16_t{0}, &out);
  AppendLe(uint64_t{0}, &out);  // size, known below
  const KvGeometry& geometry = data.geometry;
  AppendLe<uint32_t>(geometry.layers, &out);
  AppendLe<uint32_t>(geometry.kv_heads, &out);
  AppendLe<uint32_t>(geometry.head_size, &out);
  AppendLe<uint8_t>(static_cast<uint8_t>(geometry.dtype), &out);
  AppendLe<uint8_t>(static_cast<uint8_t>(geometry.rope.layout), &out);
  AppendLe<uint16_t>(static_cast<uint16_t>(geometry.rope.inverse_frequency.size()), &out);
  AppendLe<double>(geometry.rope.attention_factor, &out);
  for (double frequency : geometry.rope.inverse_frequency) AppendLe(frequency, &out);
  AppendLe<uint16_t>(static_cast<uint16_t>(geometry.planes), &out);
  AppendLe<uint16_t>(static_cast<uint16_t>(geometry.rope.rotary_offset), &out);
  AppendLe<uint16_t>(data.chunk_tokens, &out);
  AppendLe<uint16_t>(data.sink_tokens, &out);
  AppendLe<uint8_t>(data.levels, &out);
  AppendLe<uint8_t>(static_cast<uint8_t>(data.group_kind), &out);
  AppendLe<uint16_t>(data.group_layers, &out);
  for (double step : data.steps) AppendLe(step, &out);
  for (int position = 0; position < data.sink_tokens; ++position) {
    const bool present =
        position < static_cast<int>(data.references.size()) && !data.references[position].empty();
    AppendLe<uint8_t>(present ? 1 : 0, &out);
    if (!present) continue;
    for (uint16_t value : data.references[position]) AppendLe(value, &out);
  }
  for (float mean : data.mean) AppendLe(mean, &out);
  for (float unit : data.unit) AppendLe(unit, &out);
  AppendLe<uint32_t>(data.groups.size(), &out);
  for (const ProfileGroup& group : data.groups) {
    AppendLe<uint32_t>(group.channels, &out);
    AppendLe<uint32_t>(group.rank, &out);
  }
  AppendLe<uint8_t>(data.tables.classes, &out);
  for (const BaseTable& base : data.tables.base) {
    AppendLe(base.shift, &out);
    AppendLe(base.max_symbol, &out);
    for (uint16_t frequency : base.frequency) AppendLe(frequency, &out);
  }
  for (const RefineTable& refine : data.tables.refine) {
    AppendLe<uint8_t>(refine.null ? 0 : 1, &out);
    for (int context = 0; !refine.null && context < kRefineContexts; ++context) {
      for (uint16_t frequency : refine.frequency[context]) AppendLe(frequency, &out);
    }
  }
  for (const Shrink& shrink : data.tables.shrink) {
    for (float value : shrink) AppendLe(value, &out);
  }
  out.append(data.classes.begin(), data.classes.end());
  for (const std::vector<uint16_t>& matrix : fields.matrices) {
    out.append(reinterpret_cast<const char*>(matrix.data()), matrix.size() * 2);
  }
  StoreLe<uint64_t>(out.size() + kChecksumBytes, &out[8]);
  AppendLe<uint64_t>(XXH3_64bits(out.data(), out.size()), &out);
  return out;
}

absl::StatusOr<std::shared_ptr<const Profile>> Profile::Parse(absl::string_view bytes) {
  return ParseOwned(std::string(bytes));
}

absl::StatusOr<std::shared_ptr<const Profile>> Profile::ParseOwned(std::string bytes) {
  auto data = absl::make_unique<ProfileData>();
  data->serialized = std::move(bytes);
  absl::Status status = ParseAll(*data);
  if (!status.ok()) return status;
  return std::shared_ptr<const Profile>(new Profile(std::move(data)));
}

Profile::Profile(std::unique_ptr<const ProfileData> data) : data_(std::move(data)) {}
Profile::~Profile() = default;

const ProfileId& Profile::id() const { return data_->id; }
const std::string& Profile::serialized() const { return data_->serialized; }
const KvGeometry& Profile::geometry() const { return data_->geometry; }
int Profile::chunk_tokens() const { return data_->chunk_tokens; }
int Profile::levels() const { return data_->levels; }
double Profile::step(int level) const { return data_->steps[level]; }
int Profile::sink_tokens() const { return data_->sink_tokens; }
bool Profile::calibrated() const { return data_->calibrated; }
int Profile::groups() const { return static_cast<int>(data_->groups.size()); }
int Profile::group_channels(int group) const { return data_->groups[group].channels; }
int Profile::group_rank(int group) const { return data_->groups[group].rank; }
int64_t Profile::coordinates() const { return data_->coordinates; }

std::string Profile::group_description() const {
  switch (data_->group_kind) {
    case GroupKind::kNone:
      return "none";
    case GroupKind::kHead:
      return "head";
    case GroupKind::kLayers:
      return data_->group_layers == 1 ? "layer" : absl::StrCat(data_->group_layers, " layers");
    case GroupKind::kModel:
      return "model";
  }
  return "none";
}

}  // namespace kvstream

#include "codec/cuda/internal/decode_batch.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/exact_tokens.h"
#include "codec/float16.h"
#include "codec/quantize.h"
#include "codec/symbol_block.h"

namespace kvstream {
namespace cuda {
namespace {

// Coordinates that one warp extends at a level that does not code them.
constexpr int32_t kNullRowsOfTask = 64;
// A cell that int16 holds.
constexpr int64_t kNarrowCell = 32767;

absl::Status Damaged(int level, const char* what) {
  return absl::DataLossError(absl::StrCat("segment: level ", level, ": ", what));
}

int CodedTokens(const ParsedChunk& chunk) { return chunk.header().tokens - chunk.header().sinks; }

}  // namespace

absl::Status ParseChunk(const ProfileData& profile, absl::Span<const absl::string_view> segments,
                        ParsedChunk* out) {
  if (segments.empty() || segments.size() > static_cast<size_t>(profile.levels)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got ", segments.size(), " segments, the profile has ", profile.levels, " levels"));
  }
  out->levels.resize(segments.size());  // views keep their memory from call to call
  for (size_t level = 0; level < segments.size(); ++level) {
    absl::Status status = ParseSegmentInto(profile, segments[level], &out->levels[level]);
    if (!status.ok()) return status;
    const SegmentHeader& header = out->levels[level].header;
    if (header.level != static_cast<int>(level)) {
      return absl::InvalidArgumentError(absl::StrCat("segment: is of level ", header.level,
                                                     " where level ", level, " must stand"));
    }
    if (level > 0 &&
        (header.base_checksum != out->levels[0].checksum || header.tokens != out->header().tokens ||
         header.first_position != out->header().first_position)) {
      return absl::InvalidArgumentError(
          absl::StrCat("segment: level ", header.level, " belongs to another chunk than level 0"));
    }
  }
  return absl::OkStatus();
}

size_t DecodeBatch::StagingBytes(absl::Span<const ParsedChunk> chunks) const {
  const ProfileData& data = tables_.data();
  const size_t coordinates = static_cast<size_t>(data.coordinates);
  size_t bytes = Staging::Bytes<ChunkDev>(chunks.size()) + 1024;
  for (const ParsedChunk& chunk : chunks) {
    for (const SegmentView& segment : chunk.levels) {
      bytes += Staging::Bytes<ChunkLevelDev>(chunks.size());
      bytes += Staging::Bytes<char>(segment.payload.size());
      bytes += Staging::Bytes<ExceptionDev>(segment.exceptions.size() / 2 + 1);
      bytes += Staging::Bytes<TaskDev>(segment.blocks.size() + coordinates / kNullRowsOfTask + 2);
      bytes += Staging::Bytes<int32_t>(coordinates) + Staging::Bytes<uint8_t>(coordinates);
    }
    bytes += Staging::Bytes<uint16_t>(static_cast<size_t>(chunk.header().sinks) * data.channels());
    if (!data.calibrated) bytes += 2 * Staging::Bytes<float>(data.channels());
  }
  return bytes;
}

absl::Status DecodeBatch::ReadStatistics(const SegmentView& segment, Staging* staging,
                                         ChunkDev* out) {
  const ProfileData& data = tables_.data();
  ByteReader in(segment.statistics);
  const int32_t channels = data.channels();
  const KvGeometry& geometry = data.geometry;
  const Staging::Array<float> mean = staging->Take<float>(channels);
  const Staging::Array<float> unit = staging->Take<float>(channels);
  for (int32_t first = 0; first < channels; first += geometry.tensor_channels()) {
    float scale[2] = {1, 1};
    for (int part = 0; part < geometry.parts(); ++part) {
      scale[part] = in.Read<float>();
      if (!(scale[part] >= 1e-10f && scale[part] <= 1e10f))
        return absl::InvalidArgumentError("segment: a scale of its statistics is out of range");
    }
    for (int32_t c = 0; c < geometry.tensor_channels(); ++c)
      unit.host[first + c] = scale[geometry.PartOf(c)] * data.unit[first + c];
  }
  for (int32_t c = 0; c < channels; ++c) {
    const uint16_t bits = in.Read<uint16_t>();
    if (!IsFinite16(bits, KvDtype::kBF16))
      return absl::InvalidArgumentError("segment: a mean of its statistics is not finite");
    mean.host[c] = FloatFromBfloat(bits);
  }
  out->mean = mean.device;
  out->unit = unit.device;
  return in.ok() ? absl::OkStatus() : absl::DataLossError("segment: statistics are truncated");
}

absl::Status DecodeBatch::ReadExactTokens(const ParsedChunk& chunk, Staging* staging,
                                          ChunkDev* out) {
  const ProfileData& data = tables_.data();
  const SegmentHeader& header = chunk.header();
  if (header.sinks == 0) return absl::OkStatus();
  const KvGeometry& geometry = data.geometry;
  const Staging::Array<uint16_t> values =
      staging->Take<uint16_t>(static_cast<size_t>(header.sinks) * data.channels());
  exact_.tokens = header.sinks;
  exact_.keys.resize(geometry.layers);
  exact_.values.resize(tables_.layout().planes == 2 ? geometry.layers : 0);
  const int64_t per_tensor = int64_t{geometry.tensor_channels()};
  for (int layer = 0; layer < geometry.layers; ++layer) {
    uint16_t* at = values.host + layer * tables_.layout().planes * per_tensor;
    exact_.keys[layer] = {at, data.channels(), geometry.head_size};
    if (!exact_.values.empty())
      exact_.values[layer] = {at + per_tensor, data.channels(), geometry.head_size};
  }
  out->exact = values.device;
  return DecodeExactTokens(geometry, data.references, header.first_position, chunk.levels[0].sinks,
                           exact_);
}

absl::Status DecodeBatch::AddBlocks(const ParsedChunk& chunk, uint32_t index, int level,
                                    int32_t coded, Staging* staging) {
  const SegmentView& segment = chunk.levels[level];
  const int tokens = CodedTokens(chunk);
  const uint32_t lanes = static_cast<uint32_t>(std::min(kWarp, tokens));
  const Staging::Array<uint16_t> payload =
      staging->Take<uint16_t>((segment.payload.size() + 1) / 2);
  std::memcpy(payload.host, segment.payload.data(), segment.payload.size());
  uint64_t offset = static_cast<uint64_t>(payload.host - payload_host_);
  uint32_t next = 0;
  const char* states = segment.payload.data();
  for (const BlockEntry& block : segment.blocks) {
    if (block.coordinates > static_cast<uint32_t>(coded) - next)
      return Damaged(level, "blocks have more coordinates than are coded");
    if (block.bytes < lanes * 4) return Damaged(level, "a block is too short for its states");
    if (block.bytes % 2 != 0) return Damaged(level, "a block does not decode");
    for (uint32_t lane = 0; lane < lanes; ++lane) {
      if (LoadLe<uint32_t>(states + 4 * lane) < (1u << 16))
        return Damaged(level, "a block is too short for its states");
    }
    levels_[level].coded.push_back(
        {index, kCodedBlock, next, block.coordinates, offset, (block.bytes - lanes * 4) / 2});
    offset += block.bytes / 2;
    states += block.bytes;
    next += block.coordinates;
  }
  if (next != static_cast<uint32_t>(coded))
    return Damaged(level, "blocks have fewer coordinates than are coded");
  if (tokens == 0) return absl::OkStatus();
  const uint32_t coordinates = static_cast<uint32_t>(tables_.data().coordinates);
  while (next < coordinates) {
    const uint32_t count = std::min<uint32_t>(kNullRowsOfTask, coordinates - next);
    levels_[level].null.push_back({index, kNullRows, next, count, 0, 0});
    next += count;
  }
  return absl::OkStatus();
}

absl::Status DecodeBatch::AddExceptions(const ParsedChunk& chunk, uint32_t index, int level) {
  const uint64_t tokens = static_cast<uint64_t>(CodedTokens(chunk));
  const uint64_t cells = static_cast<uint64_t>(tables_.data().coordinates) * tokens;
  ByteReader in(chunk.levels[level].exceptions);
  uint64_t next = 0;
  bool valid = true;
  const int64_t bound = level == 0 ? kMaxBaseSymbol : 1;
  while (in.remaining() > 0) {
    const uint64_t distance = ReadVarint(in, &valid);
    const int64_t symbol = UnZigZag(ReadVarint(in, &valid));
    if (!in.ok() || !valid || distance >= cells || next + distance >= cells)
      return absl::InvalidArgumentError("segment: an exception is out of range");
    if (symbol < -bound || symbol > bound)
      return absl::InvalidArgumentError("segment: an exception's symbol is out of range");
    next += distance;
    levels_[level].exceptions.push_back({index, static_cast<uint32_t>(next / tokens),
                                         static_cast<uint32_t>(next % tokens),
                                         static_cast<int32_t>(symbol)});
    if (level == 0) reach_ = std::max(reach_, symbol < 0 ? -symbol : symbol);
    ++next;
  }
  return absl::OkStatus();
}

absl::Status DecodeBatch::PrepareLevel(const ParsedChunk& chunk, uint32_t index, int level,
                                       Staging* staging) {
  const ProfileData& data = tables_.data();
  const SegmentView& segment = chunk.levels[level];
  if (!segment.class_override.empty()) {
    absl::Status status =
        DecodeSymbols(segment.class_override, data.coordinates, "class override", &symbols_);
    if (!status.ok()) return status;
    if (!overridden_) classes_ = data.classes;
    overridden_ = true;
    for (int32_t i = 0; i < data.coordinates; ++i) {
      const uint8_t klass = static_cast<uint8_t>(classes_[i] + symbols_[i]);
      if (klass >= data.tables.classes) {
        return absl::InvalidArgumentError(
            "segment: class override gives a class that does not exist");
      }
      classes_[i] = klass;
    }
    classes_dev_ = staging->Put(classes_);
  }
  ChunkLevelDev out = tables_.level(level);
  int32_t coded = tables_.coded(level);
  if (overridden_) {
    MakeFullOrder(data, level, classes_, &order_);
    coded = order_.coded;
    out = {staging->Put(order_.order), classes_dev_};
  }
  if (CodedTokens(chunk) == 0) coded = 0;
  if (level == 0) reach_ = overridden_ ? ReachOfClasses(data, classes_) : tables_.reach();
  levels_[level].chunks[index] = out;
  absl::Status status = AddBlocks(chunk, index, level, coded, staging);
  return status.ok() ? AddExceptions(chunk, index, level) : status;
}

absl::Status DecodeBatch::PrepareChunk(const ParsedChunk& chunk, uint32_t index, Staging* staging,
                                       ChunkDev* out) {
  const SegmentHeader& header = chunk.header();
  const int level = static_cast<int>(chunk.levels.size()) - 1;
  *out = {};
  out->first_position = header.first_position + header.sinks;
  out->first_token = chunk.first_token + header.sinks;
  out->tokens = CodedTokens(chunk);
  out->sinks = header.sinks;
  out->level = level;
  out->status = chunk.status;
  out->mean = tables_.device().mean;
  out->unit = tables_.device().unit;
  absl::Status status = ReadExactTokens(chunk, staging, out);
  if (status.ok() && !tables_.data().calibrated)
    status = ReadStatistics(chunk.levels[0], staging, out);
  if (!status.ok()) return status;
  overridden_ = false;
  for (int n = 0; n <= level; ++n) {
    status = PrepareLevel(chunk, index, n, staging);
    if (!status.ok()) return status;
  }
  out->classes = levels_[level].chunks[index].classes;
  const int64_t power = PowerOf3(level);
  wide_ = wide_ || reach_ * power + (power - 1) / 2 > kNarrowCell;
  return absl::OkStatus();
}

absl::Status DecodeBatch::Prepare(absl::Span<const ParsedChunk> chunks, Staging* staging,
                                  BatchDev* batch, std::vector<LevelDev>* levels, int* failed) {
  levels_.resize(tables_.data().levels);
  for (Level& level : levels_) {
    level.chunks.assign(chunks.size(), ChunkLevelDev());
    level.coded.clear();
    level.null.clear();
    level.exceptions.clear();
  }
  wide_ = false;
  const Staging::Array<ChunkDev> chunk_dev = staging->Take<ChunkDev>(chunks.size());
  payload_host_ = reinterpret_cast<const uint16_t*>(chunk_dev.host);
  batch->payload = reinterpret_cast<const uint16_t*>(chunk_dev.device);
  batch->profile = tables_.device();
  batch->chunks = chunk_dev.device;
  batch->chunk_count = static_cast<int32_t>(chunks.size());
  batch->tokens_max = 0;
  batch->sinks_max = 0;
  batch->calibrated = tables_.data().calibrated ? 1 : 0;
  size_t level_count = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    absl::Status status =
        PrepareChunk(chunks[i], static_cast<uint32_t>(i), staging, &chunk_dev.host[i]);
    if (!status.ok()) {
      *failed = static_cast<int>(i);
      return status;
    }
    batch->tokens_max = std::max(batch->tokens_max, chunk_dev.host[i].tokens);
    batch->sinks_max = std::max(batch->sinks_max, chunk_dev.host[i].sinks);
    level_count = std::max(level_count, chunks[i].levels.size());
  }
  batch->wide = wide_ ? 1 : 0;
  levels->clear();
  for (size_t n = 0; n < level_count; ++n) {
    Level& level = levels_[n];
    LevelDev out = {};
    out.level = static_cast<int32_t>(n);
    // The long tasks first.
    level.coded.insert(level.coded.end(), level.null.begin(), level.null.end());
    out.chunks = staging->Put(level.chunks);
    out.tasks = staging->Put(level.coded);
    out.exceptions = staging->Put(level.exceptions);
    out.task_count = static_cast<uint32_t>(level.coded.size());
    out.exception_count = static_cast<uint32_t>(level.exceptions.size());
    if (out.exceptions == nullptr || out.tasks == nullptr || out.chunks == nullptr)
      return absl::InternalError("staging memory was reckoned too small");
    levels->push_back(out);
  }
  return absl::OkStatus();
}

}  // namespace cuda
}  // namespace kvstream

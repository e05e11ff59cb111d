#include "codec/cuda/device_encoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "codec/byte_io.h"
#include "codec/cuda/create_on.h"
#include "codec/cuda/internal/backend.h"
#include "codec/cuda/internal/cut_blocks.h"
#include "codec/cuda/internal/device_memory.h"
#include "codec/cuda/internal/device_tables.h"
#include "codec/cuda/internal/encode_types.h"
#include "codec/cuda/internal/staging.h"
#include "codec/cuda/internal/target.h"
#include "codec/exact_tokens.h"
#include "codec/format.h"
#include "codec/level_coder.h"
#include "codec/segment.h"

namespace kvstream {
namespace {

using cuda::EncodeTaskDev;

}  // namespace

class DeviceEncoder::Impl {
 public:
  Impl(std::shared_ptr<const cuda::DeviceTables> tables, const DeviceEncoderOptions& options)
      : tables_(std::move(tables)),
        options_(options),
        backend_(tables_->shared_backend()),
        data_(tables_->data()),
        level_encoder_(data_) {}

  absl::Status Create();
  const cuda::ShardLayout& layout() const { return tables_->layout(); }
  absl::StatusOr<std::vector<EncodedChunk>> Encode(const cuda::Target& kv, int64_t tokens,
                                                   int64_t first_position, void* stream);

 private:
  // Chunks [first, first + count) of the call.
  struct Batch {
    int64_t tokens = 0;  // of the call
    int64_t first_position = 0;
    int64_t first = 0;
    int count = 0;
  };
  absl::Status EncodeBatch(const cuda::Target& kv, const Batch& batch, void* stream,
                           std::vector<EncodedChunk>* out);
  absl::Status Stage(const cuda::Target& kv, const Batch& batch, void* stream);
  absl::Status CheckStatus(const Batch& batch) const;
  absl::Status LaunchBlocks(void* stream);
  absl::StatusOr<EncodedChunk> Assemble(const Batch& batch, int chunk);
  // Sections of one level but for exact tokens.
  absl::Status TakeLevel(const Batch& batch, int chunk, int level, SegmentSections* out) const;
  // The same, coded here. Levels in order, from 0.
  void CodeLevel(int chunk, int level, SegmentSections* out);
  absl::Status ExactTokens(const cuda::ChunkDev& info, int chunk, std::string* out) const;
  void AppendExceptions(int chunk, int level, int tokens, std::string* out) const;
  size_t RowIndex(int chunk, int level) const {
    return (static_cast<size_t>(chunk) * data_.levels + level) * data_.coordinates;
  }

  const std::shared_ptr<const cuda::DeviceTables> tables_;
  const DeviceEncoderOptions options_;
  const std::shared_ptr<cuda::Backend> backend_;
  const ProfileData& data_;
  LevelEncoder level_encoder_;
  std::vector<uint8_t> classes_;  // in effect, when they are chosen here
  std::vector<int32_t> host_;     // the finest cells of the chunk in work

  std::vector<std::vector<int32_t>> orders_;  // [level]: coded coordinates in coding order
  cuda::EncodeDev encode_ = {};
  cuda::EncodeBlocksDev blocks_ = {};
  cuda::Staging staging_;
  std::vector<cuda::ChunkDev> chunks_;
  cuda::Buffer tiles_;
  cuda::Buffer order_pointers_;
  cuda::Buffer operands_;
  cuda::Buffer cells_;
  cuda::Buffer rotation_;
  cuda::Buffer exact_;
  cuda::Buffer bits_;
  cuda::Buffer exception_counts_;
  cuda::Buffer exception_first_;
  cuda::Buffer exceptions_;
  cuda::Buffer status_;
  cuda::Buffer task_buffer_;
  cuda::Buffer words_;
  cuda::Buffer payload_;
  std::vector<EncodeTaskDev> tasks_;  // [chunk][level] in order
  uint64_t payload_words_ = 0;
  size_t exception_total_ = 0;
};

absl::Status DeviceEncoder::Impl::Create() {
  const size_t chunks = static_cast<size_t>(options_.max_batch_chunks);
  const size_t stride = (static_cast<size_t>(data_.chunk_tokens) + 31) / 32 * 32;
  const size_t coordinates = static_cast<size_t>(data_.coordinates);
  const size_t slots = layout().slots.size();
  const size_t rows = chunks * data_.levels * coordinates;
  std::vector<cuda::CoordinateTileDev> tiles;
  for (size_t group = 0; group < layout().groups.size(); ++group) {
    for (int32_t first = 0; first < layout().groups[group].rank; first += cuda::kTileSlots)
      tiles.push_back({static_cast<int32_t>(group), first});
  }
  std::vector<const int32_t*> orders;
  for (int level = 0; level < data_.levels; ++level) {
    orders.push_back(tables_->level(level).order);
    cuda::FullOrder order;
    cuda::MakeFullOrder(data_, level, data_.classes, &order);
    order.order.resize(order.coded);
    orders_.push_back(std::move(order.order));
  }
  const size_t pairs = static_cast<size_t>(tables_->device().pairs);
  const size_t sinks = static_cast<size_t>(data_.sink_tokens);
  absl::Status status = staging_.Create(backend_, 65536);
  const auto fit = [&](cuda::Buffer& buffer, size_t bytes, bool pinned) {
    if (status.ok()) status = buffer.Fit(backend_, bytes, pinned);
  };
  fit(tiles_, tiles.size() * sizeof(tiles[0]), false);
  fit(order_pointers_, orders.size() * sizeof(orders[0]), false);
  fit(operands_, chunks * 2 * slots * stride * sizeof(uint16_t), false);
  fit(cells_, chunks * coordinates * stride * sizeof(int32_t), options_.choose_classes);
  fit(rotation_, chunks * stride * pairs * 2 * sizeof(float), false);
  fit(exact_, chunks * sinks * data_.channels() * sizeof(uint16_t), true);
  fit(bits_, rows * sizeof(float), true);
  fit(exception_counts_, rows * sizeof(uint32_t), true);
  fit(exception_first_, rows * sizeof(uint32_t), true);
  fit(status_, chunks * sizeof(uint32_t), true);
  if (!status.ok()) return status;
  status = backend_->Upload(tiles_.device<char>(), tiles.data(), tiles.size() * sizeof(tiles[0]),
                            nullptr);
  if (status.ok())
    status = backend_->Upload(order_pointers_.device<char>(), orders.data(),
                              orders.size() * sizeof(orders[0]), nullptr);
  if (status.ok()) status = backend_->Synchronize(nullptr);

  encode_.batch.profile = tables_->device();
  encode_.batch.status = status_.device<uint32_t>();
  encode_.batch.cells = cells_.device<char>();
  encode_.batch.rotation = rotation_.device<float>();
  encode_.batch.stride = static_cast<int32_t>(stride);
  encode_.batch.calibrated = 1;
  encode_.batch.wide = 1;
  encode_.classes = tables_->level(0).classes;
  encode_.operands = operands_.device<uint16_t>();
  encode_.exact = exact_.device<uint16_t>();
  encode_.bits = bits_.device<float>();
  encode_.exceptions = exception_counts_.device<uint32_t>();
  encode_.tiles = tiles_.device<cuda::CoordinateTileDev>();
  encode_.tile_count = static_cast<int32_t>(tiles.size());
  encode_.levels = data_.levels;
  encode_.sinks_stride = data_.sink_tokens;
  blocks_.orders = order_pointers_.device<const int32_t*>();
  blocks_.exception_first = exception_first_.device<uint32_t>();
  return status;
}

absl::Status DeviceEncoder::Impl::Stage(const cuda::Target& kv, const Batch& batch, void* stream) {
  chunks_.clear();
  encode_.batch.tokens_max = 0;
  encode_.batch.sinks_max = 0;
  for (int i = 0; i < batch.count; ++i) {
    const int64_t first = (batch.first + i) * data_.chunk_tokens;
    const int64_t tokens = std::min<int64_t>(data_.chunk_tokens, batch.tokens - first);
    const int64_t position = batch.first_position + first;
    cuda::ChunkDev chunk = {};
    chunk.sinks = static_cast<int32_t>(
        std::min<int64_t>(tokens, std::max<int64_t>(0, data_.sink_tokens - position)));
    chunk.tokens = static_cast<int32_t>(tokens) - chunk.sinks;
    chunk.first_position = position + chunk.sinks;
    chunk.first_token = first + chunk.sinks;
    chunk.status = i;
    chunks_.push_back(chunk);
    encode_.batch.tokens_max = std::max(encode_.batch.tokens_max, chunk.tokens);
    encode_.batch.sinks_max = std::max(encode_.batch.sinks_max, chunk.sinks);
  }
  absl::Status status =
      staging_.Begin(backend_, cuda::Staging::Bytes<cuda::ChunkDev>(chunks_.size()) +
                                   cuda::Staging::Bytes<cuda::TensorDev>(kv.tensors.size()));
  if (!status.ok()) return status;
  encode_.batch.chunk_count = batch.count;
  encode_.batch.chunks = staging_.Put(chunks_);
  encode_.batch.out = kv.out;
  encode_.batch.out.tensors = staging_.Put(kv.tensors);
  status = staging_.Upload(*backend_, stream);
  const absl::Status end = staging_.End(stream);
  return status.ok() ? end : status;
}

absl::Status DeviceEncoder::Impl::CheckStatus(const Batch& batch) const {
  for (int i = 0; i < batch.count; ++i) {
    const uint32_t bits = status_.host<uint32_t>()[i];
    if ((bits & cuda::kBadBlockTable) != 0)
      return absl::InvalidArgumentError("the block table leads out of the cache");
    if ((bits & cuda::kNotFinite) != 0)
      return absl::InvalidArgumentError(
          absl::StrCat("kv: a value is not finite, in chunk ", batch.first + i));
  }
  return absl::OkStatus();
}

absl::Status DeviceEncoder::Impl::LaunchBlocks(void* stream) {
  const size_t rows = RowIndex(static_cast<int>(chunks_.size()), 0);
  const uint32_t* const counts = exception_counts_.host<uint32_t>();
  exception_total_ = 0;
  for (size_t i = 0; i < rows; ++i) {
    exception_first_.host<uint32_t>()[i] = static_cast<uint32_t>(exception_total_);
    exception_total_ += counts[i];
  }
  if (exception_total_ >= (uint64_t{1} << 32))
    return absl::ResourceExhaustedError("kv: too many values beyond the profile's tables");
  const size_t task_bytes = tasks_.size() * sizeof(EncodeTaskDev);
  absl::Status status = task_buffer_.Fit(backend_, task_bytes, true);
  if (status.ok()) status = words_.Fit(backend_, tasks_.size() * sizeof(uint32_t), true);
  if (status.ok()) status = payload_.Fit(backend_, payload_words_ * sizeof(uint16_t), true);
  if (status.ok())
    status = exceptions_.Fit(backend_, exception_total_ * sizeof(cuda::ExceptionDev), true);
  if (!status.ok()) return status;
  std::copy(tasks_.begin(), tasks_.end(), task_buffer_.host<EncodeTaskDev>());
  blocks_.tasks = task_buffer_.device<EncodeTaskDev>();
  blocks_.task_count = static_cast<uint32_t>(tasks_.size());
  blocks_.payload = payload_.device<uint16_t>();
  blocks_.words = words_.device<uint32_t>();
  blocks_.exceptions = exceptions_.device<cuda::ExceptionDev>();
  status =
      backend_->Upload(task_buffer_.device<char>(), task_buffer_.host<char>(), task_bytes, stream);
  if (status.ok())
    status = backend_->Upload(exception_first_.device<char>(), exception_first_.host<char>(),
                              rows * sizeof(uint32_t), stream);
  if (status.ok()) status = backend_->EncodeBlocks(encode_, blocks_, stream);
  const auto download = [&](const cuda::Buffer& buffer, size_t bytes) {
    if (status.ok() && bytes > 0)
      status = backend_->Download(buffer.host<char>(), buffer.device<char>(), bytes, stream);
  };
  download(words_, tasks_.size() * sizeof(uint32_t));
  download(payload_, payload_words_ * sizeof(uint16_t));
  download(exceptions_, exception_total_ * sizeof(cuda::ExceptionDev));
  return status.ok() ? backend_->Synchronize(stream) : status;
}

absl::Status DeviceEncoder::Impl::ExactTokens(const cuda::ChunkDev& info, int chunk,
                                              std::string* out) const {
  if (info.sinks == 0) return absl::OkStatus();
  const KvGeometry& geometry = data_.geometry;
  const int planes = layout().planes;
  const int64_t per_tensor = int64_t{geometry.tensor_channels()};
  const uint16_t* at =
      exact_.host<uint16_t>() + static_cast<size_t>(chunk) * data_.sink_tokens * data_.channels();
  KvView view;
  view.tokens = info.sinks;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int plane = 0; plane < planes; ++plane) {
      (plane == 0 ? view.keys : view.values).push_back({at, data_.channels(), geometry.head_size});
      at += per_tensor;
    }
  }
  return EncodeExactTokens(geometry, data_.references, info.first_position - info.sinks, view, out);
}

void DeviceEncoder::Impl::AppendExceptions(int chunk, int level, int tokens,
                                           std::string* out) const {
  const size_t rows = RowIndex(chunk, level);
  const uint32_t first = exception_first_.host<uint32_t>()[rows];
  const size_t last_row = rows + data_.coordinates - 1;
  const uint32_t end =
      exception_first_.host<uint32_t>()[last_row] + exception_counts_.host<uint32_t>()[last_row];
  int64_t previous = -1;
  for (uint32_t i = first; i < end; ++i) {
    const cuda::ExceptionDev& exception = exceptions_.host<cuda::ExceptionDev>()[i];
    const int64_t index = static_cast<int64_t>(exception.coordinate) * tokens + exception.token;
    AppendVarint(static_cast<uint64_t>(index - previous - 1), out);
    AppendVarint(ZigZag(exception.symbol), out);
    previous = index;
  }
}

absl::Status DeviceEncoder::Impl::TakeLevel(const Batch& batch, int chunk, int level,
                                            SegmentSections* out) const {
  const int tokens = chunks_[chunk].tokens;
  if (data_.coordinates > 0 && tokens > 0) AppendExceptions(chunk, level, tokens, &out->exceptions);
  for (size_t i = 0; i < tasks_.size(); ++i) {
    const EncodeTaskDev& task = tasks_[i];
    if (task.chunk != static_cast<uint32_t>(chunk) || task.level != static_cast<uint32_t>(level))
      continue;
    const uint32_t words = words_.host<uint32_t>()[i];
    if (words == 0 || words > task.capacity)
      return absl::InternalError(
          absl::StrCat("chunk ", batch.first + chunk, ": a block outgrew its estimate"));
    const uint16_t* const end = payload_.host<uint16_t>() + task.offset + task.capacity;
    out->payload.append(reinterpret_cast<const char*>(end - words), words * sizeof(uint16_t));
    out->blocks.push_back({task.coordinates, words * 2});
  }
  return absl::OkStatus();
}

void DeviceEncoder::Impl::CodeLevel(int chunk, int level, SegmentSections* out) {
  const size_t tokens = static_cast<size_t>(chunks_[chunk].tokens);
  const size_t coordinates = static_cast<size_t>(data_.coordinates);
  if (level == 0) {
    classes_ = data_.classes;
    host_.resize(coordinates * tokens);
    const size_t stride = static_cast<size_t>(encode_.batch.stride);
    const int32_t* const from = cells_.host<int32_t>() + chunk * coordinates * stride;
    for (size_t i = 0; i < coordinates; ++i)
      std::copy_n(from + i * stride, tokens, host_.begin() + i * tokens);
  }
  level_encoder_.EncodeFinest(level, host_.data(), static_cast<int>(tokens), &classes_, out);
}

absl::StatusOr<EncodedChunk> DeviceEncoder::Impl::Assemble(const Batch& batch, int chunk) {
  const cuda::ChunkDev& info = chunks_[chunk];
  SegmentHeader header;
  header.first_position = info.first_position - info.sinks;
  header.tokens = info.tokens + info.sinks;
  header.sinks = info.sinks;
  EncodedChunk out;
  for (int level = 0; level < data_.levels; ++level) {
    SegmentSections sections;
    if (level == 0) {
      absl::Status status = ExactTokens(info, chunk, &sections.sinks);
      if (!status.ok()) return status;
    }
    if (options_.choose_classes) {
      CodeLevel(chunk, level, &sections);
    } else {
      absl::Status status = TakeLevel(batch, chunk, level, &sections);
      if (!status.ok()) return status;
    }
    header.flags = sections.class_override.empty() ? 0 : kSegmentHasOverride;
    header.level = level;
    out.segments.push_back(WriteSegment(data_, header, sections));
    if (level == 0)
      header.base_checksum =
          LoadLe<uint64_t>(out.segments[0].data() + out.segments[0].size() - kChecksumBytes);
  }
  return out;
}

absl::Status DeviceEncoder::Impl::EncodeBatch(const cuda::Target& kv, const Batch& batch,
                                              void* stream, std::vector<EncodedChunk>* out) {
  absl::Status status = Stage(kv, batch, stream);
  const size_t count = static_cast<size_t>(batch.count);
  if (status.ok())
    status = backend_->Clear(status_.device<char>(), count * sizeof(uint32_t), stream);
  if (status.ok() && encode_.batch.profile.pairs > 0 && encode_.batch.tokens_max > 0)
    status = backend_->PrepareRotation(encode_.batch, stream);
  if (status.ok()) status = backend_->Quantise(encode_, stream);
  const size_t rows = RowIndex(batch.count, 0);
  const auto download = [&](const cuda::Buffer& buffer, size_t bytes) {
    if (status.ok() && bytes > 0)
      status = backend_->Download(buffer.host<char>(), buffer.device<char>(), bytes, stream);
  };
  download(status_, count * sizeof(uint32_t));
  download(bits_, rows * sizeof(float));
  download(exception_counts_, rows * sizeof(uint32_t));
  if (encode_.batch.sinks_max > 0)
    download(exact_, count * data_.sink_tokens * data_.channels() * sizeof(uint16_t));
  if (options_.choose_classes) {
    download(cells_, count * data_.coordinates * static_cast<size_t>(encode_.batch.stride) *
                         sizeof(int32_t));
  }
  if (status.ok()) status = backend_->Synchronize(stream);
  if (status.ok()) status = CheckStatus(batch);
  if (!status.ok()) return status;
  if (!options_.choose_classes) {
    tasks_.clear();
    payload_words_ = 0;
    for (int chunk = 0; chunk < batch.count; ++chunk) {
      for (int level = 0; level < data_.levels; ++level) {
        cuda::CutBlocks(orders_[level], bits_.host<float>() + RowIndex(chunk, level),
                        chunks_[chunk].tokens, static_cast<uint32_t>(chunk),
                        static_cast<uint32_t>(level), &payload_words_, &tasks_);
      }
    }
    status = LaunchBlocks(stream);
  }
  for (int chunk = 0; status.ok() && chunk < batch.count; ++chunk) {
    absl::StatusOr<EncodedChunk> encoded = Assemble(batch, chunk);
    status = encoded.status();
    if (status.ok()) out->push_back(*std::move(encoded));
  }
  return status;
}

absl::StatusOr<std::vector<EncodedChunk>> DeviceEncoder::Impl::Encode(const cuda::Target& kv,
                                                                      int64_t tokens,
                                                                      int64_t first_position,
                                                                      void* stream) {
  if (tokens < 1 || tokens > kv.tokens)
    return absl::InvalidArgumentError(
        absl::StrCat("kv: ", tokens, " tokens, the view has ", kv.tokens));
  if (first_position < 0 || first_position > kMaxFirstPosition - tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("first_position is ", first_position, ", must be 0 to 2^40"));
  }
  const cuda::DeviceScope scope(*backend_);
  std::vector<EncodedChunk> out;
  const int64_t chunks = (tokens + data_.chunk_tokens - 1) / data_.chunk_tokens;
  for (int64_t first = 0; first < chunks; first += options_.max_batch_chunks) {
    Batch batch;
    batch.tokens = tokens;
    batch.first_position = first_position;
    batch.first = first;
    batch.count = static_cast<int>(std::min<int64_t>(options_.max_batch_chunks, chunks - first));
    absl::Status status = EncodeBatch(kv, batch, stream, &out);
    if (!status.ok()) return status;
  }
  return out;
}

absl::StatusOr<std::unique_ptr<DeviceEncoder>> cuda::CreateEncoderOn(
    std::shared_ptr<Backend> backend, std::shared_ptr<const Profile> profile,
    const DeviceEncoderOptions& options) {
  if (profile == nullptr) return absl::InvalidArgumentError("profile is null");
  if (!profile->calibrated()) {
    return absl::FailedPreconditionError(
        "the profile has no calibration: such chunks are encoded on the host");
  }
  if (options.max_batch_chunks < 1 || options.max_batch_chunks > 64) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_batch_chunks is ", options.max_batch_chunks, ", must be 1 to 64"));
  }
  absl::StatusOr<std::shared_ptr<const DeviceTables>> tables =
      DeviceTables::Create(std::move(backend), std::move(profile), {});
  if (!tables.ok()) return tables.status();
  const DeviceScope scope((*tables)->backend());
  auto impl = absl::make_unique<DeviceEncoder::Impl>(*std::move(tables), options);
  absl::Status status = impl->Create();
  if (!status.ok()) return status;
  return absl::make_unique<DeviceEncoder>(std::move(impl));
}

absl::StatusOr<std::unique_ptr<DeviceEncoder>> DeviceEncoder::Create(
    std::shared_ptr<const Profile> profile, const DeviceEncoderOptions& options) {
  absl::StatusOr<std::shared_ptr<cuda::Backend>> backend =
      cuda::CreateCudaBackend(options.device_ordinal);
  if (!backend.ok()) return backend.status();
  return cuda::CreateEncoderOn(*std::move(backend), std::move(profile), options);
}

DeviceEncoder::DeviceEncoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceEncoder::~DeviceEncoder() = default;

absl::StatusOr<std::vector<EncodedChunk>> DeviceEncoder::Encode(const DeviceKvView& kv,
                                                                int64_t first_position,
                                                                void* stream) {
  const absl::StatusOr<cuda::Target> target = cuda::TargetOf(impl_->layout(), kv);
  if (!target.ok()) return target.status();
  return impl_->Encode(*target, kv.tokens, first_position, stream);
}

absl::StatusOr<std::vector<EncodedChunk>> DeviceEncoder::Encode(const PagedKvView& kv,
                                                                int64_t tokens,
                                                                int64_t first_position,
                                                                void* stream) {
  const absl::StatusOr<cuda::Target> target = cuda::TargetOf(impl_->layout(), kv);
  if (!target.ok()) return target.status();
  return impl_->Encode(*target, tokens, first_position, stream);
}

}  // namespace kvstream

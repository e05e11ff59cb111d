#include "client/testing/fake_device.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/variant.h"
#include "codec/decoder.h"

namespace kvstream {
namespace {

constexpr uint16_t kGarbage = 0x1234;

struct TokenPlace {
  uint16_t* head0 = nullptr;  // null: outside of the cache
  int64_t head_stride = 0;
};

TokenPlace PlaceOf(const DeviceKv& kv, int layer, bool values, int64_t token) {
  if (const auto* view = absl::get_if<DeviceKvView>(&kv)) {
    const DeviceKvTensor& tensor = (values ? view->values : view->keys)[layer];
    return {static_cast<uint16_t*>(tensor.data_dev) + token * tensor.token_stride,
            tensor.head_stride};
  }
  const PagedKvView& paged = absl::get<PagedKvView>(kv);
  const int64_t block = paged.block_table_dev[token / paged.block_size];
  if (block < 0 || block >= paged.num_blocks) return {};
  const PagedKvLayer& cache = paged.layers[layer];
  return {static_cast<uint16_t*>(values ? cache.values_dev : cache.keys_dev) +
              block * paged.block_stride + token % paged.block_size * paged.token_stride,
          paged.head_stride};
}

}  // namespace

class FakeDevice::Decoder final : public DeviceChunkDecoder {
 public:
  Decoder(FakeDevice* device, std::shared_ptr<const Profile> profile, const DeviceShard& shard)
      : device_(device),
        profile_(std::move(profile)),
        shard_(shard),
        decoder_(*ChunkDecoder::Create(profile_)) {
    absl::MutexLock lock(&device_->mutex_);
    ++device_->decoders_alive_;
    device_->most_decoders_alive_ =
        std::max(device_->most_decoders_alive_, device_->decoders_alive_);
  }

  ~Decoder() override {
    absl::MutexLock lock(&device_->mutex_);
    for (const auto& [ticket, call] : open_) {
      const int* left = &call->left;
      const auto done = [left] { return *left == 0; };
      device_->mutex_.Await(absl::Condition(&done));
      --device_->calls_under_way_;
    }
    --device_->decoders_alive_;
  }

  absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> CreateSibling() const override {
    {
      absl::MutexLock lock(&device_->mutex_);
      ++device_->siblings_created_;
    }
    return std::unique_ptr<DeviceChunkDecoder>(new Decoder(device_, profile_, shard_));
  }

  absl::StatusOr<DecodeTicket> Decode(absl::Span<const DeviceChunk> chunks, const DeviceKv& out,
                                      void* stream) override {
    auto call = std::make_unique<OpenCall>();
    Call record;
    record.stream = stream;
    record.paged = absl::holds_alternative<PagedKvView>(out);
    absl::Status refused;
    for (const DeviceChunk& chunk : chunks) {
      record.first_tokens.push_back(chunk.first_token);
      if (device_->refuse && refused.ok()) refused = device_->refuse(chunk.first_token);
    }
    absl::MutexLock lock(&device_->mutex_);
    device_->calls_.push_back(std::move(record));
    if (!device_->broken_.ok()) return device_->broken_;
    if (!refused.ok()) return refused;
    call->statuses.resize(chunks.size());
    call->left = static_cast<int>(chunks.size());
    for (size_t i = 0; i < chunks.size(); ++i) {
      // The segments are borrowed for the call only.
      std::vector<std::string> segments(chunks[i].segments.begin(), chunks[i].segments.end());
      device_->work_.push_back(
          {[this, segments = std::move(segments), out, first = chunks[i].first_token] {
             return DecodeOne(segments, out, first);
           },
           &call->statuses[i], &call->left});
    }
    ++device_->calls_under_way_;
    device_->most_calls_under_way_ =
        std::max(device_->most_calls_under_way_, device_->calls_under_way_);
    open_.emplace(++last_ticket_, std::move(call));
    return last_ticket_;
  }

  absl::StatusOr<bool> Done(DecodeTicket ticket) override {
    const auto found = open_.find(ticket);
    if (found == open_.end()) return absl::InvalidArgumentError("no such ticket");
    absl::MutexLock lock(&device_->mutex_);
    return found->second->left == 0;
  }

  absl::Status Finish(DecodeTicket ticket, std::vector<absl::Status>* chunk_statuses) override {
    const auto found = open_.find(ticket);
    if (found == open_.end()) return absl::InvalidArgumentError("no such ticket");
    const std::unique_ptr<OpenCall> call = std::move(found->second);
    open_.erase(found);
    absl::MutexLock lock(&device_->mutex_);
    const int* left = &call->left;
    const auto done = [left] { return *left == 0; };
    device_->mutex_.Await(absl::Condition(&done));
    --device_->calls_under_way_;
    if (!device_->broken_.ok()) return device_->broken_;
    absl::Status first;
    for (const absl::Status& status : call->statuses) first.Update(status);
    if (chunk_statuses != nullptr) *chunk_statuses = call->statuses;
    return first;
  }

 private:
  struct OpenCall {
    std::vector<absl::Status> statuses;
    int left = 0;
  };

  // On the stream's thread.
  absl::Status DecodeOne(const std::vector<std::string>& segments, const DeviceKv& out,
                         int64_t first_token) {
    const std::vector<absl::string_view> views(segments.begin(), segments.end());
    const absl::StatusOr<SegmentInfo> info = ValidateSegment(*profile_, views[0]);
    if (!info.ok()) return info.status();
    KvBlock chunk(profile_->geometry(), info->tokens);
    absl::Status status = decoder_->Decode(views, chunk.mutable_view());
    if (device_->find) status.Update(device_->find(first_token));
    const KvView from = chunk.view();
    for (int layer = 0; layer < shard_.layers; ++layer) {
      for (const bool values : {false, true}) {
        const auto& tensors = values ? from.values : from.keys;
        if (tensors.empty()) continue;
        for (int64_t token = 0; token < info->tokens; ++token) {
          const TokenPlace place = PlaceOf(out, layer, values, first_token + token);
          if (place.head0 == nullptr) {
            return absl::InvalidArgumentError("the block table names a block outside of the cache");
          }
          for (int head = 0; head < shard_.heads; ++head) {
            const uint16_t* source =
                tensors[shard_.first_layer + layer].at(token, shard_.first_head + head);
            uint16_t* target = place.head0 + head * place.head_stride;
            const int size = profile_->geometry().head_size;
            if (status.ok()) {
              std::copy(source, source + size, target);
            } else {
              std::fill(target, target + size, kGarbage);
            }
          }
        }
      }
    }
    return status;
  }

  FakeDevice* const device_;
  const std::shared_ptr<const Profile> profile_;
  const DeviceShard shard_;
  const std::unique_ptr<ChunkDecoder> decoder_;
  DecodeTicket last_ticket_ = 0;
  std::map<DecodeTicket, std::unique_ptr<OpenCall>> open_;
};

FakeDevice::FakeDevice() : stream_([this] { RunStream(); }) {}

FakeDevice::~FakeDevice() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  stream_.join();
}

void FakeDevice::RunStream() {
  for (;;) {
    Work work;
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || (!paused_ && !work_.empty());
      };
      mutex_.Await(absl::Condition(&has_work));
      if (stopping_) return;
      work = std::move(work_.front());
      work_.pop_front();
      status = broken_;
    }
    const bool works = status.ok();
    if (works) status = work.run();
    absl::MutexLock lock(&mutex_);
    if (works) ++chunks_written_;
    *work.status = status;
    --*work.left;
  }
}

DeviceChunkDecoderFactory FakeDevice::Factory() {
  return [this](std::shared_ptr<const Profile> profile, const DeviceChunkDecoderOptions& options)
             -> absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> {
    if (!create_status.ok()) return create_status;
    {
      absl::MutexLock lock(&mutex_);
      ++roots_created_;
      options_.push_back(options);
    }
    return std::unique_ptr<DeviceChunkDecoder>(
        new Decoder(this, std::move(profile), options.shard));
  };
}

void FakeDevice::Pause() {
  absl::MutexLock lock(&mutex_);
  paused_ = true;
}

void FakeDevice::Resume() {
  absl::MutexLock lock(&mutex_);
  paused_ = false;
}

void FakeDevice::Break(const absl::Status& error) {
  absl::MutexLock lock(&mutex_);
  broken_ = error;
}

std::vector<FakeDevice::Call> FakeDevice::calls() const {
  absl::MutexLock lock(&mutex_);
  return calls_;
}

void FakeDevice::WaitForCalls(size_t count) const {
  absl::MutexLock lock(&mutex_);
  const auto reached = [this, count]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return calls_.size() >= count; };
  mutex_.Await(absl::Condition(&reached));
}

int FakeDevice::most_calls_under_way() const {
  absl::MutexLock lock(&mutex_);
  return most_calls_under_way_;
}

int64_t FakeDevice::chunks_written() const {
  absl::MutexLock lock(&mutex_);
  return chunks_written_;
}

int FakeDevice::roots_created() const {
  absl::MutexLock lock(&mutex_);
  return roots_created_;
}

int FakeDevice::siblings_created() const {
  absl::MutexLock lock(&mutex_);
  return siblings_created_;
}

int FakeDevice::most_decoders_alive() const {
  absl::MutexLock lock(&mutex_);
  return most_decoders_alive_;
}

int FakeDevice::decoders_alive() const {
  absl::MutexLock lock(&mutex_);
  return decoders_alive_;
}

std::vector<DeviceChunkDecoderOptions> FakeDevice::options() const {
  absl::MutexLock lock(&mutex_);
  return options_;
}

DeviceKvView DeviceViewOf(KvBlock* block, const KvGeometry& geometry, int64_t tokens,
                          DeviceShard shard) {
  if (shard.layers == 0) shard.layers = geometry.layers - shard.first_layer;
  const MutableKvView host = block->mutable_view();
  DeviceKvView view;
  view.tokens = tokens;
  const auto add = [&](const std::vector<MutableKvTensor>& from, std::vector<DeviceKvTensor>* to) {
    for (int i = 0; i < shard.layers && !from.empty(); ++i) {
      const MutableKvTensor& tensor = from[shard.first_layer + i];
      to->push_back({tensor.at(0, shard.first_head), tensor.token_stride, tensor.head_stride});
    }
  };
  add(host.keys, &view.keys);
  add(host.values, &view.values);
  return view;
}

PagedMemory::PagedMemory(const KvGeometry& geometry, int64_t tokens, int64_t block_size)
    : geometry_(geometry),
      tokens_(tokens),
      block_size_(block_size),
      num_blocks_(2 * ((tokens - 1) / block_size + 1) + 1) {
  // Every second block, the last first.
  for (int64_t block = num_blocks_ - 2; block > 0; block -= 2) {
    table_.push_back(static_cast<int32_t>(block));
  }
  layers_.resize(geometry.layers);
  for (std::vector<uint16_t>& layer : layers_) {
    layer.assign(static_cast<size_t>(geometry.planes * num_blocks_ * block_size *
                                     geometry.kv_heads * geometry.head_size),
                 kGarbage);
  }
}

PagedKvView PagedMemory::view() {
  PagedKvView view;
  view.num_blocks = num_blocks_;
  view.block_size = block_size_;
  view.head_stride = geometry_.head_size;
  view.token_stride = view.head_stride * geometry_.kv_heads;
  view.block_stride = view.token_stride * block_size_;
  for (std::vector<uint16_t>& layer : layers_) {
    uint16_t* const values = layer.data() + num_blocks_ * view.block_stride;
    view.layers.push_back({layer.data(), geometry_.has_values() ? values : nullptr});
  }
  view.block_table_dev = table_.data();
  view.block_table_entries = static_cast<int64_t>(table_.size());
  return view;
}

KvBlock PagedMemory::Gather() const {
  KvBlock out(geometry_, tokens_);
  const MutableKvView to = out.mutable_view();
  const int64_t row = int64_t{1} * geometry_.kv_heads * geometry_.head_size;
  for (int layer = 0; layer < geometry_.layers; ++layer) {
    for (int plane = 0; plane < geometry_.planes; ++plane) {
      const bool values = plane == 1;
      for (int64_t token = 0; token < tokens_; ++token) {
        const int64_t block = table_[token / block_size_] + (values ? num_blocks_ : 0);
        const uint16_t* from =
            layers_[layer].data() + (block * block_size_ + token % block_size_) * row;
        std::copy(from, from + row, (values ? to.values : to.keys)[layer].at(token, 0));
      }
    }
  }
  return out;
}

}  // namespace kvstream

#include "client/cuda_chunk_decoder.h"

#include <utility>
#include <vector>

#include "absl/types/variant.h"
#include "codec/cuda/device_decoder.h"

namespace kvstream {
namespace {

class CudaChunkDecoder final : public DeviceChunkDecoder {
 public:
  explicit CudaChunkDecoder(std::unique_ptr<DeviceDecoder> decoder)
      : decoder_(std::move(decoder)) {}

  absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> CreateSibling() const override {
    // Reads nothing of this decoder but what it shares with its siblings.
    absl::StatusOr<std::unique_ptr<DeviceDecoder>> sibling = decoder_->CreateSibling();
    if (!sibling.ok()) return sibling.status();
    return WrapDeviceDecoder(*std::move(sibling));
  }

  absl::StatusOr<DecodeTicket> Decode(absl::Span<const DeviceChunk> chunks, const DeviceKv& out,
                                      void* stream) override {
    return absl::visit([&](const auto& view) { return decoder_->Decode(chunks, view, stream); },
                       out);
  }

  absl::StatusOr<bool> Done(DecodeTicket ticket) override { return decoder_->Done(ticket); }

  absl::Status Finish(DecodeTicket ticket, std::vector<absl::Status>* chunk_statuses) override {
    return decoder_->Finish(ticket, chunk_statuses);
  }

 private:
  const std::unique_ptr<DeviceDecoder> decoder_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceChunkDecoder>> CreateCudaChunkDecoder(
    std::shared_ptr<const Profile> profile, const DeviceChunkDecoderOptions& options) {
  DeviceDecoderOptions cuda;
  cuda.device_ordinal = options.device_ordinal;
  cuda.shard = options.shard;
  cuda.max_batch_chunks = options.max_batch_chunks;
  // One more, so that a batch can be copied while as many as may be are under way.
  cuda.staging_slots = options.calls_under_way + 1;
  absl::StatusOr<std::unique_ptr<DeviceDecoder>> decoder =
      DeviceDecoder::Create(std::move(profile), cuda);
  if (!decoder.ok()) return decoder.status();
  return WrapDeviceDecoder(*std::move(decoder));
}

std::unique_ptr<DeviceChunkDecoder> WrapDeviceDecoder(std::unique_ptr<DeviceDecoder> decoder) {
  return std::make_unique<CudaChunkDecoder>(std::move(decoder));
}

}  // namespace kvstream

#include "client/device_encode.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/variant.h"

namespace kvstream {
namespace {

// Tokens [first, first + count) of a source. The block of a paged cache that holds `first` begins
// there.
DeviceKv Slice(const DeviceKv& kv, int64_t first, int64_t count) {
  DeviceKv out = kv;
  if (auto* view = absl::get_if<DeviceKvView>(&out)) {
    view->tokens = count;
    for (auto* tensors : {&view->keys, &view->values}) {
      for (DeviceKvTensor& tensor : *tensors) {
        tensor.data_dev = static_cast<uint16_t*>(tensor.data_dev) + first * tensor.token_stride;
      }
    }
  } else {
    PagedKvView& paged = absl::get<PagedKvView>(out);
    paged.block_table_dev += first / paged.block_size;
    paged.block_table_entries -= first / paged.block_size;
  }
  return out;
}

absl::StatusOr<std::vector<EncodedChunk>> Encode(DeviceEncoder* encoder, const DeviceKv& kv,
                                                 int64_t tokens, int64_t first_position,
                                                 void* stream) {
  if (const auto* view = absl::get_if<DeviceKvView>(&kv)) {
    return encoder->Encode(*view, first_position, stream);
  }
  return encoder->Encode(absl::get<PagedKvView>(kv), tokens, first_position, stream);
}

}  // namespace

DeviceEncodeFn WrapDeviceEncoder(std::unique_ptr<DeviceEncoder> encoder) {
  // std::function copies what it holds.
  std::shared_ptr<DeviceEncoder> shared = std::move(encoder);
  return [shared](const DeviceKv& kv, int64_t tokens, int64_t first_position, void* stream) {
    return Encode(shared.get(), kv, tokens, first_position, stream);
  };
}

absl::StatusOr<DeviceEncodeFn> CreateCudaEncoder(std::shared_ptr<const Profile> profile,
                                                 int device_ordinal) {
  DeviceEncoderOptions options;
  options.device_ordinal = device_ordinal;
  options.max_batch_chunks = kDeviceEncodeBatchChunks;
  absl::StatusOr<std::unique_ptr<DeviceEncoder>> encoder =
      DeviceEncoder::Create(std::move(profile), options);
  if (!encoder.ok()) return encoder.status();
  return WrapDeviceEncoder(*std::move(encoder));
}

absl::Status ValidateDeviceSource(const Profile& profile, const DeviceTarget& source) {
  DeviceShard shard = source.shard;
  if (absl::Status status = ResolveShard(profile.geometry(), &shard); !status.ok()) return status;
  if (shard.layers != profile.geometry().layers || shard.heads != profile.geometry().kv_heads) {
    return absl::InvalidArgumentError(
        "device memory: a part of the model cannot be encoded, only the whole of it");
  }
  if (const auto* paged = absl::get_if<PagedKvView>(&source.kv)) {
    if (profile.chunk_tokens() % paged->block_size != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("device memory: chunks of ", profile.chunk_tokens(),
                       " tokens are not whole blocks of ", paged->block_size));
    }
  }
  return absl::OkStatus();
}

EncodeWork EncodeFromDevice(DeviceEncodeFn encode, const DeviceTarget& source) {
  EncodeWork work;
  work.batch_chunks = kDeviceEncodeBatchChunks;
  work.make = [encode = std::move(encode), kv = source.kv,
               stream = source.stream]() -> absl::StatusOr<EncodeFn> {
    return [encode, kv, stream](int64_t first_token, int64_t tokens) {
      return encode(Slice(kv, first_token, tokens), tokens, first_token, stream);
    };
  };
  return work;
}

}  // namespace kvstream

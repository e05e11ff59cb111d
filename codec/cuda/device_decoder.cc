#include "codec/cuda/device_decoder.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "codec/cuda/create_on.h"
#include "codec/cuda/internal/backend.h"
#include "codec/cuda/internal/decode_batch.h"
#include "codec/cuda/internal/device_memory.h"
#include "codec/cuda/internal/device_tables.h"
#include "codec/cuda/internal/staging.h"
#include "codec/cuda/internal/target.h"
#include "codec/cuda/internal/workspace.h"

namespace kvstream {
namespace {

using cuda::BatchDev;
using cuda::Memory;
using cuda::ParsedChunk;
using cuda::TensorDev;

// Tickets of which the outcome is kept.
constexpr int64_t kTickets = 64;
// Staging made at creation, per coordinate and token of a batch: more than any level of a
// calibrated profile needs.
constexpr double kStagingBytesPerSymbol = 0.5;

absl::Status WithChunk(const absl::Status& status, int64_t chunk) {
  return absl::Status(status.code(), absl::StrCat("chunk ", chunk, ": ", status.message()));
}

absl::Status StatusOfBits(uint32_t bits) {
  if ((bits & cuda::kDamagedBlock) != 0)
    return absl::DataLossError("segment: a block does not decode");
  if ((bits & cuda::kBadBlockTable) != 0)
    return absl::InvalidArgumentError("the block table leads out of the cache");
  return absl::OkStatus();
}

}  // namespace

class DeviceDecoder::Impl {
 public:
  Impl(std::shared_ptr<const cuda::DeviceTables> tables, const DeviceDecoderOptions& options)
      : tables_(std::move(tables)),
        options_(options),
        backend_(tables_->shared_backend()),
        batch_(*tables_) {}
  ~Impl();

  absl::Status Allocate();
  absl::StatusOr<std::unique_ptr<DeviceDecoder>> CreateSibling() const;

  const cuda::ShardLayout& layout() const { return tables_->layout(); }
  absl::StatusOr<DecodeTicket> Decode(absl::Span<const DeviceChunk> chunks,
                                      const cuda::Target& target, void* stream);
  absl::StatusOr<bool> Done(DecodeTicket ticket);
  absl::Status Finish(DecodeTicket ticket, std::vector<absl::Status>* chunk_statuses);
  int64_t device_bytes() const;

 private:
  absl::Status CheckTicket(DecodeTicket ticket) const;
  absl::Status Parse(absl::Span<const DeviceChunk> chunks, int64_t tokens, int64_t ticket);
  absl::Status Enqueue(size_t first, size_t count, const cuda::Target& target, void* stream);

  const std::shared_ptr<const cuda::DeviceTables> tables_;
  const DeviceDecoderOptions options_;
  const std::shared_ptr<cuda::Backend> backend_;
  cuda::DecodeBatch batch_;

  cuda::Workspace workspace_;
  std::vector<cuda::Staging> staging_;
  size_t next_staging_ = 0;
  Memory status_dev_;   // uint32 [kTickets][kMaxChunks]
  Memory status_host_;  // the same, pinned
  struct Call {
    int chunks = 0;
    cuda::Event done;
  };
  std::vector<Call> calls_;
  DecodeTicket next_ticket_ = 0;

  std::vector<ParsedChunk> parsed_;
  std::vector<cuda::LevelDev> levels_;
};

DeviceDecoder::Impl::~Impl() {
  const cuda::DeviceScope scope(*backend_);
  for (cuda::Staging& staging : staging_) staging.Wait().IgnoreError();
  for (Call& call : calls_) call.done.Wait().IgnoreError();
}

absl::Status DeviceDecoder::Impl::Allocate() {
  const ProfileData& data = tables_->data();
  const size_t symbols = static_cast<size_t>(options_.max_batch_chunks) *
                         static_cast<size_t>(data.coordinates) *
                         static_cast<size_t>(data.chunk_tokens);
  const cuda::DeviceScope scope(*backend_);
  absl::Status status = workspace_.Allocate(*tables_, options_.max_batch_chunks);
  if (!status.ok()) return status;
  const size_t words = static_cast<size_t>(kTickets) * kMaxChunks * sizeof(uint32_t);
  status = status_dev_.Allocate(backend_, Memory::Kind::kDevice, words);
  if (status.ok()) status = status_host_.Allocate(backend_, Memory::Kind::kPinned, words);
  if (!status.ok()) return status;

  staging_.resize(static_cast<size_t>(options_.staging_slots));
  const size_t staging_bytes =
      65536 + static_cast<size_t>(static_cast<double>(symbols) * kStagingBytesPerSymbol);
  for (cuda::Staging& staging : staging_) {
    status = staging.Create(backend_, staging_bytes);
    if (!status.ok()) return status;
  }
  calls_.resize(kTickets);
  for (Call& call : calls_) {
    status = call.done.Create(backend_);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DeviceDecoder>> DeviceDecoder::Impl::CreateSibling() const {
  auto impl = absl::make_unique<Impl>(tables_, options_);
  absl::Status status = impl->Allocate();
  if (!status.ok()) return status;
  return absl::make_unique<DeviceDecoder>(std::move(impl));
}

absl::Status DeviceDecoder::Impl::Parse(absl::Span<const DeviceChunk> chunks, int64_t tokens,
                                        int64_t ticket) {
  parsed_.resize(chunks.size());
  for (size_t i = 0; i < chunks.size(); ++i) {
    absl::Status status = cuda::ParseChunk(tables_->data(), chunks[i].segments, &parsed_[i]);
    if (!status.ok()) return WithChunk(status, static_cast<int64_t>(i));
    const int64_t count = parsed_[i].header().tokens;
    const int64_t first = chunks[i].first_token;
    if (first < 0 || first > tokens || count > tokens - first) {
      return WithChunk(
          absl::InvalidArgumentError(absl::StrCat("tokens ", first, " to ", first + count,
                                                  " are not among the output's ", tokens)),
          static_cast<int64_t>(i));
    }
    parsed_[i].first_token = first;
    parsed_[i].status = static_cast<int32_t>(ticket % kTickets * kMaxChunks + i);
  }
  return absl::OkStatus();
}

absl::Status DeviceDecoder::Impl::Enqueue(size_t first, size_t count, const cuda::Target& target,
                                          void* stream) {
  const absl::Span<const ParsedChunk> chunks = absl::MakeConstSpan(parsed_).subspan(first, count);
  cuda::Staging& staging = staging_[next_staging_];
  next_staging_ = (next_staging_ + 1) % staging_.size();
  const size_t bytes =
      batch_.StagingBytes(chunks) + cuda::Staging::Bytes<TensorDev>(target.tensors.size());
  absl::Status status = staging.Begin(backend_, bytes);
  if (!status.ok()) return status;
  BatchDev batch = workspace_.buffers();
  batch.status = status_dev_.as<uint32_t>();
  int failed = 0;
  status = batch_.Prepare(chunks, &staging, &batch, &levels_, &failed);
  if (!status.ok()) return WithChunk(status, static_cast<int64_t>(first) + failed);
  batch.out = target.out;
  batch.out.tensors = staging.Put(target.tensors);
  if (batch.out.tensors == nullptr)
    return absl::InternalError("staging memory was reckoned too small");
  status = staging.Upload(*backend_, stream);
  if (status.ok()) status = cuda::LaunchBatch(*backend_, batch, levels_, stream);
  // Also after a failure: what was launched still reads the staging memory.
  const absl::Status end = staging.End(stream);
  return status.ok() ? end : status;
}

absl::StatusOr<DecodeTicket> DeviceDecoder::Impl::Decode(absl::Span<const DeviceChunk> chunks,
                                                         const cuda::Target& target, void* stream) {
  if (chunks.empty() || chunks.size() > kMaxChunks) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", chunks.size(), " chunks, a call has 1 to ", kMaxChunks));
  }
  const DecodeTicket ticket = next_ticket_;
  absl::Status status = Parse(chunks, target.tokens, ticket);
  if (!status.ok()) return status;

  const cuda::DeviceScope scope(*backend_);
  Call& call = calls_[ticket % kTickets];
  status = call.done.Wait();  // of the ticket that had the place before
  if (!status.ok()) return status;
  const size_t offset = static_cast<size_t>(ticket % kTickets) * kMaxChunks;
  const size_t words = chunks.size() * sizeof(uint32_t);
  uint32_t* const status_dev = status_dev_.as<uint32_t>() + offset;
  status = backend_->Clear(status_dev, words, stream);
  if (!status.ok()) return status;
  const size_t batch = static_cast<size_t>(options_.max_batch_chunks);
  for (size_t first = 0; first < chunks.size(); first += batch) {
    status = Enqueue(first, std::min(batch, chunks.size() - first), target, stream);
    if (!status.ok()) return status;
  }
  status = backend_->Download(status_host_.as<uint32_t>() + offset, status_dev, words, stream);
  if (status.ok()) status = call.done.Record(stream);
  if (!status.ok()) return status;
  call.chunks = static_cast<int>(chunks.size());
  ++next_ticket_;
  return ticket;
}

absl::Status DeviceDecoder::Impl::CheckTicket(DecodeTicket ticket) const {
  if (ticket < 0 || ticket >= next_ticket_ || ticket < next_ticket_ - kTickets)
    return absl::InvalidArgumentError(absl::StrCat("there is no decode ticket ", ticket));
  return absl::OkStatus();
}

absl::StatusOr<bool> DeviceDecoder::Impl::Done(DecodeTicket ticket) {
  absl::Status status = CheckTicket(ticket);
  if (!status.ok()) return status;
  const cuda::DeviceScope scope(*backend_);
  return calls_[ticket % kTickets].done.Done();
}

absl::Status DeviceDecoder::Impl::Finish(DecodeTicket ticket,
                                         std::vector<absl::Status>* chunk_statuses) {
  absl::Status status = CheckTicket(ticket);
  if (!status.ok()) return status;
  Call& call = calls_[ticket % kTickets];
  {
    const cuda::DeviceScope scope(*backend_);
    status = call.done.Wait();
  }
  if (!status.ok()) return status;
  const uint32_t* const words =
      status_host_.as<uint32_t>() + static_cast<size_t>(ticket % kTickets) * kMaxChunks;
  if (chunk_statuses != nullptr) chunk_statuses->clear();
  for (int i = 0; i < call.chunks; ++i) {
    const absl::Status chunk = StatusOfBits(words[i]);
    if (chunk_statuses != nullptr) chunk_statuses->push_back(chunk);
    if (status.ok() && !chunk.ok()) status = WithChunk(chunk, i);
  }
  return status;
}

int64_t DeviceDecoder::Impl::device_bytes() const {
  int64_t bytes = tables_->bytes() + static_cast<int64_t>(workspace_.bytes() + status_dev_.bytes());
  for (const cuda::Staging& staging : staging_)
    bytes += static_cast<int64_t>(staging.device_bytes());
  return bytes;
}

absl::StatusOr<std::unique_ptr<DeviceDecoder>> cuda::CreateDecoderOn(
    std::shared_ptr<Backend> backend, std::shared_ptr<const Profile> profile,
    const DeviceDecoderOptions& options) {
  if (options.max_batch_chunks < 1 || options.max_batch_chunks > DeviceDecoder::kMaxChunks) {
    return absl::InvalidArgumentError(absl::StrCat("max_batch_chunks is ", options.max_batch_chunks,
                                                   ", must be 1 to ", DeviceDecoder::kMaxChunks));
  }
  if (options.staging_slots < 2 || options.staging_slots > 16) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging_slots is ", options.staging_slots, ", must be 2 to 16"));
  }
  absl::StatusOr<std::shared_ptr<const DeviceTables>> tables =
      DeviceTables::Create(std::move(backend), std::move(profile), options.shard);
  if (!tables.ok()) return tables.status();
  auto impl = absl::make_unique<DeviceDecoder::Impl>(*std::move(tables), options);
  absl::Status status = impl->Allocate();
  if (!status.ok()) return status;
  return absl::make_unique<DeviceDecoder>(std::move(impl));
}

absl::Status CheckCudaDevice(int device_ordinal) {
  return cuda::CreateCudaBackend(device_ordinal).status();
}

absl::StatusOr<std::unique_ptr<DeviceDecoder>> DeviceDecoder::Create(
    std::shared_ptr<const Profile> profile, const DeviceDecoderOptions& options) {
  absl::StatusOr<std::shared_ptr<cuda::Backend>> backend =
      cuda::CreateCudaBackend(options.device_ordinal);
  if (!backend.ok()) return backend.status();
  return cuda::CreateDecoderOn(*std::move(backend), std::move(profile), options);
}

DeviceDecoder::DeviceDecoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceDecoder::~DeviceDecoder() = default;

absl::StatusOr<std::unique_ptr<DeviceDecoder>> DeviceDecoder::CreateSibling() const {
  return impl_->CreateSibling();
}

absl::StatusOr<DecodeTicket> DeviceDecoder::Decode(absl::Span<const DeviceChunk> chunks,
                                                   const DeviceKvView& out, void* stream) {
  const absl::StatusOr<cuda::Target> target = cuda::TargetOf(impl_->layout(), out);
  return target.ok() ? impl_->Decode(chunks, *target, stream) : target.status();
}

absl::StatusOr<DecodeTicket> DeviceDecoder::Decode(absl::Span<const DeviceChunk> chunks,
                                                   const PagedKvView& out, void* stream) {
  const absl::StatusOr<cuda::Target> target = cuda::TargetOf(impl_->layout(), out);
  return target.ok() ? impl_->Decode(chunks, *target, stream) : target.status();
}

absl::StatusOr<bool> DeviceDecoder::Done(DecodeTicket ticket) { return impl_->Done(ticket); }
absl::Status DeviceDecoder::Finish(DecodeTicket ticket, std::vector<absl::Status>* chunk_statuses) {
  return impl_->Finish(ticket, chunk_statuses);
}
int64_t DeviceDecoder::device_bytes() const { return impl_->device_bytes(); }

}  // namespace kvstream

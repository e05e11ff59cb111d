// kvstreamctl encode, decode
#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/atomic_file.h"
#include "client/cli/command.h"
#include "client/cli/parallel.h"
#include "client/cli/status_macros.h"
#include "client/kv_file.h"
#include "client/units.h"
#include "codec/chunk_file.h"
#include "codec/decoder.h"
#include "codec/encoder.h"

namespace kvstream::cli {
namespace {

struct CodecOptions {
  std::string profile;
  std::string in;
  std::string out;
  int level = -1;  // -1: the finest
  int threads = DefaultThreads();
};

absl::StatusOr<std::vector<EncodedChunk>> EncodeAll(const std::shared_ptr<const Profile>& profile,
                                                    const KvView& kv, int threads, Format format) {
  const int64_t chunk_tokens = profile->chunk_tokens();
  const int64_t count = (kv.tokens + chunk_tokens - 1) / chunk_tokens;
  std::vector<EncodedChunk> chunks(static_cast<size_t>(count));
  ProgressBar bar(format, "encoding", count);
  const auto make_worker = [&](ItemFn* worker) -> absl::Status {
    CLI_ASSIGN_OR_RETURN(std::unique_ptr<ChunkEncoder> created, ChunkEncoder::Create(profile));
    const std::shared_ptr<ChunkEncoder> encoder = std::move(created);
    *worker = [&, encoder](int64_t chunk) -> absl::Status {
      const int64_t first = chunk * chunk_tokens;
      const KvView part = kv.Slice(first, std::min(chunk_tokens, kv.tokens - first));
      CLI_ASSIGN_OR_RETURN(chunks[static_cast<size_t>(chunk)], encoder->Encode(part, first));
      return absl::OkStatus();
    };
    return absl::OkStatus();
  };
  CLI_RETURN_IF_ERROR(
      ForEachInParallel(count, threads, make_worker, [&bar](int64_t done) { bar.Update(done); }));
  return chunks;
}

absl::Status Encode(const CodecOptions& options, Format format) {
  const absl::Time start = absl::Now();
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, ReadProfile(options.profile));
  CLI_ASSIGN_OR_RETURN(const std::unique_ptr<KvFile> file,
                       KvFile::Open(options.in, profile->geometry()));
  if (file->kv().tokens == 0) {
    return absl::InvalidArgumentError(absl::StrCat(options.in, ": holds the KV of no tokens"));
  }
  if (!file->has_tokens()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.in, ": tensor tokens is missing; it holds the context's token ids"));
  }
  CLI_ASSIGN_OR_RETURN(const std::vector<EncodedChunk> chunks,
                       EncodeAll(profile, file->kv(), options.threads, format));
  CLI_ASSIGN_OR_RETURN(const std::string bytes, WriteChunkFile(*profile, file->tokens(), chunks));
  CLI_RETURN_IF_ERROR(WriteFileAtomically(options.out, bytes));

  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  const int64_t tokens = file->kv().tokens;
  const double values = static_cast<double>(tokens * profile->geometry().values_per_token());
  Json levels = Json::array();
  std::string text =
      absl::StrFormat("%d tokens in %d chunks, %s in %.2f s: %s\n", tokens, chunks.size(),
                      FormatBytes(bytes.size()), seconds, options.out);
  // A level is decoded from its own segments and those below, so its cost is the sum.
  uint64_t level_bytes = 0;
  for (int level = 0; level < profile->levels(); ++level) {
    for (const EncodedChunk& chunk : chunks) {
      level_bytes += chunk.segments[static_cast<size_t>(level)].size();
    }
    const double bits = static_cast<double>(level_bytes) * 8 / values;
    levels.push_back({{"bits_per_value", bits}, {"bytes", level_bytes}});
    absl::StrAppendFormat(&text, "level %d  %7.3f bits per value  %10s  %5.1f times smaller\n",
                          level, bits, FormatBytes(level_bytes), 16 / bits);
  }
  return Print(format,
               {{"levels", std::move(levels)},
                {"tokens", tokens},
                {"chunks", chunks.size()},
                {"values_per_token", profile->geometry().values_per_token()},
                {"file_bytes", bytes.size()},
                {"seconds", seconds},
                {"out", options.out}},
               text);
}

absl::Status CheckFits(const CodecOptions& options, const Profile& profile,
                       const ChunkFileView& file) {
  if (file.profile_id != profile.id()) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.in, ": was encoded with profile ", HexOf(file.profile_id), ", but ",
                     options.profile, " is ", HexOf(profile.id())));
  }
  if (options.level >= profile.levels()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--level is ", options.level, ", but the profile has levels 0 to ", profile.levels() - 1));
  }
  return absl::OkStatus();
}

absl::Status DecodeAll(const std::shared_ptr<const Profile>& profile, const ChunkFileView& file,
                       int level, int threads, Format format, const MutableKvView& out) {
  const int64_t chunk_tokens = profile->chunk_tokens();
  const int64_t count = static_cast<int64_t>(file.chunks.size());
  ProgressBar bar(format, "decoding", count);
  const auto make_worker = [&](ItemFn* worker) -> absl::Status {
    CLI_ASSIGN_OR_RETURN(std::unique_ptr<ChunkDecoder> created, ChunkDecoder::Create(profile));
    const std::shared_ptr<ChunkDecoder> decoder = std::move(created);
    *worker = [&, decoder](int64_t chunk) -> absl::Status {
      const int64_t first = chunk * chunk_tokens;
      const MutableKvView part = out.Slice(first, std::min(chunk_tokens, out.tokens - first));
      const auto segments = absl::MakeConstSpan(file.chunks[static_cast<size_t>(chunk)]);
      absl::Status decoded =
          decoder->Decode(segments.subspan(0, static_cast<size_t>(level) + 1), part);
      if (decoded.ok()) return decoded;
      return absl::Status(decoded.code(), absl::StrCat("chunk ", chunk, ": ", decoded.message()));
    };
    return absl::OkStatus();
  };
  return ForEachInParallel(count, threads, make_worker, [&bar](int64_t done) { bar.Update(done); });
}

absl::Status Decode(const CodecOptions& options, Format format) {
  const absl::Time start = absl::Now();
  CLI_ASSIGN_OR_RETURN(const std::shared_ptr<const Profile> profile, ReadProfile(options.profile));
  CLI_ASSIGN_OR_RETURN(const std::string bytes,
                       ReadFile(options.in, std::numeric_limits<int64_t>::max()));
  const absl::StatusOr<ChunkFileView> file = ParseChunkFile(bytes);
  if (!file.ok()) {
    return absl::Status(file.status().code(),
                        absl::StrCat(options.in, ": ", file.status().message()));
  }
  CLI_RETURN_IF_ERROR(CheckFits(options, *profile, *file));
  const int level = options.level < 0 ? profile->levels() - 1 : options.level;
  const int64_t tokens = static_cast<int64_t>(file->tokens.size());
  CLI_ASSIGN_OR_RETURN(const KvBuffer buffer, KvBuffer::Create(profile->geometry(), tokens));
  const absl::Status decoded =
      DecodeAll(profile, *file, level, options.threads, format, buffer.view());
  if (!decoded.ok()) {
    return absl::Status(decoded.code(), absl::StrCat(options.in, ": ", decoded.message()));
  }
  CLI_RETURN_IF_ERROR(
      WriteKvFile(options.out, profile->geometry(), buffer.const_view(), file->tokens));

  uint64_t used = 0;
  for (const auto& chunk : file->chunks) {
    for (int i = 0; i <= level; ++i) used += chunk[static_cast<size_t>(i)].size();
  }
  const double bits = static_cast<double>(used) * 8 /
                      static_cast<double>(tokens * profile->geometry().values_per_token());
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return Print(
      format,
      {{"level", level},
       {"tokens", tokens},
       {"chunks", file->chunks.size()},
       {"bytes", used},
       {"bits_per_value", bits},
       {"seconds", seconds},
       {"out", options.out}},
      absl::StrFormat("%d tokens at level %d from %s (%.3f bits per value) in %.2f s: %s\n", tokens,
                      level, FormatBytes(used), bits, seconds, options.out));
}

}  // namespace

void AddCodecVerbs(CLI::App& app, Command& command) {
  const auto encode_options = std::make_shared<CodecOptions>();
  CLI::App* encode =
      AddVerb(app, command, "encode", "Encode a KV cache into a .kvs file",
              [encode_options](Format format) { return Encode(*encode_options, format); });
  const auto decode_options = std::make_shared<CodecOptions>();
  CLI::App* decode =
      AddVerb(app, command, "decode", "Decode a .kvs file at one level",
              [decode_options](Format format) { return Decode(*decode_options, format); });
  decode
      ->add_option("--level", decode_options->level,
                   "0, the coarsest, to the profile's finest (default)")
      ->check(CLI::NonNegativeNumber);
  encode->add_option("--in", encode_options->in, "KV cache with tokens (safetensors)")->required();
  encode->add_option("--out", encode_options->out, "the .kvs file to write")->required();
  decode->add_option("--in", decode_options->in, "a .kvs file")->required();
  decode->add_option("--out", decode_options->out, "the KV cache to write (safetensors)")
      ->required();
  for (const auto& [verb, options] :
       {std::pair(encode, encode_options), std::pair(decode, decode_options)}) {
    verb->add_option("--profile", options->profile, "the model's profile")->required();
    AddThreadsOption(*verb, options->threads);
  }
}

}  // namespace kvstream::cli

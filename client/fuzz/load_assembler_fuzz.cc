// Any bytes as a hostile server's messages, mixed with any outcomes of local work: the assembler
// must never finish with a chunk missing, hand out work that breaks its rules, or take an
// inconsistent view of a message.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "client/held_chunk.h"
#include "client/load_assembler.h"
#include "client/segment_frame.h"
#include "kvstream/v1/kvstream.pb.h"

// Loads that came to their end, so that the replay can tell that it gets there.
uint64_t fuzz_finished_loads = 0;

namespace {

using kvstream::DecodeJob;
using kvstream::HeldChunk;
using kvstream::LoadAssembler;
using kvstream::RecomputeJob;
using kvstream::SegmentFrame;

constexpr uint32_t kChunks = 4;
constexpr int kChunkTokens = 4;
constexpr int kLevels = 3;

// Takes bytes off the input; zeros when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ == size_; }
  uint8_t Byte() { return at_ < size_ ? data_[at_++] : 0; }
  std::string Bytes(size_t count) {
    std::string out;
    while (count-- > 0 && !empty()) out.push_back(static_cast<char>(Byte()));
    return out;
  }

 private:
  const uint8_t* const data_;
  const size_t size_;
  size_t at_ = 0;
};

void Check(bool holds) {
  if (!holds) std::abort();
}

// A server that keeps to the protocol most of the time, so that runs get far.
class NearlyHonestServer {
 public:
  NearlyHonestServer(bool may_recompute, const std::vector<int>& held)
      : may_recompute_(may_recompute), begun_owed_(!held.empty()) {
    for (uint32_t chunk = 0; chunk < held.size(); ++chunk) {
      parts_[chunk].next_level = held[chunk];
      parts_[chunk].level = held[chunk] - 1;
    }
  }

  static uint64_t SegmentBytes(int level) { return static_cast<uint64_t>(2 + level); }

  bool done() const { return done_; }

  kvstream::v1::LoadResponse Next(Input* input) {
    const uint8_t mischief = input->Byte();
    if (begun_owed_ && mischief < 254) {
      begun_owed_ = false;
      kvstream::v1::LoadResponse message;
      message.mutable_begun();
      return message;
    }
    uint32_t chunk = input->Byte() % kChunks;
    for (uint32_t i = 0; i < kChunks && parts_[chunk].finest(); ++i) chunk = (chunk + 1) % kChunks;
    const ChunkPart& part = parts_[chunk];
    kvstream::v1::LoadResponse message;
    const bool all_complete =
        std::all_of(parts_.begin(), parts_.end(), [](const ChunkPart& p) { return p.complete(); });
    if (part.finest() || (all_complete && input->Byte() % 4 == 0)) {
      Summarise(message.mutable_summary());
      done_ = true;
    } else if (part.level < 0 || part.complete()) {
      Plan(input, chunk, message.mutable_plan());
      if (!part.recompute && input->Byte() % 4 == 0) {
        kvstream::v1::SegmentData data;
        data.mutable_plan()->Swap(message.mutable_plan());
        Data(input, chunk, &data);
        message.mutable_data()->Swap(&data);
      }
    } else {
      Data(input, chunk, message.mutable_data());
    }
    if (message.has_data() && mischief % 4 == 1) {
      kvstream::v1::SegmentBatch batch;
      batch.add_data()->Swap(message.mutable_data());
      while (!part.complete() && input->Byte() % 4 != 0) Data(input, chunk, batch.add_data());
      message.mutable_batch()->Swap(&batch);
    }
    if (mischief < 254) return message;
    // A field of its choice is wrong.
    if (message.has_plan()) {
      if (mischief % 2) message.mutable_plan()->set_level(input->Byte());
      message.mutable_plan()->set_chunk(input->Byte() % (kChunks + 1));
    } else if (message.has_data()) {
      if (mischief % 2) message.mutable_data()->set_level(input->Byte() % (kLevels + 1));
      message.mutable_data()->set_offset(input->Byte() % 4);
    } else if (message.has_batch()) {
      message.mutable_batch()->mutable_data(0)->set_offset(input->Byte() % 4);
    } else {
      message.mutable_summary()->mutable_chunks(0)->set_level(input->Byte());
    }
    return message;
  }

 private:
  struct ChunkPart {
    int level = -1;
    int next_level = 0;
    uint64_t offset = 0;
    bool recompute = false;
    bool finest() const { return recompute || next_level == kLevels; }
    bool complete() const { return recompute || (level >= 0 && next_level > level); }
  };

  void Plan(Input* input, uint32_t chunk, kvstream::v1::ChunkPlan* plan) {
    ChunkPart& part = parts_[chunk];
    plan->set_chunk(chunk);
    for (int level = 0; level < kLevels; ++level) plan->add_segment_bytes(SegmentBytes(level));
    if (may_recompute_ && input->Byte() % 8 == 0) {
      plan->mutable_recompute();
      part.recompute = true;
      return;
    }
    part.level = std::min<int>(kLevels - 1, part.level + 1 + input->Byte() % 2);
    plan->set_level(static_cast<uint32_t>(part.level));
  }
  void Data(Input* input, uint32_t chunk, kvstream::v1::SegmentData* data) {
    ChunkPart& part = parts_[chunk];
    const uint64_t left = SegmentBytes(part.next_level) - part.offset;
    data->set_chunk(chunk);
    data->set_level(static_cast<uint32_t>(part.next_level));
    data->set_offset(part.offset);
    data->set_data(std::string(std::min<uint64_t>(left, 1 + input->Byte() % 4), 'd'));
    part.offset += data->data().size();
    if (part.offset < SegmentBytes(part.next_level)) return;
    part.offset = 0;
    ++part.next_level;
  }
  void Summarise(kvstream::v1::LoadSummary* summary) const {
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      kvstream::v1::ChunkPlan* plan = summary->add_chunks();
      plan->set_chunk(chunk);
      if (parts_[chunk].recompute) {
        plan->mutable_recompute();
      } else {
        plan->set_level(static_cast<uint32_t>(parts_[chunk].level));
      }
    }
  }

  const bool may_recompute_;
  bool begun_owed_;
  bool done_ = false;
  std::array<ChunkPart, kChunks> parts_;
};

void CheckSame(const SegmentFrame& frame, const kvstream::v1::SegmentData& data) {
  Check(frame.chunk == data.chunk() && frame.level == data.level());
  Check(frame.offset == data.offset() && frame.size == data.data().size());
  kvstream::v1::ChunkPlan plan;
  Check(plan.ParseFromString(frame.plan));
  Check(plan.SerializeAsString() == data.plan().SerializeAsString());
  std::string joined;
  for (absl::string_view piece : frame.payload) joined.append(piece.data(), piece.size());
  Check(joined == data.data());
}

// The same bytes through the parser of frames, cut in two, and through protobuf: both must agree.
absl::Status Deliver(LoadAssembler* assembler, const std::string& bytes, size_t cut) {
  cut %= bytes.size() + 1;
  const absl::string_view view = bytes;
  std::vector<SegmentFrame> frames;
  kvstream::v1::LoadResponse message;
  const bool parsed = message.ParseFromString(bytes);
  if (!kvstream::ParseSegmentFrames({view.substr(0, cut), view.substr(cut)}, &frames)) {
    if (!parsed) return absl::InternalError("not a LoadResponse");
    return assembler->OnMessage(message);
  }
  Check(!frames.empty() && frames.size() <= kvstream::kBatchFramesMax);
  if (parsed && message.has_data()) {
    Check(frames.size() == 1);
    CheckSame(frames[0], message.data());
  } else if (parsed) {
    Check(message.has_batch() && frames.size() == static_cast<size_t>(message.batch().data_size()));
    for (size_t i = 0; i < frames.size(); ++i) {
      CheckSame(frames[i], message.batch().data(static_cast<int>(i)));
    }
  } else {
    // A frame's plan is not looked into before the assembler does.
    Check(std::any_of(frames.begin(), frames.end(), [](const SegmentFrame& frame) {
      return !kvstream::v1::ChunkPlan().ParseFromString(frame.plan);
    }));
  }
  for (const SegmentFrame& frame : frames) {
    if (absl::Status status = assembler->OnData(frame); !status.ok()) return status;
  }
  return absl::OkStatus();
}

class Run {
 public:
  Run(const uint8_t* data, size_t size)
      : input_(data, size),
        shape_(Shape(&input_)),
        held_(Held(&input_, shape_)),
        assembler_(shape_, HeldChunks(held_, shape_)),
        server_(shape_.ability != kvstream::ClientRecomputeAbility::kNone, held_) {}

  void Go() {
    while (!input_.empty()) {
      if (!Step()) return;
      Check(assembler_.chunks_ready() <= kChunks);
      if (assembler_.finished()) {
        Check(assembler_.Verdict().ok());
        ++fuzz_finished_loads;
        for (const kvstream::LoadedChunk& chunk : assembler_.Result()) {
          Check(!chunk.level.has_value() || *chunk.level >= 0);
        }
        return;
      }
    }
    if (assembler_.working() || assembler_.finished()) return;
    Check(!assembler_.Verdict().ok());
    // What is in place may go on to another server.
    const std::vector<absl::optional<kvstream::LoadedChunk>> kept = assembler_.Kept();
    const std::vector<HeldChunk> held = assembler_.TakeHeld();
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      if (held[chunk].levels == 0) continue;
      Check(kept[chunk].has_value() && kept[chunk]->level == held[chunk].decoded_level);
      Check(held[chunk].levels <= kLevels && held[chunk].decoded_level < held[chunk].levels);
      Check(held[chunk].segment_bytes.size() == static_cast<size_t>(held[chunk].levels));
      const bool whole = held[chunk].decoded_level + 1 == kLevels;
      Check(whole || held[chunk].segments.size() == static_cast<size_t>(held[chunk].levels));
      for (size_t level = 0; level < held[chunk].segments.size(); ++level) {
        sum_ +=
            static_cast<uint8_t>(held[chunk].segments[level][held[chunk].segment_bytes[level] - 1]);
      }
    }
  }

 private:
  static kvstream::LoadShape Shape(Input* input) {
    kvstream::LoadShape shape;
    shape.chunk_ids.resize(kChunks);
    shape.tokens = kChunks * kChunkTokens - 1;
    shape.chunk_tokens = kChunkTokens;
    shape.levels = kLevels;
    shape.values_per_token = 2;
    const uint8_t flags = input->Byte();
    shape.ability = static_cast<kvstream::ClientRecomputeAbility>(flags % 4);
    shape.recompute_run_chunks_max = 1 + (flags >> 2) % 3;
    shape.floor_level = (flags >> 4) % 2;
    if (flags >= 0xe0) shape.fixed_level = (flags >> 5) % 3;
    return shape;
  }

  // Levels held per chunk, or none at all.
  static std::vector<int> Held(Input* input, const kvstream::LoadShape& shape) {
    if (shape.fixed_level.has_value() || input->Byte() % 4 != 0) return {};
    std::vector<int> held(kChunks);
    for (int& levels : held) {
      levels = input->Byte() % (kLevels + 1);
      if (levels <= shape.floor_level) levels = 0;
    }
    return held;
  }
  static std::vector<HeldChunk> HeldChunks(const std::vector<int>& levels,
                                           const kvstream::LoadShape& shape) {
    std::vector<HeldChunk> chunks(levels.size());
    for (size_t i = 0; i < levels.size(); ++i) {
      if (levels[i] == 0) continue;
      chunks[i].levels = levels[i];
      // Odd chunks have a level that was not decoded yet.
      chunks[i].decoded_level = levels[i] - 1;
      if (i % 2 == 1 && levels[i] == 2) chunks[i].decoded_level = shape.floor_level;
      chunks[i].stored_levels = kLevels;
      for (int level = 0; level < levels[i]; ++level) {
        chunks[i].segment_bytes.push_back(NearlyHonestServer::SegmentBytes(level));
        if (levels[i] == kLevels) continue;
        chunks[i].segments.emplace_back(new char[NearlyHonestServer::SegmentBytes(level)]());
      }
    }
    return chunks;
  }

  // False: the load has failed.
  bool Step() {
    switch (input_.Byte() % 16) {
      case 0: {
        if (input_.Byte() % 8 != 0) return true;
        const std::string bytes = input_.Bytes(input_.Byte());
        return Deliver(&assembler_, bytes, input_.Byte()).ok();
      }
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
      case 7: {
        if (server_.done() && input_.Byte() % 8 != 0) return true;
        const kvstream::v1::LoadResponse message = server_.Next(&input_);
        return Deliver(&assembler_, message.SerializeAsString(), input_.Byte()).ok();
      }
      case 8:
      case 9:
        if (absl::optional<DecodeJob> job = assembler_.NextDecode()) Begin(*job);
        return true;
      case 10:
      case 11:
        return decoding_.empty() || EndDecode();
      case 12:
      case 13:
        if (absl::optional<RecomputeJob> job = assembler_.NextRecompute()) Begin(*job);
        return true;
      default: {
        if (recomputing_.has_value()) {
          const absl::optional<RecomputeJob> job = std::exchange(recomputing_, absl::nullopt);
          const bool good = input_.Byte() % 32 != 0;
          return assembler_
              .OnRecomputed(*job, good ? absl::OkStatus() : absl::AbortedError(""),
                            absl::Seconds(1))
              .ok();
        }
        kvstream::v1::LoadProgress progress;
        assembler_.TakeProgress(&progress);
        Check(progress.recomputed_up_to() >= recomputed_up_to_);
        recomputed_up_to_ = progress.recomputed_up_to();
        return true;
      }
    }
  }

  // What is handed out must not be touched by two threads at once.
  void Begin(const DecodeJob& job) {
    Check(job.chunk < kChunks && job.level >= 0 && job.level < kLevels);
    Check(job.segments.size() == static_cast<size_t>(job.level) + 1);
    for (absl::string_view segment : job.segments) Check(!segment.empty());
    for (const DecodeJob& other : decoding_) Check(other.chunk != job.chunk);
    if (recomputing_.has_value()) {
      Check(job.chunk >= recomputing_->first_chunk + recomputing_->chunks);
    }
    decoding_.push_back(job);
  }
  void Begin(const RecomputeJob& job) {
    Check(!recomputing_.has_value() && job.chunks >= 1);
    Check(job.first_chunk + job.chunks <= kChunks);
    for (const DecodeJob& other : decoding_) Check(other.chunk >= job.first_chunk + job.chunks);
    recomputing_ = job;
  }
  bool EndDecode() {
    const DecodeJob job = decoding_.front();
    // The bytes stay valid until now.
    for (absl::string_view segment : job.segments) sum_ += static_cast<uint8_t>(segment.back());
    decoding_.erase(decoding_.begin());
    const uint8_t outcome = input_.Byte() % 32;
    const absl::Status status = outcome == 0   ? absl::DataLossError("")
                                : outcome == 1 ? absl::InternalError("")
                                               : absl::OkStatus();
    return assembler_.OnDecoded(job.chunk, job.level, status).ok();
  }

  Input input_;
  const kvstream::LoadShape shape_;
  const std::vector<int> held_;
  LoadAssembler assembler_;
  NearlyHonestServer server_;
  std::vector<DecodeJob> decoding_;
  absl::optional<RecomputeJob> recomputing_;
  uint32_t recomputed_up_to_ = 0;
  volatile uint64_t sum_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Run(data, size).Go();
  return 0;
}

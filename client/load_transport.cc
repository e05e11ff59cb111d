#include "client/load_transport.h"

#include <grpcpp/channel.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <chrono>
#include <cstdint>
#include <utility>

namespace kvstream {
namespace {

constexpr char kMethod[] = "/kvstream.v1.KVStream/Load";

enum Tag : intptr_t { kStart = 1, kRead, kWrite, kFinish, kWakeUp };

void* TagOf(Tag tag) { return reinterpret_cast<void*>(static_cast<intptr_t>(tag)); }

}  // namespace

LoadTransport::LoadTransport(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {
  context_.emplace();
}

LoadTransport::~LoadTransport() {
  if (launched_ && !over_) {
    Cancel();
    grpc::ByteBuffer ignored;
    while (!over_) Next(absl::InfiniteDuration(), &ignored);
  }
  // A wake-up may be on its way.
  queue_.Shutdown();
  void* tag;
  bool ok;
  while (queue_.Next(&tag, &ok)) {
  }
}

void LoadTransport::Start() {
  launched_ = true;
  stream_ = stub_.PrepareCall(&*context_, kMethod, &queue_);
  stream_->StartCall(TagOf(kStart));
}

void LoadTransport::Restart() {
  stream_.reset();
  context_.emplace();
  incoming_.Clear();
  status_ = grpc::Status();
  started_ = write_under_way_ = half_closed_ = reads_ended_ = finishing_ = over_ = false;
  Start();
}

absl::optional<absl::string_view> LoadTransport::trailing(absl::string_view key) const {
  const auto& metadata = context_->GetServerTrailingMetadata();
  const auto found = metadata.find(grpc::string_ref(key.data(), key.size()));
  if (found == metadata.end()) return absl::nullopt;
  return absl::string_view(found->second.data(), found->second.size());
}

void LoadTransport::Write(const v1::LoadRequest& request) {
  write_under_way_ = true;
  stream_->Write(request, TagOf(kWrite));
}

void LoadTransport::WritesDone() {
  write_under_way_ = true;
  half_closed_ = true;
  stream_->WritesDone(TagOf(kWrite));
}

void LoadTransport::Wake() {
  if (wake_pending_.exchange(true)) return;
  wake_alarm_.Set(&queue_, std::chrono::system_clock::now(), TagOf(kWakeUp));
}

// The library wants every other operation back before Finish, and Finish exactly once.
void LoadTransport::FinishWhenQuiet() {
  if (!reads_ended_ || write_under_way_ || finishing_) return;
  finishing_ = true;
  stream_->Finish(&status_, TagOf(kFinish));
}

LoadTransport::Event LoadTransport::Next(absl::Duration timeout, grpc::ByteBuffer* message) {
  const auto deadline =
      timeout == absl::InfiniteDuration()
          ? std::chrono::system_clock::time_point::max()
          : std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout);
  for (;;) {
    void* tag;
    bool ok;
    if (queue_.AsyncNext(&tag, &ok, deadline) != grpc::CompletionQueue::GOT_EVENT) {
      return Event::kTimeout;
    }
    switch (static_cast<Tag>(reinterpret_cast<intptr_t>(tag))) {
      case kStart:
        if (!ok) {
          reads_ended_ = true;
          FinishWhenQuiet();
          break;
        }
        started_ = true;
        stream_->Read(&incoming_, TagOf(kRead));
        return Event::kStarted;
      case kRead:
        if (!ok) {
          reads_ended_ = true;
          FinishWhenQuiet();
          break;
        }
        message->Swap(&incoming_);
        incoming_.Clear();
        stream_->Read(&incoming_, TagOf(kRead));
        return Event::kMessage;
      case kWrite:
        write_under_way_ = false;
        FinishWhenQuiet();
        return Event::kWritten;
      case kFinish:
        over_ = true;
        return Event::kEnd;
      case kWakeUp:
        wake_pending_ = false;
        return Event::kWake;
    }
  }
}

}  // namespace kvstream

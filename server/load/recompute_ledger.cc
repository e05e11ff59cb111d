#include "server/load/recompute_ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvstream {

RecomputeLedger::RecomputeLedger(const ChunkTable* chunks, PrefillModel declared)
    : chunks_(chunks), model_(declared), first_chunk_(chunks->size()) {}

void RecomputeLedger::OnGiven(uint32_t chunk, absl::Duration now) {
  if (idle()) busy_since_ = now;
  first_chunk_ = std::min(first_chunk_, chunk);
  ++given_chunks_;
  given_tokens_ += chunks_->tokens(chunk);
  given_pairs_ += chunks_->token_pairs(chunk, chunk + 1);
}

absl::Status RecomputeLedger::OnReport(uint32_t recomputed_up_to, uint64_t recomputed_tokens,
                                       absl::Duration recompute_time, absl::Duration now,
                                       bool* advanced) {
  *advanced = false;
  if (recomputed_up_to > chunks_->size()) {
    return absl::InvalidArgumentError(absl::StrCat("progress reports ", recomputed_up_to,
                                                   " chunks recomputed of ", chunks_->size()));
  }
  if (recomputed_up_to < recomputed_up_to_ || recomputed_tokens < reported_tokens_ ||
      recompute_time < reported_time_) {
    return absl::InvalidArgumentError("progress reports a recompute counter that goes back");
  }
  // A chunk may be done twice where the loss of an earlier one takes its predecessors away.
  if (recomputed_tokens > 2 * chunks_->tokens(0, chunks_->size())) {
    return absl::InvalidArgumentError("progress reports more tokens recomputed than the load has");
  }
  if (recompute_time > absl::Hours(24 * 30)) {
    return absl::InvalidArgumentError("progress reports more than 30 days of recompute");
  }
  if (recomputed_up_to == recomputed_up_to_ && recomputed_tokens == reported_tokens_) {
    reported_time_ = recompute_time;
    return absl::OkStatus();
  }
  *advanced = true;
  busy_since_ = now;
  recomputed_up_to_ = recomputed_up_to;
  reported_tokens_ = recomputed_tokens;
  reported_time_ = recompute_time;
  if (first_chunk_ < chunks_->size()) {
    model_.Learn(recomputed_tokens, chunks_->token_pairs_of_first(first_chunk_, recomputed_tokens),
                 recompute_time);
  }
  return absl::OkStatus();
}

uint64_t RecomputeLedger::done_tokens() const {
  uint64_t done = reported_tokens_;
  // A client that counts chunks only; it may be at work on the last of them.
  if (done == 0 && recomputed_up_to_ > first_chunk_ + 1) {
    done = chunks_->tokens(first_chunk_, recomputed_up_to_ - 1);
  }
  return std::min(done, given_tokens_);
}

double RecomputeLedger::remaining_s(const PrefillModel& model) const {
  const uint64_t done = done_tokens();
  if (done >= given_tokens_) return 0;
  const double done_pairs =
      std::min(chunks_->token_pairs_of_first(first_chunk_, done), given_pairs_);
  return model.seconds(given_tokens_ - done, given_pairs_ - done_pairs);
}

double RecomputeLedger::current_chunk_s(const PrefillModel& model) const {
  const uint64_t left = given_tokens_ - done_tokens();
  if (left == 0) return 0;
  const double chunk_tokens =
      std::min(static_cast<double>(given_tokens_) / given_chunks_, static_cast<double>(left));
  return remaining_s(model) * chunk_tokens / static_cast<double>(left);
}

PrefillModel RecomputeLedger::model_now(absl::Duration now, absl::Duration grace) const {
  if (idle() || !model_.known()) return model_;
  const double elapsed = absl::ToDoubleSeconds(now - busy_since_ - grace);
  const double expected = current_chunk_s(model_) * model_.safety();
  if (!(elapsed > expected) || !(expected > 0)) return model_;
  return model_.Slower(std::min(elapsed / expected, 1e3));
}

double RecomputeLedger::backlog_s(absl::Duration now, const PrefillModel& model) const {
  const double elapsed = std::max(absl::ToDoubleSeconds(now - busy_since_), 0.0);
  return std::max(remaining_s(model) - std::min(elapsed, current_chunk_s(model)), 0.0);
}

double RecomputeLedger::outstanding_s() const {
  constexpr double kUnknownSecondsPerToken = 0.020;
  if (idle()) return 0;
  if (model_.known()) return remaining_s(model_);
  return static_cast<double>(given_tokens_ - done_tokens()) * kUnknownSecondsPerToken;
}

}  // namespace kvstream

#include "server/load/recompute_ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kvstream {

RecomputeLedger::RecomputeLedger(const ChunkTable* chunks, PrefillModel declared)
    : chunks_(chunks), model_(declared), first_chunk_(chunks->size()) {}

void RecomputeLedger::OnGiven(uint32_t chunk, bool client_idle, absl::Duration arrives) {
  if (client_idle) busy_since_ = arrives;
  first_chunk_ = std::min(first_chunk_, chunk);
  ++given_chunks_;
  given_tokens_ += chunks_->tokens(chunk);
  given_pairs_ += chunks_->token_pairs(chunk, chunk + 1);
}

void RecomputeLedger::OnGivenUp(uint32_t chunk) {
  --given_chunks_;
  given_tokens_ -= chunks_->tokens(chunk);
  given_pairs_ -= chunks_->token_pairs(chunk, chunk + 1);
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

uint64_t RecomputeLedger::done_tokens() const { return std::min(reported_tokens_, given_tokens_); }

RecomputeLedger::Work RecomputeLedger::remaining(uint32_t front_end) const {
  Work work;
  uint64_t tokens = given_tokens_;
  double pairs = given_pairs_;
  if (front_end < chunks_->size()) {
    tokens = std::min(tokens, chunks_->tokens(0, front_end));
    pairs = std::min(pairs, chunks_->token_pairs(0, front_end));
  }
  const uint64_t done = done_tokens();
  if (done >= tokens) return work;
  work.tokens = tokens - done;
  work.pairs = std::max(pairs - chunks_->token_pairs_of_first(first_chunk_, done), 0.0);
  return work;
}

double RecomputeLedger::current_chunk_s(const Work& remaining, const PrefillModel& model) const {
  if (remaining.tokens == 0) return 0;
  const double left = static_cast<double>(remaining.tokens);
  const double chunk = std::min(static_cast<double>(given_tokens_) / given_chunks_, left);
  return model.seconds(remaining.tokens, remaining.pairs) * chunk / left;
}

PrefillModel RecomputeLedger::model_now(uint32_t front_end, absl::Duration grace,
                                        absl::Duration now) const {
  const double elapsed = absl::ToDoubleSeconds(now - busy_since_ - grace);
  const double expected = current_chunk_s(remaining(front_end), model_) * model_.safety();
  if (!(elapsed > expected) || !(expected > 0)) return model_;
  return model_.Slower(std::min(elapsed / expected, 1e3));
}

double RecomputeLedger::backlog_s(uint32_t front_end, const PrefillModel& model,
                                  absl::Duration now) const {
  const Work work = remaining(front_end);
  if (work.tokens == 0) return 0;
  // Negative while the plan is on its way.
  const double elapsed = absl::ToDoubleSeconds(now - busy_since_);
  const double done = std::min(elapsed, current_chunk_s(work, model));
  return std::max(model.seconds(work.tokens, work.pairs) - done, 0.0);
}

double RecomputeLedger::outstanding_s() const {
  constexpr double kUnknownSecondsPerToken = 0.020;
  const Work work = remaining(chunks_->size());
  if (model_.known()) return model_.seconds(work.tokens, work.pairs);
  return static_cast<double>(work.tokens) * kUnknownSecondsPerToken;
}

}  // namespace kvstream

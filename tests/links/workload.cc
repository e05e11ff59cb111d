#include "tests/links/workload.h"

#include <cmath>

namespace kvstream {
namespace links {
namespace {

// Decoding costs some 7.5 % of the prefill's arithmetic at whole-model groups.
constexpr double kDecodeShare = 0.075;

Model Make(const char* name, double values, double a, double pair_share,
           std::vector<uint32_t> contexts) {
  return {name, values, a, a * pair_share, a * kDecodeShare, std::move(contexts)};
}

Ladder Scaled(const char* name, std::vector<double> bits, std::vector<double> kl, double factor) {
  for (double& value : bits) value *= factor;
  return {name, std::move(bits), std::move(kl)};
}

}  // namespace

const std::vector<Model>& Models() {
  // pair_share: arithmetic of attention per pair of tokens over that of a token's weights,
  // 4 * layers * heads * head size / (2 * parameters).
  static const auto* models = new std::vector<Model>{
      Make("Mistral-7B, A40", 65536, 1.64e-4, 3.6e-5, {1536, 8192, 32768}),
      Make("Llama-3.1-8B, H100", 65536, 4.0e-5, 3.3e-5, {1536, 8192, 32768, 131072}),
      Make("Llama-3.1-70B, 8 GH200", 163840, 4.4e-5, 1.87e-5, {1536, 8192, 32768, 131072}),
  };
  return *models;
}

const std::vector<Ladder>& Ladders() {
  const std::vector<double> whole = {0.286, 0.643, 1.267, 2.216};
  const std::vector<double> whole_kl = {0.01168, 0.00167, 0.00033, 0.00005};
  const std::vector<double> layer = {0.638, 1.411, 2.528, 3.925};
  const std::vector<double> layer_kl = {0.01800, 0.00256, 0.00036, 0.00006};
  static const auto* ladders = new std::vector<Ladder>{
      Scaled("whole model", whole, whole_kl, 1),
      Scaled("whole model, twice the bits", whole, whole_kl, 2),
      Scaled("one layer", layer, layer_kl, 1),
      Scaled("one layer, twice the bits", layer, layer_kl, 2),
  };
  return *ladders;
}

const Ladder& CacheGenLadder() {
  static const auto* ladder =
      new Ladder{"CacheGen", {2.72, 3.20, 4.00}, {0.00819, 0.00634, 0.00126}};
  return *ladder;
}

LoadSpec MakeSpec(const Model& model, uint32_t tokens, const Ladder& ladder) {
  LoadSpec spec;
  StoredChunkSizes chunk;
  chunk.tokens = kChunkTokens;
  double below = 0;
  for (double bits : ladder.bits) {
    chunk.segment_bytes.push_back(static_cast<uint64_t>(
        std::ceil((bits - below) * model.values_per_token * kChunkTokens / 8)));
    below = bits;
  }
  for (uint32_t first = 0; first < tokens; first += kChunkTokens) {
    chunk.first_token = first;
    spec.chunks.push_back(chunk);
  }
  spec.prefill_seconds_per_token = model.seconds_per_token;
  spec.prefill_seconds_per_token_pair = model.seconds_per_pair;
  spec.decode_seconds_per_token = model.decode_s_per_token;
  spec.recompute_can_stop = true;
  return spec;
}

SimulatedClient MakeClient(const Model& model) {
  SimulatedClient client;
  client.prefill_seconds_per_token = model.seconds_per_token;
  client.prefill_seconds_per_token_pair = model.seconds_per_pair;
  client.decode_seconds_per_token = model.decode_s_per_token;
  return client;
}

double PrefillSeconds(const Model& model, uint32_t begin_token, uint32_t end_token) {
  const double n = end_token - begin_token;
  return n * model.seconds_per_token + n * (begin_token + n / 2) * model.seconds_per_pair;
}

}  // namespace links
}  // namespace kvstream

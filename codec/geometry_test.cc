#include "codec/geometry.h"

#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kvstream {
namespace {

using ::testing::HasSubstr;
using Layout = RopeParameters::Layout;

// Expected frequencies were computed apart from this code, in Python, from the papers' formulas.
constexpr double kRelative = 1e-12;

void ExpectFrequency(const KvGeometry& geometry, int pair, double expected) {
  ASSERT_LT(pair, geometry.rope.inverse_frequency.size());
  EXPECT_NEAR(geometry.rope.inverse_frequency[pair] / expected, 1, kRelative) << "pair " << pair;
}

KvGeometry Read(const std::string& json) {
  const absl::StatusOr<KvGeometry> geometry = GeometryFromConfigJson(json);
  EXPECT_TRUE(geometry.ok()) << geometry.status() << "\n" << json;
  return geometry.ok() ? *geometry : KvGeometry();
}

std::string ErrorOf(const std::string& json) {
  const absl::StatusOr<KvGeometry> geometry = GeometryFromConfigJson(json);
  EXPECT_EQ(geometry.status().code(), absl::StatusCode::kInvalidArgument) << json;
  return std::string(geometry.status().message());
}

// A LLaMA of 8 heads of 16 channels with `more` keys, which begin with a comma.
std::string Llama(const std::string& more) {
  return absl::StrCat(
      R"({"model_type":"llama","num_hidden_layers":2,"num_attention_heads":8,"hidden_size":128,)",
      R"("torch_dtype":"bfloat16","max_position_embeddings":4096)", more, "}");
}

KvGeometry Valid() { return Read(Llama("")); }

TEST(GeometryValidateTest, AcceptsExtremesOfEveryRange) {
  KvGeometry geometry = Valid();
  geometry.layers = geometry.kv_heads = geometry.head_size = 1024;
  EXPECT_TRUE(geometry.Validate().ok()) << geometry.Validate();
  geometry.layers = geometry.kv_heads = geometry.head_size = 1;
  geometry.rope = RopeParameters();
  EXPECT_TRUE(geometry.Validate().ok()) << geometry.Validate();
}

TEST(GeometryValidateTest, NamesTheFieldThatIsOutOfRange) {
  const auto error = [](void (*change)(KvGeometry&)) {
    KvGeometry geometry = Valid();
    change(geometry);
    const absl::Status status = geometry.Validate();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(error([](KvGeometry& g) { g.layers = 0; }), HasSubstr("layers"));
  EXPECT_THAT(error([](KvGeometry& g) { g.layers = 1025; }), HasSubstr("layers"));
  EXPECT_THAT(error([](KvGeometry& g) { g.kv_heads = -1; }), HasSubstr("kv_heads"));
  EXPECT_THAT(error([](KvGeometry& g) { g.head_size = 1025; }), HasSubstr("head_size"));
  EXPECT_THAT(error([](KvGeometry& g) { g.dtype = static_cast<KvDtype>(2); }), HasSubstr("dtype"));
  EXPECT_THAT(error([](KvGeometry& g) { g.planes = 0; }), HasSubstr("planes"));
  EXPECT_THAT(error([](KvGeometry& g) { g.planes = 3; }), HasSubstr("planes"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.rotary_offset = 1; }),
              HasSubstr("rope.rotary_offset is 1, must be 0 to 0"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.rotary_offset = -1; }),
              HasSubstr("rope.rotary_offset"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.layout = static_cast<Layout>(3); }),
              HasSubstr("rope.layout"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.layout = Layout::kNone; }),
              HasSubstr("rope.inverse_frequency"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.inverse_frequency.push_back(1); }),
              HasSubstr("rope.inverse_frequency has 9"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.inverse_frequency.clear(); }),
              HasSubstr("rope.inverse_frequency has 0"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.inverse_frequency[3] = 0; }),
              HasSubstr("rope.inverse_frequency[3]"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.inverse_frequency[3] = std::nan(""); }),
              HasSubstr("rope.inverse_frequency[3]"));
  EXPECT_THAT(error([](KvGeometry& g) {
                g.rope.inverse_frequency[3] = std::numeric_limits<double>::infinity();
              }),
              HasSubstr("rope.inverse_frequency[3]"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.attention_factor = -1; }),
              HasSubstr("rope.attention_factor"));
  EXPECT_THAT(error([](KvGeometry& g) { g.rope.attention_factor = std::nan(""); }),
              HasSubstr("rope.attention_factor"));
}

TEST(GeometryConfigTest, ReadsLlama2WithDefaults) {
  const KvGeometry geometry = Read(
      R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":4096,
          "num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":null,
          "rope_scaling":null,"torch_dtype":"float16"})");
  EXPECT_EQ(geometry.layers, 32);
  EXPECT_EQ(geometry.kv_heads, 32);
  EXPECT_EQ(geometry.head_size, 128);
  EXPECT_EQ(geometry.dtype, KvDtype::kF16);
  EXPECT_EQ(geometry.rope.layout, Layout::kHalfSplit);
  EXPECT_EQ(geometry.rope.rotary_size(), 128);
  EXPECT_EQ(geometry.rope.attention_factor, 1);
  EXPECT_EQ(geometry.values_per_token(), 262144);
  ExpectFrequency(geometry, 0, 1.0);
  ExpectFrequency(geometry, 1, 0.8659643233600653);
  ExpectFrequency(geometry, 32, 0.01);
  ExpectFrequency(geometry, 63, 0.00011547819846894582);
}

TEST(GeometryConfigTest, ReadsLlama31Scaling) {
  const KvGeometry geometry = Read(
      R"({"model_type":"llama","hidden_size":4096,"num_attention_heads":32,"num_hidden_layers":32,
          "num_key_value_heads":8,"max_position_embeddings":131072,"rope_theta":500000.0,
          "torch_dtype":"bfloat16","rope_scaling":{"factor":8.0,"low_freq_factor":1.0,
          "high_freq_factor":4.0,"original_max_position_embeddings":8192,"rope_type":"llama3"}})");
  EXPECT_EQ(geometry.kv_heads, 8);
  EXPECT_EQ(geometry.dtype, KvDtype::kBF16);
  EXPECT_EQ(geometry.rope.attention_factor, 1);
  ExpectFrequency(geometry, 1, 0.8146172338565447);      // kept
  ExpectFrequency(geometry, 28, 0.0032114459947525913);  // the last that is kept
  ExpectFrequency(geometry, 29, 0.002166570763503359);   // mixed
  ExpectFrequency(geometry, 32, 0.0005248461609929547);
  ExpectFrequency(geometry, 35, 9.556212353964683e-05);  // slowed
  ExpectFrequency(geometry, 63, 3.068925988914511e-07);
}

TEST(GeometryConfigTest, ReadsQwenYarn) {
  const KvGeometry geometry = Read(
      R"({"model_type":"qwen3","hidden_size":4096,"head_dim":128,"num_attention_heads":32,
          "num_hidden_layers":36,"num_key_value_heads":8,"max_position_embeddings":131072,
          "rope_theta":1000000,"dtype":"bfloat16","rope_scaling":{"type":"yarn","factor":4.0,
          "original_max_position_embeddings":32768}})");
  ExpectFrequency(geometry, 22, 0.008659643233600653);
  ExpectFrequency(geometry, 24, 0.005375321490790102);
  ExpectFrequency(geometry, 30, 0.0010643609812470017);
  ExpectFrequency(geometry, 39, 6.490394320837028e-05);
  ExpectFrequency(geometry, 40, 4.445698525097307e-05);
  ExpectFrequency(geometry, 63, 3.102344401879299e-07);
  EXPECT_NEAR(geometry.rope.attention_factor, 1.138629436111989, kRelative);
}

TEST(GeometryConfigTest, ReadsYarnWithoutTruncation) {
  const KvGeometry geometry = Read(
      R"({"model_type":"gpt_oss","hidden_size":2880,"head_dim":64,"num_attention_heads":64,
          "num_hidden_layers":24,"num_key_value_heads":8,"max_position_embeddings":131072,
          "layer_types":["sliding_attention","full_attention"],"rope_theta":150000,
          "rope_scaling":{"rope_type":"yarn","factor":32.0,"beta_fast":32.0,"beta_slow":1.0,
          "truncate":false,"original_max_position_embeddings":4096}})");
  ExpectFrequency(geometry, 8, 0.050813274815461475);
  ExpectFrequency(geometry, 9, 0.03170569618466377);
  ExpectFrequency(geometry, 12, 0.006794959489732219);
  ExpectFrequency(geometry, 17, 0.00012931870124506317);
  ExpectFrequency(geometry, 18, 3.8308812373753384e-05);
  EXPECT_NEAR(geometry.rope.attention_factor, 1.3465735902799727, kRelative);
}

TEST(GeometryConfigTest, YarnAttentionFactorFollowsMscale) {
  const std::string yarn =
      R"(,"rope_scaling":{"type":"yarn","factor":40,"original_max_position_embeddings":1024 KEYS})";
  const auto factor = [&](const std::string& keys) {
    return Read(Llama(absl::StrReplaceAll(yarn, {{"KEYS", keys}}))).rope.attention_factor;
  };
  EXPECT_NEAR(factor(R"(,"mscale":0.707,"mscale_all_dim":1.0)"), 0.9210423553163399, kRelative);
  EXPECT_NEAR(factor(R"(,"mscale":1.0,"mscale_all_dim":1.0)"), 1, kRelative);
  EXPECT_NEAR(factor(R"(,"attention_factor":1.25,"mscale":1.0)"), 1.25, kRelative);
  EXPECT_NEAR(factor(R"(,"mscale":0.707)"), 0.1 * std::log(40.0) + 1, kRelative);
}

TEST(GeometryConfigTest, YarnFactorFollowsPositionsWhereItIsMissing) {
  const KvGeometry geometry =
      Read(Llama(R"(,"rope_scaling":{"type":"yarn","original_max_position_embeddings":1024})"));
  EXPECT_NEAR(geometry.rope.attention_factor, 1.138629436111989, kRelative);
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_scaling":{"type":"yarn"})")),
              HasSubstr("rope_scaling.factor is missing"));
}

TEST(GeometryConfigTest, LongRopeTakesLongFactorsBeyondTheOriginalLength) {
  const std::string scaling =
      R"(,"rope_scaling":{"type":"longrope","short_factor":[1,1,1,1],"long_factor":[1,2,4,8]})";
  const std::string shape =
      R"({"model_type":"phi3","hidden_size":32,"num_attention_heads":4,"num_hidden_layers":1,
          "original_max_position_embeddings":4096,"max_position_embeddings":)";
  const KvGeometry extended = Read(absl::StrCat(shape, "131072", scaling, "}"));
  ExpectFrequency(extended, 0, 1.0);
  ExpectFrequency(extended, 1, 0.05);
  ExpectFrequency(extended, 2, 0.0025);
  ExpectFrequency(extended, 3, 0.000125);
  EXPECT_NEAR(extended.rope.attention_factor, 1.1902380714238083, kRelative);
  const KvGeometry original = Read(absl::StrCat(shape, "4096", scaling, "}"));
  ExpectFrequency(original, 3, 0.001);
  EXPECT_EQ(original.rope.attention_factor, 1);
  EXPECT_EQ(
      Read(absl::StrCat(shape, "131072", absl::StrReplaceAll(scaling, {{"longrope", "su"}}), "}"))
          .rope.inverse_frequency,
      extended.rope.inverse_frequency);
}

TEST(GeometryConfigTest, LongRopeRefusesFactorsOfAnotherLength) {
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_scaling":{"type":"longrope","short_factor":[1,2]})")),
              HasSubstr("rope_scaling.short_factor has 2 entries, must have 8"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_scaling":{"type":"longrope"})")),
              HasSubstr("rope_scaling.short_factor is missing"));
}

TEST(GeometryConfigTest, LinearScalesAndDynamicAndMropeDoNot) {
  const KvGeometry plain = Read(Llama(""));
  const KvGeometry linear = Read(Llama(R"(,"rope_scaling":{"type":"linear","factor":4})"));
  ExpectFrequency(linear, 0, 0.25);
  ExpectFrequency(linear, 5, plain.rope.inverse_frequency[5] / 4);
  for (const char* scaling : {R"({"type":"dynamic","factor":4})", R"({"rope_type":"default"})",
                              R"({"type":"mrope","mrope_section":[2,3,3]})",
                              R"({"mrope_interleaved":true,"mrope_section":[2,3,3]})"}) {
    EXPECT_EQ(Read(Llama(absl::StrCat(R"(,"rope_scaling":)", scaling))).rope.inverse_frequency,
              plain.rope.inverse_frequency)
        << scaling;
  }
}

TEST(GeometryConfigTest, ReadsNewerRopeParameters) {
  const KvGeometry geometry = Read(Llama(
      R"(,"rope_parameters":{"rope_type":"linear","rope_theta":100,"factor":2,
          "partial_rotary_factor":0.5})"));
  EXPECT_EQ(geometry.rope.rotary_size(), 8);
  ExpectFrequency(geometry, 0, 0.5);
  ExpectFrequency(geometry, 2, 0.05);
}

TEST(GeometryConfigTest, RopeParametersPerLayerTypeMustAgree) {
  const std::string one = R"({"rope_type":"default","rope_theta":1000})";
  const std::string other = R"({"rope_type":"default","rope_theta":2000})";
  const auto with = [](const std::string& full, const std::string& sliding) {
    return Llama(absl::StrCat(R"(,"rope_parameters":{"full_attention":)", full,
                              R"(,"sliding_attention":)", sliding, "}"));
  };
  ExpectFrequency(Read(with(one, one)), 4, std::pow(1000, -0.5));
  EXPECT_THAT(ErrorOf(with(one, other)), HasSubstr("rope_parameters is not supported"));
}

TEST(GeometryConfigTest, ReadsGemmaHeadDim) {
  const KvGeometry geometry = Read(
      R"({"model_type":"gemma","hidden_size":3072,"head_dim":256,"num_attention_heads":16,
          "num_hidden_layers":28,"num_key_value_heads":16,"torch_dtype":"bfloat16"})");
  EXPECT_EQ(geometry.head_size, 256);
  EXPECT_EQ(geometry.rope.rotary_size(), 256);
}

TEST(GeometryConfigTest, ReadsPhiPartialRotary) {
  const std::string phi =
      R"({"model_type":"phi","hidden_size":2560,"num_attention_heads":32,"num_hidden_layers":32)";
  EXPECT_EQ(Read(phi + R"(,"partial_rotary_factor":0.4})").rope.rotary_size(), 32);
  EXPECT_EQ(Read(phi + "}").rope.rotary_size(), 40);
}

TEST(GeometryConfigTest, ReadsFalconMultiQuery) {
  const std::string falcon =
      R"({"model_type":"falcon","hidden_size":4544,"num_attention_heads":71,"num_hidden_layers":32)";
  EXPECT_EQ(Read(falcon + R"(,"multi_query":true,"alibi":false})").kv_heads, 1);
  EXPECT_EQ(Read(falcon + "}").kv_heads, 1);
  EXPECT_EQ(Read(falcon + R"(,"multi_query":false})").kv_heads, 71);
  const KvGeometry grouped = Read(
      R"({"model_type":"falcon","hidden_size":8192,"num_attention_heads":128,"num_kv_heads":8,
          "num_hidden_layers":60,"multi_query":true,"new_decoder_architecture":true})");
  EXPECT_EQ(grouped.kv_heads, 8);
  EXPECT_EQ(grouped.head_size, 64);
  EXPECT_EQ(Read(falcon + R"(,"alibi":true})").rope.layout, Layout::kNone);
}

TEST(GeometryConfigTest, ReadsGptNeoxAndGptjNames) {
  const KvGeometry neox = Read(
      R"({"model_type":"gpt_neox","hidden_size":6144,"num_attention_heads":64,
          "num_hidden_layers":44,"rotary_pct":0.25,"rotary_emb_base":10000})");
  EXPECT_EQ(neox.rope.rotary_size(), 24);
  EXPECT_EQ(neox.rope.layout, Layout::kHalfSplit);
  ExpectFrequency(neox, 1, 0.46415888336127786);
  ExpectFrequency(neox, 11, 0.00021544346900318845);
  const KvGeometry gptj =
      Read(R"({"model_type":"gptj","n_embd":4096,"n_head":16,"n_layer":28,"rotary_dim":64})");
  EXPECT_EQ(gptj.layers, 28);
  EXPECT_EQ(gptj.head_size, 256);
  EXPECT_EQ(gptj.rope.layout, Layout::kInterleaved);
  EXPECT_EQ(gptj.rope.rotary_size(), 64);
  ExpectFrequency(gptj, 1, 0.7498942093324559);
  ExpectFrequency(gptj, 31, 0.0001333521432163324);
}

TEST(GeometryConfigTest, ReadsChatGlm) {
  const KvGeometry geometry = Read(
      R"({"model_type":"chatglm","hidden_size":4096,"num_attention_heads":32,"num_layers":28,
          "kv_channels":128,"multi_query_attention":true,"multi_query_group_num":2,
          "rope_ratio":50,"torch_dtype":"float16"})");
  EXPECT_EQ(geometry.kv_heads, 2);
  EXPECT_EQ(geometry.rope.layout, Layout::kInterleaved);
  EXPECT_EQ(geometry.rope.rotary_size(), 64);
  ExpectFrequency(geometry, 16, std::pow(500000.0, -0.5));
}

TEST(GeometryConfigTest, ModelsWithoutRopeHaveNoLayout) {
  for (
      const char* json :
      {R"({"model_type":"gpt2","n_embd":768,"n_head":12,"n_layer":12})",
       R"({"model_type":"bloom","hidden_size":64,"n_head":4,"n_layer":2})",
       R"({"model_type":"mpt","d_model":64,"n_heads":4,"n_layers":2,"attn_config":{"alibi":true}})",
       R"({"model_type":"x","hidden_size":64,"n_head":4,"n_layer":2,
            "position_embedding_type":"absolute"})"}) {
    const KvGeometry geometry = Read(json);
    EXPECT_EQ(geometry.rope.layout, Layout::kNone) << json;
    EXPECT_EQ(geometry.rope.rotary_size(), 0) << json;
  }
  EXPECT_EQ(Read(R"({"model_type":"gpt_bigcode","n_embd":64,"n_head":4,"n_layer":2})").kv_heads, 1);
}

TEST(GeometryConfigTest, ReadsNestedTextConfigWithOuterDtype) {
  const KvGeometry geometry = Read(
      R"({"model_type":"llava","torch_dtype":"bfloat16","vision_config":{"hidden_size":7},
          "text_config":{"model_type":"mistral","hidden_size":64,"num_attention_heads":4,
          "num_key_value_heads":2,"num_hidden_layers":3}})");
  EXPECT_EQ(geometry.layers, 3);
  EXPECT_EQ(geometry.kv_heads, 2);
  EXPECT_EQ(geometry.dtype, KvDtype::kBF16);
}

TEST(GeometryConfigTest, Float32ModelsKeepTheirKvInF16) {
  const std::string shape = R"({"hidden_size":64,"num_attention_heads":4,"num_hidden_layers":3)";
  EXPECT_EQ(Read(shape + R"(,"torch_dtype":"float32"})").dtype, KvDtype::kF16);
  EXPECT_EQ(Read(shape + R"(,"torch_dtype":"torch.bfloat16"})").dtype, KvDtype::kBF16);
  EXPECT_THAT(ErrorOf(shape + R"(,"dtype":"float8_e4m3fn"})"), HasSubstr("dtype must be"));
}

// The keys of DeepSeek-V3's file that matter, with `more`.
std::string DeepSeek(const std::string& more) {
  return absl::StrCat(
      R"({"model_type":"deepseek_v3","num_hidden_layers":61,"num_attention_heads":128,)",
      R"("num_key_value_heads":128,"hidden_size":7168,"torch_dtype":"bfloat16",)",
      R"("kv_lora_rank":512,"q_lora_rank":1536,"qk_nope_head_dim":128,"qk_rope_head_dim":64,)",
      R"("v_head_dim":128,"max_position_embeddings":163840,"rope_theta":10000)", more, "}");
}

TEST(GeometryConfigTest, ReadsTheLatentOfDeepSeek) {
  const KvGeometry geometry = Read(DeepSeek(
      R"(,"rope_scaling":{"type":"yarn","factor":40,"beta_fast":32,"beta_slow":1,"mscale":1.0,
          "mscale_all_dim":1.0,"original_max_position_embeddings":4096})"));
  EXPECT_EQ(geometry.layers, 61);
  EXPECT_EQ(geometry.planes, 1);
  EXPECT_FALSE(geometry.has_values());
  EXPECT_EQ(geometry.kv_heads, 1);
  EXPECT_EQ(geometry.head_size, 576);
  EXPECT_EQ(geometry.values_per_token(), 61 * 576);
  EXPECT_EQ(geometry.rope.layout, Layout::kInterleaved);
  EXPECT_EQ(geometry.rope.rotary_size(), 64);
  EXPECT_EQ(geometry.rope.rotary_offset, 512);
  EXPECT_EQ(geometry.parts(), 2);
  EXPECT_EQ(geometry.PartOf(511), 0);
  EXPECT_EQ(geometry.PartOf(512), 1);
  EXPECT_EQ(geometry.PartOf(575), 1);
  // Pairs up to 10 are kept, from 23 on slowed 40 times.
  ExpectFrequency(geometry, 10, std::pow(10000, -10.0 / 32));
  ExpectFrequency(geometry, 23, std::pow(10000, -23.0 / 32) / 40);
  EXPECT_NEAR(geometry.rope.attention_factor, 1, kRelative);
}

TEST(GeometryConfigTest, OnlyTheQuotientOfTheMscalesIsInALatent) {
  const auto factor = [](const std::string& keys) {
    return Read(DeepSeek(absl::StrCat(
                    R"(,"rope_scaling":{"type":"yarn","factor":40,
                        "original_max_position_embeddings":4096)",
                    keys, "}")))
        .rope.attention_factor;
  };
  EXPECT_NEAR(factor(R"(,"mscale":0.707,"mscale_all_dim":0.707)"), 1, kRelative);
  EXPECT_NEAR(factor(R"(,"mscale":0.707,"mscale_all_dim":1.0)"), 0.9210423553163399, kRelative);
  EXPECT_NEAR(factor(R"(,"mscale":0.707)"), 0.0707 * std::log(40.0) + 1, kRelative);
  EXPECT_NEAR(factor(""), 0.1 * std::log(40.0) + 1, kRelative);
}

TEST(GeometryConfigTest, ReadsLatentsOfOtherFamilies) {
  const KvGeometry kimi = Read(absl::StrReplaceAll(DeepSeek(""), {{"deepseek_v3", "kimi_k2"}}));
  EXPECT_EQ(kimi.head_size, 576);
  EXPECT_EQ(kimi.rope.layout, Layout::kInterleaved);
  const KvGeometry nested = Read(absl::StrCat(R"({"model_type":"kimi_vl","text_config":)",
                                              DeepSeek(R"(,"rope_interleave":false)"), "}"));
  EXPECT_EQ(nested.rope.layout, Layout::kHalfSplit);
  EXPECT_EQ(nested.rope.rotary_offset, 512);
  const KvGeometry plain = Read(Llama(R"(,"kv_lora_rank":null,"qk_rope_head_dim":64)"));
  EXPECT_EQ(plain.planes, 2);
  EXPECT_EQ(Read(Llama(R"(,"kv_lora_rank":512,"use_mla":false)")).planes, 2);
}

TEST(GeometryConfigTest, RefusesLatentsThatAreNotTheWholeCache) {
  EXPECT_THAT(ErrorOf(DeepSeek(R"(,"index_topk":2048)")), HasSubstr("index_topk is not supported"));
  EXPECT_THAT(ErrorOf(absl::StrReplaceAll(DeepSeek(""), {{"deepseek_v3", "minicpm3"}})),
              HasSubstr("expanded keys and values"));
  EXPECT_THAT(ErrorOf(absl::StrReplaceAll(DeepSeek(""), {{"deepseek_v3", "longcat_flash"}})),
              HasSubstr("model_type is not supported"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"kv_lora_rank":512)")), HasSubstr("qk_rope_head_dim"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"kv_lora_rank":512,"qk_rope_head_dim":63)")),
              HasSubstr("must be even"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"kv_lora_rank":1000,"qk_rope_head_dim":64)")),
              HasSubstr("head_size"));
}

TEST(GeometryConfigTest, RefusesModelsWhoseLayersDiffer) {
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_local_base_freq":10000)")),
              HasSubstr("rope_local_base_freq is not supported"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"layer_types":["full_attention","linear_attention"])")),
              HasSubstr("layer_types is not supported"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"no_rope_layers":[1,1,0])")),
              HasSubstr("no_rope_layers is not supported"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"num_key_value_heads":[2,4])")),
              HasSubstr("num_key_value_heads must be one integer"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"v_head_dim":8)")), HasSubstr("v_head_dim is not supported"));
  EXPECT_THAT(ErrorOf(R"({"model_type":"gemma3","text_config":{"model_type":"gemma3_text"}})"),
              HasSubstr("text_config.model_type is not supported"));
}

TEST(GeometryConfigTest, NamesMissingAndMistypedKeys) {
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(ErrorOf(R"({"num_hidden_layers":2})"), HasSubstr("num_attention_heads"));
  EXPECT_THAT(ErrorOf(R"({"num_hidden_layers":2,"num_attention_heads":2})"),
              HasSubstr("hidden_size"));
  EXPECT_THAT(ErrorOf(R"({"num_hidden_layers":"2"})"),
              HasSubstr("num_hidden_layers must be an integer, is of type string"));
  EXPECT_THAT(ErrorOf(R"({"num_hidden_layers":2.5})"), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(ErrorOf(R"({"num_hidden_layers":true})"), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(ErrorOf(R"({"num_hidden_layers":-4})"), HasSubstr("is -4, must be 1 to 1024"));
  EXPECT_THAT(ErrorOf(R"({"num_hidden_layers":18446744073709551615})"),
              HasSubstr("must be 1 to 1024"));
  EXPECT_THAT(ErrorOf(R"({"text_config":[]})"), HasSubstr("text_config must be an object"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"num_key_value_heads":3)")), HasSubstr("no multiple of the 3"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_theta":"big")")), HasSubstr("rope_theta must be a number"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_theta":0)")), HasSubstr("rope_theta is 0"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_scaling":"yarn")")),
              HasSubstr("rope_scaling must be an object"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_scaling":{"type":"cubic\n"})")),
              HasSubstr("rope_scaling.rope_type is not supported: \"cubic?\""));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_scaling":{"type":"linear"})")),
              HasSubstr("rope_scaling.factor is missing"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_scaling":{"type":"linear","factor":0})")),
              HasSubstr("rope_scaling.factor is 0"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rope_scaling":{"type":"llama3","factor":8,
      "low_freq_factor":4,"high_freq_factor":4})")),
              HasSubstr("rope_scaling.high_freq_factor must be larger"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"partial_rotary_factor":0.05)")),
              HasSubstr("partial_rotary_factor rotates 0 of 16"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"rotary_dim":5)")), HasSubstr("rotary_dim rotates 5 of 16"));
  EXPECT_THAT(ErrorOf(Llama(R"(,"hidden_size":100)")), HasSubstr("head_dim is missing"));
}

TEST(GeometryConfigTest, RefusesTextThatIsNotAJsonObject) {
  for (const char* text : {"", "{", "[]", "7", "{\"a\":1}}", "{\"a\":1e999}", "\xff\xfe"}) {
    EXPECT_THAT(ErrorOf(text), HasSubstr("config.json")) << text;
  }
  EXPECT_THAT(ErrorOf(std::string(2 << 20, ' ')), HasSubstr("bytes, must be at most"));
}

TEST(GeometryConfigTest, RefusesDeepNesting) {
  const std::string open(100000, '[');
  EXPECT_THAT(ErrorOf("{\"a\":" + open), HasSubstr("nested more than"));
  std::string objects;
  for (int i = 0; i < 50000; ++i) objects += "{\"a\":";
  EXPECT_THAT(ErrorOf(objects), HasSubstr("nested more than"));
}

// Any damage to a rich file gives a valid geometry or an error, whatever the bytes.
TEST(GeometryConfigTest, SurvivesEveryTruncationAndByteChange) {
  const std::string whole = Llama(
      R"(,"rope_theta":5e5,"num_key_value_heads":2,"head_dim":16,"layer_types":["full_attention"],
          "rope_scaling":{"rope_type":"yarn","factor":4.0,"beta_fast":32,"mscale":1.0,
          "mscale_all_dim":0.5,"original_max_position_embeddings":1024})");
  const auto check = [](const std::string& text) {
    const absl::StatusOr<KvGeometry> geometry = GeometryFromConfigJson(text);
    if (geometry.ok()) {
      EXPECT_TRUE(geometry->Validate().ok()) << text;
    } else {
      EXPECT_EQ(geometry.status().code(), absl::StatusCode::kInvalidArgument) << text;
    }
  };
  for (size_t i = 0; i < whole.size(); ++i) {
    check(whole.substr(0, i));
    for (const char c : {'\0', '"', '9', '-', '{', '}', '[', ',', 'e', '.', '\xff'}) {
      std::string damaged = whole;
      damaged[i] = c;
      check(damaged);
    }
  }
}

}  // namespace
}  // namespace kvstream

// The shape of a model as its file says it, and what is refused of it.
#include "runtime/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/runtime/gguf/small_file.h"
#include "tests/support/tiny_model.h"

namespace millrace::testing {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<ModelConfig> Read(const TinyModel& model) {
  const auto file = Parse(BuildTinyModel(model).Build());
  if (!file.ok()) return file.status();
  return ReadModelConfig(**file);
}

TEST(ModelConfig, ReadsTheShapeOfEveryArchitecture) {
  for (const char* family : {"qwen3moe", "qwen3", "qwen2", "llama"}) {
    SCOPED_TRACE(family);
    const auto config = Read({.architecture = family, .family = family});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->traits.name, family);
    EXPECT_EQ(config->layers, 2);
    EXPECT_EQ(config->hidden, 8);
    EXPECT_EQ(config->heads, 4);
    EXPECT_EQ(config->kv_heads, 2);
    EXPECT_EQ(config->vocab, 8);
    EXPECT_EQ(config->ffn, 6);
    EXPECT_EQ(config->rope_base, 1e6);
    const bool moe = std::string(family) == "qwen3moe";
    EXPECT_EQ(config->experts, moe ? 4 : 0);
    EXPECT_EQ(config->experts_per_token, moe ? 2 : 0);
    EXPECT_EQ(ForwardPathFor(*config), moe ? ForwardPath::kMoe : ForwardPath::kDense);
  }
}

TEST(ModelConfig, TakesHeadsOfTheLengthTheKeySaysAndOnlyElseOfHiddenByHeads) {
  EXPECT_EQ(Read({.head_dim = 6})->head_dim, 6);
  EXPECT_EQ(Read({.without = "attention.key_length"})->head_dim, 2);
}

TEST(ModelConfig, KnowsEverySpellingOfTheMixtureOfExperts) {
  for (const char* spelling :
       {"qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3CoderForCausalLM", "qwen3moe"}) {
    SCOPED_TRACE(spelling);
    const auto config = Read({.architecture = spelling});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->traits.name, "qwen3moe");
    EXPECT_EQ(ForwardPathFor(*config), ForwardPath::kMoe);
  }
}

TEST(ModelConfig, NamesAnUnknownArchitectureAndWhatIsSupported) {
  const auto config = Read({.architecture = "gpt-neo", .family = "llama"});
  EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented);
  for (const char* words : {"gpt-neo", "qwen3moe", "qwen3", "qwen2", "llama"}) {
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(words));
  }
}

TEST(ModelConfig, NamesTheKeyThatIsMissing) {
  for (const char* key : {"block_count", "context_length", "embedding_length",
                          "attention.head_count", "attention.layer_norm_rms_epsilon",
                          "expert_count", "expert_used_count", "expert_feed_forward_length"}) {
    const auto config = Read({.without = key});
    ASSERT_FALSE(config.ok()) << key;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(key));
  }
  EXPECT_FALSE(Read({.without = "general.architecture"}).ok());
}

// Every number of the shape with every value that could break what is built on it.
TEST(ModelConfig, SurvivesEveryExtremeOfEveryKey) {
  const std::vector<std::string> keys = {"block_count",
                                         "context_length",
                                         "embedding_length",
                                         "attention.head_count",
                                         "attention.head_count_kv",
                                         "attention.key_length",
                                         "attention.value_length",
                                         "rope.dimension_count",
                                         "expert_count",
                                         "expert_used_count",
                                         "expert_feed_forward_length"};
  const std::uint64_t values[] = {0,
                                  1,
                                  3,
                                  std::uint64_t{1} << 16U,
                                  std::uint64_t{1} << 24U,
                                  INT32_MAX,
                                  std::uint64_t{1} << 31U,
                                  UINT32_MAX,
                                  std::uint64_t{1} << 40U,
                                  std::uint64_t{1} << 63U,
                                  UINT64_MAX};
  for (const std::string& key : keys) {
    for (const std::uint64_t value : values) {
      TinyModel model;
      model.without = key;
      model.add = [&](GgufBuilder* b) { b->Add("qwen3moe." + key, value); };
      const auto config = Read(model);
      if (config.ok()) {
        // What is let through is a shape that arithmetic in 64 bits can hold.
        EXPECT_GT(config->head_dim, 0);
        EXPECT_EQ(config->heads % config->kv_heads, 0);
        EXPECT_LE(config->experts_per_token, config->experts);
        EXPECT_LE(config->rotary_dim, config->head_dim);
      } else {
        EXPECT_THAT(std::string(config.status().message()), HasSubstr("qwen3moe."));
      }
    }
    TinyModel model;
    model.without = key;
    model.add = [&](GgufBuilder* b) { b->Add("qwen3moe." + key, "text"); };
    EXPECT_THAT(std::string(Read(model).status().message()), HasSubstr(key));
  }
}

struct Wrong {
  const char* key;
  double value;
};

TEST(ModelConfig, RefusesFloatsOutOfRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  for (const Wrong& wrong :
       {Wrong{"rope.freq_base", nan}, Wrong{"rope.freq_base", inf}, Wrong{"rope.freq_base", 0},
        Wrong{"rope.freq_base", -1}, Wrong{"attention.layer_norm_rms_epsilon", nan},
        Wrong{"attention.layer_norm_rms_epsilon", 0},
        Wrong{"attention.layer_norm_rms_epsilon", 1}}) {
    TinyModel model;
    model.without = wrong.key;
    model.add = [&](GgufBuilder* b) { b->Add(std::string("qwen3moe.") + wrong.key, wrong.value); };
    const auto config = Read(model);
    ASSERT_FALSE(config.ok()) << wrong.key << " " << wrong.value;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(wrong.key));
  }
}

TEST(ModelConfig, ReadsKeysUnderTheCanonicalNameToo) {
  TinyModel model;  // keys of qwen3moe
  model.without = "general.architecture";
  model.add = [](GgufBuilder* b) { b->Add("general.architecture", "Qwen3MoeForCausalLM"); };
  const auto config = Read(model);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->traits.name, "qwen3moe");
}

TEST(ModelConfig, ReadsTheScalingOfRope) {
  TinyModel model;
  model.add = [](GgufBuilder* b) { b->Add("qwen3moe.rope.scale_linear", 4.0F); };
  EXPECT_EQ(Read(model)->rope_scaling.kind, RopeScalingKind::kLinear);
  EXPECT_EQ(Read(model)->rope_scaling.factor, 4);
  model.add = [](GgufBuilder* b) {
    b->Add("qwen3moe.rope.scaling.type", "yarn")
        .Add("qwen3moe.rope.scaling.factor", 8.0F)
        .Add("qwen3moe.rope.scaling.original_context_length", std::uint32_t{32});
  };
  EXPECT_EQ(Read(model)->rope_scaling.kind, RopeScalingKind::kYarn);
  EXPECT_EQ(Read(model)->rope_scaling.original_context, 32);
  model.add = [](GgufBuilder* b) {
    b->AddTensor("rope_freqs.weight", DType::kF32, {2}, FloatBytes(std::vector<float>{1, 8}));
  };
  EXPECT_THAT(Read(model)->rope_scaling.divisors, ::testing::ElementsAre(1, 8));
}

TEST(ModelConfig, RefusesAScalingThatMakesNoSense) {
  const std::pair<const char*, std::function<void(GgufBuilder*)>> cases[] = {
      {"rope.scaling.factor",
       [](GgufBuilder* b) {
         b->Add("qwen3moe.rope.scaling.type", "linear").Add("qwen3moe.rope.scaling.factor", 0.0F);
       }},
      {"rope_freqs.weight",
       [](GgufBuilder* b) { b->AddTensor("rope_freqs.weight", DType::kF32, {3}); }},
      {"rope_freqs.weight",  // zeros
       [](GgufBuilder* b) { b->AddTensor("rope_freqs.weight", DType::kF32, {2}); }},
  };
  for (const auto& [name, add] : cases) {
    TinyModel model;
    model.add = add;
    EXPECT_THAT(std::string(Read(model).status().message()), HasSubstr(name));
  }
}

TEST(ModelConfig, RefusesByNameWhatWouldBeAnotherNetwork) {
  const std::pair<const char*, std::function<void(GgufBuilder*)>> cases[] = {
      {"rope.scaling.type",
       [](GgufBuilder* b) { b->Add("qwen3moe.rope.scaling.type", "longrope"); }},
      {"attention.sliding_window",
       [](GgufBuilder* b) { b->Add("qwen3moe.attention.sliding_window", std::uint32_t{4096}); }},
      {"expert_shared_count",
       [](GgufBuilder* b) { b->Add("qwen3moe.expert_shared_count", std::uint32_t{1}); }},
  };
  for (const auto& [key, add] : cases) {
    TinyModel model;
    model.add = add;
    const auto config = Read(model);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented) << key;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(key));
  }
}

}  // namespace
}  // namespace millrace::testing

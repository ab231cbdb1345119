#include "runtime/model/model_config.h"

#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/model/tensor_names.h"

namespace millrace {
namespace {

constexpr std::array<ArchitectureTraits, 4> kArchitectures = {{
    {.name = "qwen3moe", .moe = true, .qk_norm = true, .default_rope_base = 1e6},
    {.name = "qwen3", .qk_norm = true},
    {.name = "qwen2", .qkv_bias = true},
    {.name = "llama", .pairing = RopePairing::kInterleaved},
}};

struct Spelling {
  std::string_view spelling;
  std::string_view canonical;
};

constexpr std::array<Spelling, 4> kSpellings = {{
    {"qwen3_moe", "qwen3moe"},
    {"Qwen3MoeForCausalLM", "qwen3moe"},
    {"Qwen3MoEForCausalLM", "qwen3moe"},
    {"Qwen3CoderForCausalLM", "qwen3moe"},
}};

// Far beyond any published model, small enough that products of two fit 64 bits with room.
constexpr std::int64_t kMaxLayers = 512;
constexpr std::int64_t kMaxContext = std::int64_t{1} << 24;
constexpr std::int64_t kMaxHidden = 1 << 20;
constexpr std::int64_t kMaxHeads = 1024;
constexpr std::int64_t kMaxHeadDim = 256;  // what the attention kernels are built for
constexpr std::int64_t kMaxFfn = 1 << 22;
constexpr std::int64_t kMaxExperts = 1024;
constexpr std::int64_t kMaxVocab = 1 << 22;

// Reads keys below "<architecture>.".
class ConfigReader {
 public:
  // Files carry their keys under the architecture as they spell it.
  ConfigReader(const GgufFile& file, std::string_view spelling) : file_(file), prefix_(spelling) {}

  std::string Key(std::string_view name) const {
    return absl::StrCat(prefix_, ".", std::string(name));
  }
  bool Has(std::string_view name) const { return file_.Find(Key(name)) != nullptr; }

  absl::Status Int(std::string_view name, std::int64_t max, std::int32_t* out) const {
    MILLRACE_ASSIGN_OR_RETURN(const std::int64_t value, file_.GetInt(Key(name), 1, max));
    *out = static_cast<std::int32_t>(value);
    return absl::OkStatus();
  }
  absl::Status IntOr(std::string_view name, std::int64_t max, std::int32_t otherwise,
                     std::int32_t* out) const {
    *out = otherwise;
    return Has(name) ? Int(name, max, out) : absl::OkStatus();
  }
  absl::StatusOr<double> Float(std::string_view name) const { return file_.GetFloat(Key(name)); }

  // Refuses a feature that changes the network and is not built: the key must be absent or have
  // this value.
  absl::Status MustBe(std::string_view name, double value) const {
    if (!Has(name)) return absl::OkStatus();
    MILLRACE_ASSIGN_OR_RETURN(const double found, Float(name));
    if (found == value) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat("GGUF: metadata key '", Key(name), "' is ", found,
                                                 "; only ", value, " is supported"));
  }

 private:
  const GgufFile& file_;
  const std::string prefix_;
};

absl::Status Wrong(const std::string& key, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("GGUF: metadata key '", key, "' ", what));
}

absl::Status ReadAttention(const ConfigReader& reader, ModelConfig* config) {
  MILLRACE_RETURN_IF_ERROR(reader.Int("attention.head_count", kMaxHeads, &config->heads));
  MILLRACE_RETURN_IF_ERROR(
      reader.IntOr("attention.head_count_kv", kMaxHeads, config->heads, &config->kv_heads));
  if (config->heads % config->kv_heads != 0) {
    return Wrong(
        reader.Key("attention.head_count_kv"),
        absl::StrCat("is ", config->kv_heads, "; it must divide head_count, ", config->heads));
  }
  // Only where the key is absent hidden / heads: for 30B-A3B the two differ.
  MILLRACE_RETURN_IF_ERROR(reader.IntOr("attention.key_length", kMaxHeadDim,
                                        config->hidden / config->heads, &config->head_dim));
  std::int32_t value_length = 0;
  MILLRACE_RETURN_IF_ERROR(
      reader.IntOr("attention.value_length", kMaxHeadDim, config->head_dim, &value_length));
  if (value_length != config->head_dim || config->head_dim < 1 || config->head_dim > kMaxHeadDim) {
    return Wrong(reader.Key("attention.key_length"),
                 absl::StrCat("gives heads of ", config->head_dim, " and values of ", value_length,
                              "; want equal lengths from 1 to ", kMaxHeadDim));
  }
  MILLRACE_ASSIGN_OR_RETURN(const double eps, reader.Float("attention.layer_norm_rms_epsilon"));
  if (eps <= 0 || eps >= 1) {
    return Wrong(reader.Key("attention.layer_norm_rms_epsilon"),
                 absl::StrCat("is ", eps, "; want between 0 and 1"));
  }
  config->norm_eps = static_cast<float>(eps);
  return reader.MustBe("attention.sliding_window", 0);
}

// A positive number, or `otherwise` where the key is absent.
absl::StatusOr<double> PositiveOr(const ConfigReader& reader, std::string_view name,
                                  double otherwise) {
  if (!reader.Has(name)) return otherwise;
  constexpr double kMax = 1e9;
  MILLRACE_ASSIGN_OR_RETURN(const double value, reader.Float(name));
  if (value > 0 && value <= kMax) return value;
  return Wrong(reader.Key(name), absl::StrCat("is ", value, "; want a number from 0 to 1e9"));
}

absl::Status ReadYarn(const ConfigReader& reader, ModelConfig* config) {
  RopeScaling& scaling = config->rope_scaling;
  MILLRACE_ASSIGN_OR_RETURN(
      scaling.original_context,
      PositiveOr(reader, "rope.scaling.original_context_length", config->context_length));
  MILLRACE_ASSIGN_OR_RETURN(scaling.attention_factor,
                            PositiveOr(reader, "rope.scaling.attn_factor", 1));
  MILLRACE_ASSIGN_OR_RETURN(scaling.beta_fast,
                            PositiveOr(reader, "rope.scaling.yarn_beta_fast", 32));
  MILLRACE_ASSIGN_OR_RETURN(scaling.beta_slow,
                            PositiveOr(reader, "rope.scaling.yarn_beta_slow", 1));
  MILLRACE_RETURN_IF_ERROR(reader.MustBe("rope.scaling.yarn_ext_factor", 1));
  return reader.MustBe("rope.scaling.yarn_log_multiplier", 0);
}

absl::Status ReadRopeScaling(const GgufFile& file, const ConfigReader& reader,
                             ModelConfig* config) {
  RopeScaling& scaling = config->rope_scaling;
  // The old spelling of linear scaling.
  MILLRACE_ASSIGN_OR_RETURN(scaling.factor, PositiveOr(reader, "rope.scale_linear", 1));
  std::string_view type = scaling.factor == 1 ? "none" : "linear";
  if (reader.Has("rope.scaling.type")) {
    MILLRACE_ASSIGN_OR_RETURN(type, file.GetString(reader.Key("rope.scaling.type")));
    MILLRACE_ASSIGN_OR_RETURN(scaling.factor,
                              PositiveOr(reader, "rope.scaling.factor", scaling.factor));
  }
  if (type == "none") return absl::OkStatus();
  if (type == "linear") {
    scaling.kind = RopeScalingKind::kLinear;
    return absl::OkStatus();
  }
  if (type == "yarn") {
    scaling.kind = RopeScalingKind::kYarn;
    return ReadYarn(reader, config);
  }
  return absl::UnimplementedError(
      absl::StrCat("GGUF: metadata key '", reader.Key("rope.scaling.type"), "' is '",
                   std::string(type.substr(0, 64)), "'; none, linear and yarn are supported"));
}

// llama's rope_freqs.weight: one divisor for each pair.
absl::Status ReadRopeDivisors(const GgufFile& file, ModelConfig* config) {
  const GgufTensor* found = file.FindTensor(tensor::kRopeFrequencies);
  if (found == nullptr) return absl::OkStatus();
  const std::vector<std::int64_t> wanted = {config->rotary_dim / 2};
  if (found->dtype != DType::kF32 || found->shape != wanted) {
    return absl::InvalidArgumentError(absl::StrCat("GGUF: tensor 'rope_freqs.weight': want [",
                                                   config->rotary_dim / 2,
                                                   "] of F32, as rope.dimension_count says"));
  }
  std::vector<float>& divisors = config->rope_scaling.divisors;
  divisors.resize(static_cast<std::size_t>(config->rotary_dim / 2));
  MILLRACE_RETURN_IF_ERROR(
      file.Source(*found)->Read(0, std::as_writable_bytes(std::span(divisors))));
  for (const float divisor : divisors) {
    if (std::isfinite(divisor) && divisor > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat("GGUF: tensor 'rope_freqs.weight' holds ",
                                                   divisor, "; want finite numbers above 0"));
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, const ConfigReader& reader, ModelConfig* config) {
  config->rope_base = config->traits.default_rope_base;
  if (reader.Has("rope.freq_base")) {
    MILLRACE_ASSIGN_OR_RETURN(config->rope_base, reader.Float("rope.freq_base"));
  }
  if (config->rope_base < 1 || config->rope_base > 1e12) {
    return Wrong(reader.Key("rope.freq_base"),
                 absl::StrCat("is ", config->rope_base, "; want 1 to 1e12"));
  }
  MILLRACE_RETURN_IF_ERROR(
      reader.IntOr("rope.dimension_count", kMaxHeadDim, config->head_dim, &config->rotary_dim));
  if (config->rotary_dim > config->head_dim || config->rotary_dim % 2 != 0) {
    return Wrong(
        reader.Key("rope.dimension_count"),
        absl::StrCat("is ", config->rotary_dim, "; want an even number up to ", config->head_dim));
  }
  MILLRACE_RETURN_IF_ERROR(ReadRopeScaling(file, reader, config));
  return ReadRopeDivisors(file, config);
}

absl::Status ReadFeedForward(const ConfigReader& reader, ModelConfig* config) {
  if (!config->traits.moe) {
    MILLRACE_RETURN_IF_ERROR(reader.MustBe("expert_count", 0));
    return reader.Int("feed_forward_length", kMaxFfn, &config->ffn);
  }
  MILLRACE_RETURN_IF_ERROR(reader.Int("expert_count", kMaxExperts, &config->experts));
  MILLRACE_RETURN_IF_ERROR(
      reader.Int("expert_used_count", config->experts, &config->experts_per_token));
  MILLRACE_RETURN_IF_ERROR(reader.Int("expert_feed_forward_length", kMaxFfn, &config->ffn));
  MILLRACE_RETURN_IF_ERROR(reader.MustBe("expert_shared_feed_forward_length", 0));
  MILLRACE_RETURN_IF_ERROR(reader.MustBe("expert_shared_count", 0));
  // 0 and 1 both mean none in the files that carry it.
  return reader.Has("expert_weights_scale") && !reader.MustBe("expert_weights_scale", 0).ok()
             ? reader.MustBe("expert_weights_scale", 1)
             : absl::OkStatus();
}

absl::StatusOr<std::int32_t> ReadVocab(const GgufFile& file) {
  const GgufTensor* table = file.FindTensor("token_embd.weight");
  if (table == nullptr || table->shape.size() != 2) {
    return absl::InvalidArgumentError("GGUF: tensor 'token_embd.weight' is missing or has no rows");
  }
  if (table->shape[0] > kMaxVocab) {
    return absl::InvalidArgumentError(absl::StrCat("GGUF: tensor 'token_embd.weight' has ",
                                                   table->shape[0], " rows; at most ", kMaxVocab,
                                                   " are supported"));
  }
  return static_cast<std::int32_t>(table->shape[0]);
}

}  // namespace

absl::StatusOr<ArchitectureTraits> TraitsFor(std::string_view architecture) {
  std::string_view canonical = architecture;
  for (const Spelling& entry : kSpellings) {
    if (entry.spelling == architecture) canonical = entry.canonical;
  }
  std::string supported;
  for (const ArchitectureTraits& traits : kArchitectures) {
    if (traits.name == canonical) return traits;
    absl::StrAppend(&supported, supported.empty() ? "" : ", ", std::string(traits.name));
  }
  return absl::UnimplementedError(absl::StrCat("GGUF: general.architecture is '",
                                               std::string(architecture.substr(0, 64)),
                                               "'; supported are ", supported));
}

absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file) {
  MILLRACE_ASSIGN_OR_RETURN(const std::string_view architecture,
                            file.GetString("general.architecture"));
  ModelConfig config;
  MILLRACE_ASSIGN_OR_RETURN(config.traits, TraitsFor(architecture));
  if (file.Find("general.name") != nullptr) {
    MILLRACE_ASSIGN_OR_RETURN(const std::string_view name, file.GetString("general.name"));
    config.name = name;
  }
  // Under the architecture as the file spells it, or under its canonical name.
  const bool as_spelt =
      file.Find(absl::StrCat(std::string(architecture), ".block_count")) != nullptr;
  const ConfigReader reader(file, as_spelt ? architecture : config.traits.name);
  MILLRACE_RETURN_IF_ERROR(reader.Int("block_count", kMaxLayers, &config.layers));
  MILLRACE_RETURN_IF_ERROR(reader.Int("context_length", kMaxContext, &config.context_length));
  MILLRACE_RETURN_IF_ERROR(reader.Int("embedding_length", kMaxHidden, &config.hidden));
  MILLRACE_RETURN_IF_ERROR(ReadAttention(reader, &config));
  MILLRACE_RETURN_IF_ERROR(ReadRope(file, reader, &config));
  MILLRACE_RETURN_IF_ERROR(ReadFeedForward(reader, &config));
  MILLRACE_ASSIGN_OR_RETURN(config.vocab, ReadVocab(file));
  return config;
}

ForwardPath ForwardPathFor(const ModelConfig& config) {
  return config.traits.moe ? ForwardPath::kMoe : ForwardPath::kDense;
}

}  // namespace millrace

// The hyper-parameters of a model as its file says them, checked: every number is in a range that
// the rest of the program can rely on. A value; thread-safe.
#ifndef MILLRACE_RUNTIME_MODEL_MODEL_CONFIG_H_
#define MILLRACE_RUNTIME_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/backend/program.h"
#include "runtime/gguf/gguf_file.h"
#include "runtime/model/rope_frequencies.h"

namespace millrace {

// What distinguishes the architectures that one Transformer class covers.
struct ArchitectureTraits {
  std::string_view name;  // canonical: qwen3moe, qwen3, qwen2, llama
  bool moe = false;       // experts instead of one feed-forward
  bool qk_norm = false;   // RMSNorm of each query and key head before RoPE
  bool qkv_bias = false;
  RopePairing pairing = RopePairing::kNeox;
  double default_rope_base = 10000.0;  // where the file has no rope.freq_base
};

struct ModelConfig {
  ArchitectureTraits traits;
  std::string name;  // general.name, or empty
  std::int32_t layers = 0;
  std::int32_t context_length = 0;  // trained
  std::int32_t hidden = 0;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t rotary_dim = 0;
  std::int32_t vocab = 0;  // rows of the embedding table
  std::int32_t ffn = 0;    // of one expert, or of the dense feed-forward
  std::int32_t experts = 0;
  std::int32_t experts_per_token = 0;
  float norm_eps = 0;
  double rope_base = 0;
  RopeScaling rope_scaling;
};

// The canonical architecture for any of its spellings (qwen3_moe, Qwen3MoeForCausalLM...), or
// UNIMPLEMENTED naming it and what is supported.
absl::StatusOr<ArchitectureTraits> TraitsFor(std::string_view architecture);

// INVALID_ARGUMENT naming the key, what it is and what it may be; UNIMPLEMENTED for what is not
// built.
absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file);

// The one place where dense or mixture of experts is decided, for every entry point.
ForwardPath ForwardPathFor(const ModelConfig& config);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_MODEL_MODEL_CONFIG_H_

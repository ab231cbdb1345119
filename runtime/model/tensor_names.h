// Names of tensors in GGUF files. Layer tensors are "blk.<layer>.<name>". Thread-safe (constants).
#ifndef MILLRACE_RUNTIME_MODEL_TENSOR_NAMES_H_
#define MILLRACE_RUNTIME_MODEL_TENSOR_NAMES_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace::tensor {

inline constexpr std::string_view kTokenEmbedding = "token_embd.weight";  // [V, H]
inline constexpr std::string_view kOutputNorm = "output_norm.weight";     // [H]
inline constexpr std::string_view kOutput = "output.weight";              // [V, H]; absent: tied
inline constexpr std::string_view kRopeFrequencies = "rope_freqs.weight";

inline constexpr std::string_view kAttentionNorm = "attn_norm.weight";      // [H]
inline constexpr std::string_view kQuery = "attn_q.weight";                 // [Nq*D, H]
inline constexpr std::string_view kKey = "attn_k.weight";                   // [Nkv*D, H]
inline constexpr std::string_view kValue = "attn_v.weight";                 // [Nkv*D, H]
inline constexpr std::string_view kQueryBias = "attn_q.bias";               // [Nq*D]
inline constexpr std::string_view kKeyBias = "attn_k.bias";                 // [Nkv*D]
inline constexpr std::string_view kValueBias = "attn_v.bias";               // [Nkv*D]
inline constexpr std::string_view kQueryNorm = "attn_q_norm.weight";        // [D]
inline constexpr std::string_view kKeyNorm = "attn_k_norm.weight";          // [D]
inline constexpr std::string_view kAttentionOutput = "attn_output.weight";  // [H, Nq*D]
inline constexpr std::string_view kFfnNorm = "ffn_norm.weight";             // [H]
inline constexpr std::string_view kRouter = "ffn_gate_inp.weight";          // [E, H]
inline constexpr std::string_view kGateExperts = "ffn_gate_exps.weight";    // [E, F, H]
inline constexpr std::string_view kUpExperts = "ffn_up_exps.weight";        // [E, F, H]
inline constexpr std::string_view kDownExperts = "ffn_down_exps.weight";    // [E, H, F]
inline constexpr std::string_view kGate = "ffn_gate.weight";                // [F, H]
inline constexpr std::string_view kUp = "ffn_up.weight";                    // [F, H]
inline constexpr std::string_view kDown = "ffn_down.weight";                // [H, F]

inline std::string OfLayer(std::int32_t layer, std::string_view name) {
  return "blk." + std::to_string(layer) + "." + std::string(name);
}

}  // namespace millrace::tensor

#endif  // MILLRACE_RUNTIME_MODEL_TENSOR_NAMES_H_

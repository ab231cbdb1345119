// A Program is the network as a flat list of coarse stages in execution order, with the weights
// each one reads. The Transformer (runtime/model) emits it once at load; a Backend may fuse
// neighbours, plan memory or capture graphs in Prepare. Plain values, immutable after loading.
//
// Letters: T tokens of a step, H hidden size, Nq/Nkv query and key/value heads, D head_dim, E
// experts, K experts per token, F feed-forward width, V vocabulary.
#ifndef MILLRACE_RUNTIME_BACKEND_PROGRAM_H_
#define MILLRACE_RUNTIME_BACKEND_PROGRAM_H_

#include <cstdint>
#include <variant>
#include <vector>

#include "base/strong_id.h"
#include "kernels/rope_pairing.h"

namespace millrace {

// A weight tensor that a backend holds. kNoWeight marks an absent optional one.
using WeightId = StrongId<struct WeightIdTag, std::int32_t>;
inline constexpr WeightId kNoWeight{-1};

struct RopeSpec {
  RopePairing pairing = RopePairing::kNeox;
  std::int32_t rotary_dim = 0;
  // Angle of pair i at position p is p * inverse_frequency[i]; [rotary_dim / 2]. Scaling is folded
  // in.
  std::vector<double> inverse_frequency;
  double magnitude = 1.0;  // of cosines and sines
};

struct ProgramDims {
  std::int32_t num_layers = 0;
  std::int32_t hidden = 0;             // H
  std::int32_t num_heads = 0;          // Nq
  std::int32_t num_kv_heads = 0;       // Nkv
  std::int32_t head_dim = 0;           // D
  std::int32_t vocab = 0;              // V: rows of the head
  std::int32_t num_experts = 0;        // E, 0 for dense
  std::int32_t experts_per_token = 0;  // K
  std::int32_t ffn = 0;                // F: of one expert, or of the dense feed-forward
  float norm_eps = 0.0F;
  RopeSpec rope;
};

// x[T, H] = embedding rows of the tokens.
struct EmbedStage {
  WeightId table;  // [V, H]
};
// q, k, v = norm(x) * Wq, Wk, Wv (+ biases).
struct NormQkvStage {
  std::int32_t layer;
  WeightId norm;                    // [H]
  WeightId q, k, v;                 // [Nq*D, H], [Nkv*D, H], [Nkv*D, H]
  WeightId q_bias, k_bias, v_bias;  // [Nq*D], [Nkv*D], [Nkv*D] or kNoWeight
};
// q, k = rope(norm per head(q, k)); K and V of each token go into the cache.
struct QkNormRopeAppendStage {
  std::int32_t layer;
  WeightId q_norm, k_norm;  // [D] or kNoWeight
};
// a[T, Nq*D] = attention of q over the cache.
struct AttentionStage {
  std::int32_t layer;
};
// x += a * Wo.
struct OutputProjectionStage {
  std::int32_t layer;
  WeightId output;  // [H, Nq*D]
};
// h = norm(x); the router's logits, top K experts and their weights.
struct NormRouterStage {
  std::int32_t layer;
  WeightId norm;    // [H]
  WeightId router;  // [E, H]
  bool normalise;   // weights of the chosen experts sum to 1
};
// x += sum over the chosen experts of weight * down(silu(gate h) * (up h)).
struct ExpertsStage {
  std::int32_t layer;
  WeightId gate, up;  // [E, F, H]
  WeightId down;      // [E, H, F]
};
// x += down(silu(gate h) * (up h)), h = norm(x): the dense feed-forward.
struct DenseFfnStage {
  std::int32_t layer;
  WeightId norm;      // [H]
  WeightId gate, up;  // [F, H]
  WeightId down;      // [H, F]
};
// logits = norm(x) * head, for the rows that ask for them.
struct NormHeadStage {
  WeightId norm;  // [H]
  WeightId head;  // [V, H]; the embedding table where the model ties them
};
// Chooses one token for each row of logits.
struct SampleStage {};

using Stage = std::variant<EmbedStage, NormQkvStage, QkNormRopeAppendStage, AttentionStage,
                           OutputProjectionStage, NormRouterStage, ExpertsStage, DenseFfnStage,
                           NormHeadStage, SampleStage>;

// Which feed-forward the network has; also the label of millrace_forward_tokens_total{path}.
enum class ForwardPath : std::uint8_t { kDense, kMoe };

struct Program {
  ProgramDims dims;
  ForwardPath path = ForwardPath::kDense;  // decided once, at load
  std::vector<Stage> stages;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_PROGRAM_H_

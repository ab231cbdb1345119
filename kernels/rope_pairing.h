// Which elements of a head row a rotary embedding turns together. Leaf header.
#ifndef MILLRACE_KERNELS_ROPE_PAIRING_H_
#define MILLRACE_KERNELS_ROPE_PAIRING_H_

#include <cstdint>

namespace millrace {

enum class RopePairing : std::uint8_t {
  kNeox,         // i with i + rotary_dim / 2: qwen2, qwen3, qwen3moe
  kInterleaved,  // 2i with 2i + 1: files of the llama architecture, whose rows are permuted for it
};

}  // namespace millrace

#endif  // MILLRACE_KERNELS_ROPE_PAIRING_H_

// The model of the simulator: a hash that is carried through the blocks of the cache. Position p
// holds h[p] = Mix(h[p - 1], token), and the token after it is made of h[p] and of one earlier h,
// both read through the block table. So a wrong table, a block freed or written too early, a stale
// position or a wrong prefix changes what comes out, and it is known what must come out, at O(1) a
// token. Pure functions.
#ifndef MILLRACE_TESTS_SIM_HASH_MODEL_H_
#define MILLRACE_TESTS_SIM_HASH_MODEL_H_

#include <algorithm>
#include <cstdint>

#include "runtime/step/forward_batch.h"
#include "tests/sim/rng.h"

namespace millrace::sim {

inline constexpr std::uint64_t kBeforeAll = 0x6D696C6C72616365ULL;  // h[-1]

// Which earlier position the token after position p looks at.
constexpr std::int32_t LooksBackAt(std::uint64_t h, std::int32_t p) {
  return static_cast<std::int32_t>(h % (static_cast<std::uint64_t>(p) + 1));
}

inline std::uint32_t TokenAfter(std::uint64_t h, std::uint64_t earlier, const RowSampling& row,
                                std::uint32_t vocab) {
  std::uint64_t x = Mix(Mix(h, earlier), row.position);
  if (row.params.temperature > 0) x = Mix(Mix(x, row.params.seed), row.index);
  auto token = static_cast<std::uint32_t>(x % vocab);
  while (std::find(row.banned.begin(), row.banned.end(), token) != row.banned.end()) {
    token = (token + 1) % vocab;
  }
  return token;
}

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_HASH_MODEL_H_

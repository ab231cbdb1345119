// How fast a core can multiply int8 numbers at a level: the instructions of the level's products
// with all operands in registers, nothing loaded, nothing unpacked. The limit that prefill is
// compared with. Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_INT8_PEAK_H_
#define MILLRACE_KERNELS_CPU_INT8_PEAK_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"

namespace millrace::cpu {

// Multiplies and adds for `rounds` rounds; the value depends on all of them, so that none is left
// out.
using Int8PeakFn = std::int32_t (*)(std::int64_t rounds);

struct Int8PeakVariant {
  Isa isa;
  std::int64_t operations;  // of one round; a multiplication and its addition are two
  Int8PeakFn fn;
};

std::span<const Int8PeakVariant> Int8PeakVariants();
const Int8PeakVariant& SelectInt8Peak(Isa isa);

// Independent chains of a round: more than an instruction's latency times what starts in a cycle.
inline constexpr int kInt8PeakChains = 12;

namespace scalar {
std::int32_t Int8Peak(std::int64_t rounds);
}
namespace avx2 {
std::int32_t Int8Peak(std::int64_t rounds);
}
namespace avx2_vnni {
std::int32_t Int8Peak(std::int64_t rounds);
}
namespace avx512 {
std::int32_t Int8Peak(std::int64_t rounds);
}

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_INT8_PEAK_H_

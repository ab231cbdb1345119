#include "kernels/cpu/isa.h"

#include <cpuid.h>

#include <array>
#include <cstddef>

namespace millrace::cpu {
namespace {

constexpr std::array<std::string_view, kIsas.size()> kNames = {"scalar", "avx2", "avx2-vnni",
                                                               "avx512"};

// The compiler's builtin also asks whether the operating system saves the wide registers.
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

// GCC 12 knows no name for it: CPUID leaf 7, sub-leaf 1, bit 4 of EAX. It needs no state of its own
// beside AVX's.
bool HasAvxVnni() {
  unsigned int eax = 0;
  unsigned int ebx = 0;
  unsigned int ecx = 0;
  unsigned int edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1U << 4)) != 0;
}

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace

std::string_view IsaName(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

std::optional<Isa> ParseIsa(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Isa>(i);
  }
  return std::nullopt;
}

bool Supports(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return HasAvx2();
    case Isa::kAvx2Vnni:
      return HasAvx2() && HasAvxVnni();
    case Isa::kAvx512:
      return HasAvx2() && HasAvx512();
  }
  return false;
}

Isa DetectIsa() {
  Isa best = Isa::kScalar;
  for (const Isa isa : kIsas) {
    if (Supports(isa)) best = isa;
  }
  return best;
}

}  // namespace millrace::cpu

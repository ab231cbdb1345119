#include "kernels/cpu/isa.h"

#include <cpuid.h>

#include <array>
#include <cstddef>

namespace millrace::cpu {
namespace {

constexpr std::array<std::string_view, kIsas.size()> kNames = {"scalar", "avx2", "avx2-vnni",
                                                               "avx512"};

struct Cpuid {
  unsigned int eax = 0;
  unsigned int ebx = 0;
  unsigned int ecx = 0;
  unsigned int edx = 0;
};

// Zeros for a leaf that the machine does not have.
Cpuid CpuidLeaf(unsigned int leaf, unsigned int sub_leaf) {
  Cpuid out;
  if (__get_cpuid_count(leaf, sub_leaf, &out.eax, &out.ebx, &out.ecx, &out.edx) == 0) return {};
  return out;
}

// Compilers of 2022 know no names for these two; they need no state beside AVX's.
bool HasF16c() { return (CpuidLeaf(1, 0).ecx & (1U << 29)) != 0; }
bool HasAvxVnni() { return (CpuidLeaf(7, 1).eax & (1U << 4)) != 0; }

// The compiler's builtin also asks whether the operating system saves the wide registers.
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
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

bool ReadsAheadBySoftware() {
  static const bool intel = __builtin_cpu_is("intel") != 0;
  return intel;
}

}  // namespace millrace::cpu

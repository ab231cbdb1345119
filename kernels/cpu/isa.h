// Levels of CPU kernels. Every level gives the same bits (docs/numerics.md), so choosing one is a
// matter of speed alone. Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_ISA_H_
#define MILLRACE_KERNELS_CPU_ISA_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace millrace::cpu {

// In ascending order of speed. A level uses what it has and, for the rest, what lesser levels have:
// so a table that has an entry of kAvx2Vnni has one of kAvx512 too, since there are machines with
// AVX-512 VNNI and without AVX-VNNI.
enum class Isa : std::uint8_t {
  kScalar,    // portable C++
  kAvx2,      // AVX2, FMA, F16C
  kAvx2Vnni,  // and AVX-VNNI
  kAvx512,    // and AVX-512 F, BW, VL, DQ and VNNI
};

inline constexpr std::array<Isa, 4> kIsas = {Isa::kScalar, Isa::kAvx2, Isa::kAvx2Vnni,
                                             Isa::kAvx512};

std::string_view IsaName(Isa isa);  // scalar, avx2, avx2-vnni, avx512
std::optional<Isa> ParseIsa(std::string_view name);

// Whether this machine and its operating system support a level.
bool Supports(Isa isa);

// The best level that they support.
Isa DetectIsa();

// Whether a core reads faster if kernels ask for every line of what comes next, by measurement (ADR
// 0022): Intel's. AMD's read ahead by themselves within a page, and requests for lines that they
// would have asked for take places from others. Asked of the processor once.
bool ReadsAheadBySoftware();

// Picks from a table sorted from the most specific level down: the first entry with isa <= `isa`.
// `Variant` has a member `isa`. Every table ends with a scalar entry, so there always is one.
template <typename Table>
constexpr const auto& SelectVariant(const Table& table, Isa isa) {
  for (const auto& variant : table) {
    if (variant.isa <= isa) return variant;
  }
  return *(std::end(table) - 1);
}

}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_ISA_H_

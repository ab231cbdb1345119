// Levels of CPU kernels. Every level gives the same bits (docs/numerics.md), so choosing one is a
// matter of speed alone. Thread-safe.
#ifndef MILLRACE_KERNELS_CPU_ISA_H_
#define MILLRACE_KERNELS_CPU_ISA_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace millrace::cpu {

// In ascending order: a machine that supports one supports all before it.
enum class Isa : std::uint8_t {
  kScalar,  // portable C++
  kAvx2,    // AVX2, FMA, F16C
  kAvx512,  // F, BW, VL, DQ and VNNI
};

std::string_view IsaName(Isa isa);  // scalar, avx2, avx512
std::optional<Isa> ParseIsa(std::string_view name);

// The best level that this machine and its operating system support.
Isa DetectIsa();

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

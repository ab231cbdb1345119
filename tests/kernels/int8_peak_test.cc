#include "kernels/cpu/int8_peak.h"

#include <gtest/gtest.h>

namespace millrace::cpu {
namespace {

// A level's sums over `rounds` rounds of 3 * -5, in the lanes that its instructions make.
std::int64_t Expected(Isa isa, std::int64_t rounds) {
  const std::int64_t products_in_a_lane = isa == Isa::kScalar ? 1 : (isa == Isa::kAvx2 ? 2 : 4);
  return -15 * products_in_a_lane * kInt8PeakChains * rounds;
}

TEST(Int8Peak, DoesEveryOperationThatItCounts) {
  for (const Int8PeakVariant& variant : Int8PeakVariants()) {
    if (!Supports(variant.isa)) continue;
    for (const std::int64_t rounds : {0, 1, 7, 60}) {
      const std::int64_t sum = variant.fn(rounds);
      // AVX2 keeps 16 bits.
      const auto wanted = Expected(variant.isa, rounds);
      EXPECT_EQ(static_cast<std::int16_t>(sum), static_cast<std::int16_t>(wanted))
          << IsaName(variant.isa) << ", " << rounds << " rounds";
    }
    EXPECT_EQ(variant.operations % kInt8PeakChains, 0);
  }
}

}  // namespace
}  // namespace millrace::cpu

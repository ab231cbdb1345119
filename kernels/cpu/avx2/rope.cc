#include "kernels/cpu/rope_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_avx2.h"

namespace millrace::cpu::avx2 {

void Rope(float* row, std::int32_t rotary_dim, RopePairing pairing, const float* cosines,
          const float* sines) {
  RopeRow<LanesAvx2>(row, rotary_dim, pairing, cosines, sines);
}

}  // namespace millrace::cpu::avx2

#include "kernels/cpu/rope_body.h"

#include "kernels/cpu/float_kernels.h"
#include "kernels/cpu/lanes16_avx512.h"

namespace millrace::cpu::avx512 {

void Rope(float* row, std::int32_t rotary_dim, RopePairing pairing, const float* cosines,
          const float* sines) {
  RopeRow<LanesAvx512>(row, rotary_dim, pairing, cosines, sines);
}

}  // namespace millrace::cpu::avx512

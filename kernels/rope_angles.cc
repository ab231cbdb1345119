#include "kernels/rope_angles.h"

#include <cmath>

namespace millrace {

void RopeAngles(std::int64_t position, std::span<const double> inverse_frequency, double magnitude,
                float* cosines, float* sines) {
  for (std::size_t i = 0; i < inverse_frequency.size(); ++i) {
    const double angle = static_cast<double>(position) * inverse_frequency[i];
    cosines[i] = static_cast<float>(magnitude * std::cos(angle));
    sines[i] = static_cast<float>(magnitude * std::sin(angle));
  }
}

}  // namespace millrace

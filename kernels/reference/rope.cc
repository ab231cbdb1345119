#include "kernels/reference/rope.h"

#include <cmath>
#include <cstddef>

namespace millrace::reference {

std::vector<double> Rope(std::span<const float> row, std::int64_t position,
                         std::span<const double> inverse_frequency, RopePairing pairing) {
  std::vector<double> y(row.begin(), row.end());
  const std::size_t half = inverse_frequency.size();
  for (std::size_t i = 0; i < half; ++i) {
    const bool neox = pairing == RopePairing::kNeox;
    const std::size_t a = neox ? i : 2 * i;
    const std::size_t b = neox ? i + half : 2 * i + 1;
    const double angle = static_cast<double>(position) * inverse_frequency[i];
    y[a] = row[a] * std::cos(angle) - row[b] * std::sin(angle);
    y[b] = row[b] * std::cos(angle) + row[a] * std::sin(angle);
  }
  return y;
}

}  // namespace millrace::reference

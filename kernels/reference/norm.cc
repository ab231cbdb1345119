#include "kernels/reference/norm.h"

#include <cmath>
#include <cstddef>

namespace millrace::reference {

std::vector<double> RmsNorm(std::span<const float> x, std::span<const float> weight, double eps) {
  double squares = 0.0;
  for (const float v : x) squares += static_cast<double>(v) * v;
  const double r = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  std::vector<double> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * r * weight[i];
  return y;
}

}  // namespace millrace::reference

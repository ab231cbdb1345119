// The truth that attention is tested against: one softmax over all positions, in double, from rows
// as the cache holds them (already rounded to its type). Thread-safe.
#ifndef MILLRACE_KERNELS_REFERENCE_ATTENTION_H_
#define MILLRACE_KERNELS_REFERENCE_ATTENTION_H_

#include <cstdint>
#include <span>
#include <vector>

namespace millrace::reference {

struct AttentionResult {
  std::vector<double> out;        // [head_dim]
  std::vector<double> magnitude;  // [head_dim]: sum of softmax(s)[j] * |v[j]|
  double max_score = 0.0;         // the largest scale * sum of |q| |k[j]|
};

// q [head_dim]; keys, values [context][head_dim].
AttentionResult Attention(std::span<const float> q, std::span<const float> keys,
                          std::span<const float> values, double scale);

// How far from Attention an output that follows kernels/cpu/attention.h may be, divided by
// `magnitude`. With u = 2^-24 and S = max_score:
//   a score carries one rounding a fma (head_dim / 16, rounded up), four of the tree, one of the
//   scale, each relative to at most S; s - m two S u; exp 2 u (1 ulp). What shifts all scores alike
//   cancels, and an error of p enters sum and output: twice.
//   o has up to 256 fma in a partition, l 16 + 4 additions; a merge has an exp of a difference (2 S
//   u
//   + 2 u), a product and an fma, for o and for l; the division one.
// The sum of the relative errors, and 1 % for the products of them.
double AttentionErrorFactor(std::int64_t head_dim, std::int64_t context, double max_score);

}  // namespace millrace::reference

#endif  // MILLRACE_KERNELS_REFERENCE_ATTENTION_H_

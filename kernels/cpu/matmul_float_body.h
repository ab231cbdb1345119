// Products of float weights in the 16 virtual lanes of kernels/cpu/lanes16_*.h. V is a level's
// lanes; only the block of rows and columns that share loads differs between levels, so the bits do
// not. Internal to kernels/cpu/avx2 and avx512.
#ifndef MILLRACE_KERNELS_CPU_MATMUL_FLOAT_BODY_H_
#define MILLRACE_KERNELS_CPU_MATMUL_FLOAT_BODY_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/matmul_rows.h"
#include "kernels/quant_blocks.h"

namespace millrace::cpu {
namespace {

// 16 weights of a type from value i of a row; the tail's missing ones are zeros.
template <typename V, DType kType>
struct FloatWeights;

template <typename V>
struct FloatWeights<V, DType::kF32> {
  static typename V::Reg Load(const std::byte* row, std::int64_t i) {
    return V::Load(reinterpret_cast<const float*>(row) + i);
  }
  static typename V::Reg LoadTail(const std::byte* row, std::int64_t i, int n) {
    return V::LoadTail(reinterpret_cast<const float*>(row) + i, n, 0.0F);
  }
};

template <typename V>
struct FloatWeights<V, DType::kF16> {
  static typename V::Reg Load(const std::byte* row, std::int64_t i) {
    return V::LoadHalf(reinterpret_cast<const HalfBits*>(row) + i);
  }
  static typename V::Reg LoadTail(const std::byte* row, std::int64_t i, int n) {
    return V::LoadHalfTail(reinterpret_cast<const HalfBits*>(row) + i, n);
  }
};

template <typename V>
struct FloatWeights<V, DType::kBF16> {
  typedef HalfBits Halves __attribute__((vector_size(32)));
  typedef std::uint32_t Words __attribute__((vector_size(64)));

  static typename V::Reg Load(const std::byte* row, std::int64_t i) {
    Halves halves;
    __builtin_memcpy(&halves, row + 2 * i, sizeof(halves));
    return Widen(halves);
  }
  static typename V::Reg LoadTail(const std::byte* row, std::int64_t i, int n) {
    Halves halves = {};
    __builtin_memcpy(&halves, row + 2 * i, 2 * static_cast<std::size_t>(n));
    return Widen(halves);
  }

 private:
  static typename V::Reg Widen(const Halves& halves) {
    const Words words = __builtin_convertvector(halves, Words) << 16;
    typename V::Reg out;
    static_assert(sizeof(out) == sizeof(words));
    __builtin_memcpy(&out, &words, sizeof(out));
    return out;
  }
};

// Outputs of kRows weight rows from row i and kColumns columns from column j.
template <typename V, DType kType, int kRows, int kColumns>
inline void MultiplyFloats(const MatmulParams& p, std::int64_t i, std::int64_t j) {
  using Weights = FloatWeights<V, kType>;
  typename V::Reg acc[kRows][kColumns];
  const std::byte* w[kRows];
  const float* x[kColumns];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) w[r] = WeightRow(p, i + r);
#pragma GCC unroll 4
  for (int c = 0; c < kColumns; ++c) {
    x[c] = reinterpret_cast<const float*>(ActivationRow(p, j + c));
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) acc[r][c] = V::Set1(0.0F);
  }
  std::int64_t at = 0;
  for (; at + 16 <= p.k; at += 16) {
    typename V::Reg values[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) values[c] = V::Load(x[c] + at);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const typename V::Reg weights = Weights::Load(w[r], at);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) acc[r][c] = V::Fma(weights, values[c], acc[r][c]);
    }
  }
  if (const int n = static_cast<int>(p.k - at); n > 0) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      const typename V::Reg values = V::LoadTail(x[c] + at, n, 0.0F);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        acc[r][c] = V::Fma(Weights::LoadTail(w[r], at, n), values, acc[r][c]);
      }
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < kColumns; ++c) {
    float* y = OutputRow(p, j + c) + i;
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) y[r] = V::Sum(acc[r][c]);
  }
}

// Blocks of kRows x kColumns where there are so many columns, of 4 x 1 for the rest.
template <typename V, DType kType, int kRows, int kColumns>
void MatmulFloats(const MatmulParams& p) {
  std::int64_t i = p.n_begin;
  for (; i + 4 <= p.n_end; i += 4) {
    static_assert(4 % kRows == 0);
    std::int64_t j = 0;
    for (; j + kColumns <= p.m; j += kColumns) {
      for (int r = 0; r < 4; r += kRows) MultiplyFloats<V, kType, kRows, kColumns>(p, i + r, j);
    }
    for (; j < p.m; ++j) MultiplyFloats<V, kType, 4, 1>(p, i, j);
  }
  for (; i < p.n_end; ++i) {
    for (std::int64_t j = 0; j < p.m; ++j) MultiplyFloats<V, kType, 1, 1>(p, i, j);
  }
}

}  // namespace
}  // namespace millrace::cpu

#endif  // MILLRACE_KERNELS_CPU_MATMUL_FLOAT_BODY_H_

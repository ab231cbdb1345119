// Rows of activations between the CPU's form (kernels/quant_blocks.h) and the device's
// (kernels/cuda/activations.h), for tests. Thread-safe.
#ifndef MILLRACE_TESTS_CUDA_ACTIVATION_ROWS_H_
#define MILLRACE_TESTS_CUDA_ACTIVATION_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/activations.h"
#include "kernels/dtype.h"
#include "kernels/quant_blocks.h"

namespace millrace::testing {

// One row of k values; `device` is ActivationLayoutOf(format, k).row_bytes, of which only what has
// a meaning is written.
inline void ToDeviceRow(ActivationFormat format, std::int64_t k, const std::byte* cpu,
                        std::byte* device) {
  const cuda::ActivationLayout layout = cuda::ActivationLayoutOf(format, k);
  if (format == ActivationFormat::kF32) {
    std::memcpy(device, cpu, static_cast<std::size_t>(4 * k));
  } else if (format == ActivationFormat::kQ8x32) {
    for (std::int64_t b = 0; b < k / 32; ++b) {
      ActivationQ8x32 block;
      std::memcpy(&block, cpu + b * std::int64_t{sizeof(block)}, sizeof(block));
      std::memcpy(device + layout.scales + 4 * b, &block.scale, 4);
      std::memcpy(device + layout.sums + 4 * b, &block.sum, 4);
      for (std::int64_t i = 0; i < 32; ++i) {
        device[cuda::QuantIndex(32 * b + i)] = static_cast<std::byte>(block.q[i]);
      }
    }
  } else {
    for (std::int64_t b = 0; b < k / 256; ++b) {
      ActivationQ8x256 block;
      std::memcpy(&block, cpu + b * std::int64_t{sizeof(block)}, sizeof(block));
      std::memcpy(device + layout.scales + 4 * b, &block.scale, 4);
      cuda::ActivationSums sums;
      for (int p = 0; p < 8; ++p) {
        sums.pair_low[p] = cuda::SumLow(block.pair_sums[p]);
        sums.pair_high[p] = cuda::SumHigh(block.pair_sums[p]);
      }
      for (int s = 0; s < 16; ++s) {
        sums.low[s] = cuda::SumLow(block.sums[s]);
        sums.high[s] = cuda::SumHigh(block.sums[s]);
      }
      std::memcpy(device + layout.sums + std::int64_t{sizeof(sums)} * b, &sums, sizeof(sums));
      for (std::int64_t i = 0; i < 256; ++i) {
        device[cuda::QuantIndex(256 * b + i)] = static_cast<std::byte>(block.q[i]);
      }
    }
  }
}

// The way back, for comparing with what the CPU quantises; `cpu` is cpu::ActivationRowBytes(format,
// k).
inline void FromDeviceRow(ActivationFormat format, std::int64_t k, const std::byte* device,
                          std::byte* cpu) {
  const cuda::ActivationLayout layout = cuda::ActivationLayoutOf(format, k);
  if (format == ActivationFormat::kF32) {
    std::memcpy(cpu, device, static_cast<std::size_t>(4 * k));
  } else if (format == ActivationFormat::kQ8x32) {
    for (std::int64_t b = 0; b < k / 32; ++b) {
      ActivationQ8x32 block;
      std::memcpy(&block.scale, device + layout.scales + 4 * b, 4);
      std::memcpy(&block.sum, device + layout.sums + 4 * b, 4);
      for (std::int64_t i = 0; i < 32; ++i) {
        block.q[i] = static_cast<std::int8_t>(device[cuda::QuantIndex(32 * b + i)]);
      }
      std::memcpy(cpu + b * std::int64_t{sizeof(block)}, &block, sizeof(block));
    }
  } else {
    for (std::int64_t b = 0; b < k / 256; ++b) {
      ActivationQ8x256 block;
      std::memcpy(&block.scale, device + layout.scales + 4 * b, 4);
      cuda::ActivationSums sums;
      std::memcpy(&sums, device + layout.sums + std::int64_t{sizeof(sums)} * b, sizeof(sums));
      for (int p = 0; p < 8; ++p) {
        block.pair_sums[p] = static_cast<std::int16_t>(64 * sums.pair_high[p] + sums.pair_low[p]);
      }
      for (int s = 0; s < 16; ++s) {
        block.sums[s] = static_cast<std::int16_t>(64 * sums.high[s] + sums.low[s]);
      }
      for (std::int64_t i = 0; i < 256; ++i) {
        block.q[i] = static_cast<std::int8_t>(device[cuda::QuantIndex(256 * b + i)]);
      }
      std::memcpy(cpu + b * std::int64_t{sizeof(block)}, &block, sizeof(block));
    }
  }
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CUDA_ACTIVATION_ROWS_H_

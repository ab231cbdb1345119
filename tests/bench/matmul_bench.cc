// Every variant of the matrix product over weights far larger than the caches, on one thread.
// Counters: bytes a second of weights and "of_read", their share of a plain read of the same memory
// in the same run; operations a second and, for quantised types, "of_peak", their share of the int8
// peak of the level. Not part of the suite.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/quantize.h"
#include "kernels/tile_layout.h"
#include "tests/bench/machine_limits.h"
#include "tests/kernels/random_weights.h"

namespace millrace::cpu {
namespace {

constexpr std::size_t kWeightBytes = std::size_t{192} << 20;

// A tile that repeats keeps the setup short; kernels do not look at the values.
void FillTiles(const MatmulVariant& variant, std::int64_t k, std::span<std::byte> weights) {
  const std::int64_t rows = variant.tile_rows;
  const auto bytes = static_cast<std::size_t>(TileBytes(variant.dtype, k, variant.tile_rows));
  std::vector<std::byte> row(static_cast<std::size_t>(rows * RowBytes(variant.dtype, k)));
  std::vector<std::byte> tile(bytes);
  std::mt19937 rng(1);
  testing::FillWeights(variant.dtype, row.data(), rows * k, rng);
  PackTiles(variant.dtype, row.data(), rows, k, variant.tile_rows, tile.data());
  for (std::size_t at = 0; at + bytes <= weights.size(); at += bytes) {
    std::memcpy(weights.data() + at, tile.data(), bytes);
  }
}

void Product(benchmark::State& state, const MatmulVariant& variant) {
  const std::int64_t m = state.range(0);
  const std::int64_t k = state.range(1);
  const ActivationFormat format = Info(variant.dtype).activation;
  const bench::HugeMemory memory(kWeightBytes);
  const std::span<std::byte> weights = memory.span();
  FillTiles(variant, k, weights);
  const std::int64_t tile_bytes = TileBytes(variant.dtype, k, variant.tile_rows);
  const std::int64_t n = static_cast<std::int64_t>(weights.size()) / tile_bytes * variant.tile_rows;
  const std::int64_t x_bytes = ActivationRowBytes(format, k);
  std::vector<std::byte> x(static_cast<std::size_t>(m * x_bytes));
  std::vector<float> values(static_cast<std::size_t>(k), 0.25F);
  for (std::int64_t j = 0; j < m; ++j) {
    SelectQuantize(format, Isa::kScalar).fn(values.data(), k, x.data() + j * x_bytes);
  }
  // Slices as a worker takes them; the outputs of all of them share one small buffer.
  const std::int64_t slice = 256;
  std::vector<float> y(static_cast<std::size_t>(m * slice));
  MatmulParams params{.w_tile_bytes = tile_bytes,
                      .k = k,
                      .n_end = slice,
                      .x = x.data(),
                      .x_row_bytes = x_bytes,
                      .m = m,
                      .y = y.data(),
                      .y_stride = slice};
  // A step of the benchmark walks enough slices to take milliseconds, all of them in turn.
  const std::int64_t slices = n / slice;
  std::int64_t at = 0;
  for (auto _ : state) {
    params.w = weights.data() + at * slice / variant.tile_rows * params.w_tile_bytes;
    variant.fn(params);
    benchmark::DoNotOptimize(y.data());
    at = (at + 1) % slices;
  }
  const double bytes =
      static_cast<double>(state.iterations() * slice / variant.tile_rows * params.w_tile_bytes);
  const double read = bench::ReadBandwidth(weights);
  using benchmark::Counter;
  state.counters["B/s"] = Counter(bytes, Counter::kIsRate);
  state.counters["of_read"] = Counter(bytes / read, Counter::kIsRate);
  const auto operations = static_cast<double>(2 * state.iterations() * slice * k * m);
  state.counters["OP/s"] = Counter(operations, Counter::kIsRate);
  if (Info(variant.dtype).block_values == 1) return;
  state.counters["of_peak"] = Counter(operations / bench::Int8Peak(variant.isa), Counter::kIsRate);
}

void Register() {
  for (const MatmulVariant& variant : MatmulVariants()) {
    if (!Supports(variant.isa)) continue;
    auto* bench = benchmark::RegisterBenchmark(
        Name(variant).c_str(), [&variant](benchmark::State& state) { Product(state, variant); });
    bench->ArgNames({"m", "k"})->ArgsProduct({{1, 2, 4, 8, 32}, {512, 2048}})->UseRealTime();
  }
}

}  // namespace
}  // namespace millrace::cpu

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  millrace::cpu::Register();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

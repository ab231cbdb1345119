// The kernels beside the products, at every level: attention over a paged cache far larger than the
// caches, quantisation of activations, RMSNorm. On one thread. Counters: bytes a second, "of_read"
// their share of a plain read of the same memory in the same run (attention), operations a second.
// Not part of the suite.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/quantize.h"
#include "tests/bench/machine_limits.h"

namespace millrace::cpu {
namespace {

using benchmark::Counter;

constexpr std::size_t kCacheBytes = std::size_t{128} << 20;
constexpr std::int32_t kHeadDim = 128;
constexpr std::int32_t kGroup = 8;  // query heads that share a kv head, as in Qwen3-30B-A3B

// One unit of attention after another over a cache whose blocks lie in random order; `queries`
// positions share each unit.
void Attention(benchmark::State& state, const AttentionVariant& variant) {
  const auto queries = static_cast<std::int32_t>(state.range(0));
  const bench::HugeMemory memory(kCacheBytes);
  KvLayerView kv{memory.span().data(),
                 {.num_layers = 1,
                  .num_kv_heads = 1,
                  .head_dim = kHeadDim,
                  .block_size = 32,
                  .dtype = variant.dtype}};
  const std::int64_t blocks =
      static_cast<std::int64_t>(kCacheBytes) / kv.layout.layer_block_bytes();
  std::vector<std::int32_t> table(static_cast<std::size_t>(blocks));
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937(1));
  std::vector<float> q(static_cast<std::size_t>(queries * kGroup * kHeadDim), 0.25F);
  std::vector<float> partials(static_cast<std::size_t>(queries * kGroup * (kHeadDim + 2)));
  AttentionPartialParams params;
  params.kv = kv;
  params.group = kGroup;
  params.block_table = table.data();
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(queries));
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto partitions = static_cast<std::int32_t>(blocks * 32 / kKvPartition);
  const std::vector<std::int32_t> positions(tokens.size(), partitions * kKvPartition - 1);
  params.queries = tokens.data();
  params.positions = positions.data();  // all see all of it
  params.num_queries = queries;
  params.q = q.data();
  params.q_stride = kGroup * kHeadDim;
  params.scale = 1.0F / std::sqrt(static_cast<float>(kHeadDim));
  params.partials = partials.data();
  params.partial_query_stride = kGroup * (kHeadDim + 2);
  for (auto _ : state) {
    variant.partial(params);
    benchmark::DoNotOptimize(partials.data());
    params.partition = (params.partition + 1) % partitions;
  }
  const double bytes = static_cast<double>(state.iterations()) * 2 * kKvPartition *
                       static_cast<double>(kv.layout.row_bytes());
  state.counters["B/s"] = Counter(bytes, Counter::kIsRate);
  state.counters["of_read"] =
      Counter(bytes / bench::ReadBandwidth(memory.span()), Counter::kIsRate);
  const double operations =
      static_cast<double>(state.iterations()) * 4 * kKvPartition * kHeadDim * kGroup * queries;
  state.counters["OP/s"] = Counter(operations, Counter::kIsRate);
}

void Quantize(benchmark::State& state, const QuantizeVariant& variant) {
  const std::int64_t k = state.range(0);
  const std::vector<float> x(static_cast<std::size_t>(k), 0.25F);
  std::vector<std::byte> out(static_cast<std::size_t>(ActivationRowBytes(variant.format, k)));
  for (auto _ : state) {
    variant.fn(x.data(), k, out.data());
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * k * 4);
}

void Norm(benchmark::State& state, const RmsNormVariant& variant) {
  const std::int64_t n = state.range(0);
  const std::vector<float> x(static_cast<std::size_t>(n), 0.25F);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    variant.fn(x.data(), x.data(), n, 1e-6F, y.data());
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * n * 4);
}

template <typename Variant, typename Run>
benchmark::internal::Benchmark* Register(const char* kernel, const Variant& variant, Run run) {
  const std::string name = std::string(kernel) + "/" + variant.name;
  return benchmark::RegisterBenchmark(
      name.c_str(), [&variant, run](benchmark::State& state) { run(state, variant); });
}

void RegisterAll() {
  for (const AttentionVariant& variant : AttentionVariants()) {
    if (!Supports(variant.isa)) continue;
    Register("attention", variant, Attention)->ArgName("queries")->Arg(1)->Arg(16)->UseRealTime();
  }
  for (const QuantizeVariant& variant : QuantizeVariants()) {
    if (!Supports(variant.isa) || variant.format == ActivationFormat::kF32) continue;
    Register("quantize", variant, Quantize)->ArgName("k")->Arg(2048);
  }
  for (const RmsNormVariant& variant : RmsNormVariants()) {
    if (Supports(variant.isa)) Register("rms_norm", variant, Norm)->ArgName("n")->Arg(2048);
  }
}

}  // namespace
}  // namespace millrace::cpu

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  millrace::cpu::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

// Products and what follows them, in one kernel and in two, on the (emulated) GPU against the CPU's
// scalar level, bit for bit; and when they are one.
#include "kernels/cuda/tail_plan.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/moe.h"
#include "kernels/cpu/norm.h"
#include "kernels/cuda/matmul_tail.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/expect_rows.h"
#include "tests/cuda/matmul_cases.h"
#include "tests/cuda/rope_cases.h"
#include "tests/kernels/float_test_support.h"

namespace millrace::cuda {
namespace {

using testing::ActivationArrays;
using testing::DeviceArray;
using testing::ExpectSameBits;
using testing::MatmulOperands;
using testing::RandomFloats;

constexpr float kEps = 1e-6F;
constexpr std::int32_t kSpareTokens = 2;  // of the launch, which are not there
constexpr std::int32_t kCounters = 4096;
// So few multiprocessors that a block takes many tiles.
constexpr int kFew = 8;

struct ProductCase {
  std::vector<DType> dtypes;    // of each matrix
  std::vector<std::int32_t> n;  // rows of each
  std::int64_t k = 256;
  std::int32_t tokens = 1;
  std::int32_t ranks = 0;      // pairs of a token; 0: dense rows
  bool rows_of_pairs = false;  // each pair has a row of activations, else each token
  std::uint32_t seed = 1;

  std::int32_t rows() const { return tokens * std::max(1, ranks); }
};

// A product's operands and results in device memory.
class Product {
 public:
  explicit Product(const ProductCase& c) : case_(c), rng_(c.seed), count_(std::vector{c.tokens}) {
    constexpr std::int32_t kExperts = 5;
    std::vector<std::int32_t> experts;
    for (std::int32_t j = 0; j < c.rows(); ++j) {
      experts.push_back(static_cast<std::int32_t>(rng_() % kExperts));
    }
    experts.resize(static_cast<std::size_t>(max_rows()), -1);
    experts_of_ = experts;
    experts_ = std::make_unique<DeviceArray<std::int32_t>>(experts);
    for (std::size_t m = 0; m < c.dtypes.size(); ++m) {
      operands_.emplace_back(c.dtypes[m], c.n[m], c.k, c.ranks > 0 ? kExperts : 1, c.rows(), &rng_);
      w_.push_back(std::make_unique<DeviceArray<std::byte>>(operands_[m].LaidOut()));
      x_.push_back(std::make_unique<DeviceArray<std::byte>>(operands_[m].DeviceRows()));
      y_.push_back(std::make_unique<DeviceArray<float>>(
          static_cast<std::size_t>(std::int64_t{max_rows()} * c.n[m])));
      y_[m]->Poison();
    }
  }

  MatmulParams Params() {
    MatmulParams params;
    params.num_matrices = static_cast<int>(case_.dtypes.size());
    params.k = case_.k;
    params.count = count_.data();
    params.rows_per_count = std::max(1, case_.ranks);
    params.max_rows = max_rows();
    params.chained = true;
    if (case_.ranks > 0) {
      params.experts = experts_->data();
      params.num_experts = 5;
      params.rows_per_x = case_.rows_of_pairs ? 1 : case_.ranks;
    }
    for (std::size_t m = 0; m < operands_.size(); ++m) {
      MatmulMatrix& matrix = params.matrices[m];
      matrix.w = w_[m]->data();
      matrix.expert_bytes = operands_[m].expert_bytes();
      matrix.form = FormOf(case_.dtypes[m]);
      matrix.n = case_.n[m];
      matrix.x = x_[m]->data();
      matrix.y = y_[m]->data();
      matrix.y_stride = case_.n[m];
    }
    return params;
  }

  // Row j of matrix m on the CPU.
  std::vector<float> Row(std::size_t m, std::int32_t j) {
    const bool of_token = case_.ranks > 0 && !case_.rows_of_pairs;
    const std::int32_t expert = case_.ranks > 0 ? experts_of_[static_cast<std::size_t>(j)] : 0;
    return operands_[m].Product(expert, of_token ? j / case_.ranks : j);
  }
  // All rows, one after the other.
  std::vector<float> Rows(std::size_t m) {
    std::vector<float> rows;
    for (std::int32_t j = 0; j < case_.rows(); ++j) {
      const std::vector<float> row = Row(m, j);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    return rows;
  }

  std::int32_t* count() { return count_.data(); }
  DeviceArray<float>& y(std::size_t m) { return *y_[m]; }

 private:
  std::int32_t max_rows() const { return (case_.tokens + kSpareTokens) * std::max(1, case_.ranks); }

  const ProductCase case_;
  std::mt19937 rng_;
  std::vector<MatmulOperands> operands_;
  std::vector<std::int32_t> experts_of_;
  DeviceArray<std::int32_t> count_;
  std::unique_ptr<DeviceArray<std::int32_t>> experts_;
  std::vector<std::unique_ptr<DeviceArray<std::byte>>> w_, x_;
  std::vector<std::unique_ptr<DeviceArray<float>>> y_;
};

struct Launching {
  int multiprocessors = 132;
  bool fused = true;  // asked for
  bool fuses = true;  // and it fits
};

// Launches, in one kernel where that is asked for and fits; counters are 0 again behind it.
void LaunchAs(const Launching& launching, const MatmulParams& params, MatmulTail tail) {
  const std::vector<std::int32_t> zeros(kCounters);
  DeviceArray<std::int32_t> counters(zeros);
  tail.counters = counters.data();
  tail.num_counters = launching.fused ? kCounters : 0;
  const MatmulDevice device = {.multiprocessors = launching.multiprocessors};
  ASSERT_EQ(FusesTail(params, tail, device), launching.fuses && launching.fused);
  ASSERT_EQ(LaunchMatmulThen(params, tail, device, nullptr), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(counters.Read(), zeros);
}

// ---- Norm ---------------------------------------------------------------------------------------

struct NormCase {
  ProductCase product;
  std::vector<std::int32_t> row_index;  // empty: none
};

std::vector<float> NormOnCpu(std::vector<float> x, const std::vector<float>& weight) {
  cpu::SelectRmsNorm(cpu::Isa::kScalar)
      .fn(x.data(), weight.data(), static_cast<std::int64_t>(x.size()), kEps, x.data());
  return x;
}

// The rows of x once the product, or the sum of what the experts computed, is added.
std::vector<std::vector<float>> RowsAfter(const NormCase& c, const std::vector<float>& x,
                                          const std::vector<float>& expert_weights,
                                          Product* product) {
  const std::int64_t n = c.product.n[0];
  const std::int32_t ranks = c.product.ranks;
  std::vector<std::vector<float>> rows;
  for (std::int32_t t = 0; t < c.product.tokens; ++t) {
    std::vector<float>& row = rows.emplace_back(x.begin() + t * n, x.begin() + (t + 1) * n);
    if (ranks == 0) {
      const std::vector<float> added = product->Row(0, t);
      for (std::size_t i = 0; i < row.size(); ++i) row[i] = row[i] + added[i];
      continue;
    }
    std::vector<float> experts;
    for (std::int32_t r = 0; r < ranks; ++r) {
      const std::vector<float> one = product->Row(0, t * ranks + r);
      experts.insert(experts.end(), one.begin(), one.end());
    }
    cpu::SelectMoe(cpu::Isa::kScalar)
        .fns.combine(row.data(), experts.data(), n, expert_weights.data() + t * ranks, ranks, n,
                     row.data());
  }
  return rows;
}

void ExpectNormed(const NormCase& c, const Launching& launching) {
  SCOPED_TRACE("norm of " + std::to_string(c.product.tokens) + " rows of " +
               std::to_string(c.product.n[0]) + ", seed " + std::to_string(c.product.seed) +
               (launching.fused ? ", fused" : ", apart"));
  const std::int32_t n = c.product.n[0];
  const std::int32_t tokens = c.product.tokens;
  const bool pairs = c.product.ranks > 0;
  const bool asked = !c.row_index.empty();
  std::mt19937_64 random(c.product.seed);
  Product product(c.product);
  const std::vector<float> x = RandomFloats(static_cast<std::size_t>(tokens * n), &random);
  const std::vector<float> weight = RandomFloats(static_cast<std::size_t>(n), &random);
  const std::vector<float> expert_weights =
      RandomFloats(static_cast<std::size_t>(c.product.rows()), &random);
  DeviceArray<float> device_x(x);
  DeviceArray<float> device_weight(weight);
  DeviceArray<float> device_expert_weights(expert_weights);
  DeviceArray<std::int32_t> row_index(c.row_index);
  const auto rows = asked ? static_cast<std::int32_t>(c.row_index.size()) : tokens;
  DeviceArray<std::int32_t> num_rows(std::vector{rows});
  ActivationArrays out(rows + kSpareTokens, n);

  MatmulParams params = product.Params();
  MatmulTail tail;
  tail.kind = TailKind::kNorm;
  NormParams& norm = tail.norm;
  norm.x = device_x.data();
  norm.x_stride = n;
  norm.weight = device_weight.data();
  norm.n = n;
  norm.eps = kEps;
  if (asked) norm.row_index = row_index.data();
  norm.num_rows = num_rows.data();
  norm.max_rows = rows + kSpareTokens;
  norm.out = out.rows();
  norm.chained = true;
  if (pairs) {
    norm.expert_rows = params.matrices[0].y;
    norm.expert_weights = device_expert_weights.data();
    norm.experts_per_token = c.product.ranks;
  } else {
    params.matrices[0].y = nullptr;
    params.matrices[0].add_to = device_x.data();
  }
  ASSERT_NO_FATAL_FAILURE(LaunchAs(launching, params, tail));

  const auto after = RowsAfter(c, x, expert_weights, &product);
  std::vector<float> expected_x;
  for (std::int32_t t = 0; t < tokens; ++t) {
    const auto& row = after[static_cast<std::size_t>(t)];
    expected_x.insert(expected_x.end(), row.begin(), row.end());
  }
  // The sum of experts is kept where nobody asks for single rows.
  ExpectSameBits(device_x.Read(), pairs && asked ? x : expected_x);
  for (std::int32_t r = 0; r < rows; ++r) {
    const std::int32_t from = asked ? c.row_index[static_cast<std::size_t>(r)] : r;
    out.ExpectRow(r, NormOnCpu(after[static_cast<std::size_t>(from)], weight));
  }
  for (std::int32_t r = rows; r < rows + kSpareTokens; ++r) out.ExpectUntouched(r);
}

void ExpectNormedBothWays(const NormCase& c, int multiprocessors, bool fuses = true) {
  ExpectNormed(c, {multiprocessors, true, fuses});
  ExpectNormed(c, {multiprocessors, false, fuses});
}

TEST(CudaTail, NormsWhatAProductAddsTo) {
  std::uint32_t seed = 100;
  for (const std::int32_t n : {4, 36, 96, 256, 2048}) {
    for (const std::int32_t tokens : {1, 2, 5, 8, 9, 14}) {
      if (n == 2048 && tokens % 3 != 2) continue;
      for (const int multiprocessors : {kFew, 132}) {
        ExpectNormedBothWays(
            {{.dtypes = {DType::kQ4_K}, .n = {n}, .k = 512, .tokens = tokens, .seed = ++seed}, {}},
            multiprocessors);
      }
    }
  }
}

// Four at a time.
TEST(CudaTail, NormsLongRowsInTwoRounds) {
  ExpectNormedBothWays({{.dtypes = {DType::kQ4_K}, .n = {4096}, .tokens = 7, .seed = 199}, {}},
                       132);
}

// Some have so much to share that a block has three warps.
TEST(CudaTail, NormsBehindEveryTypeOfWeight) {
  std::uint32_t seed = 200;
  for (const DType dtype : testing::QuantisedTypes()) {
    ExpectNormedBothWays(
        {{.dtypes = {dtype}, .n = {160}, .k = 256, .tokens = 4, .seed = ++seed}, {}}, 132);
  }
}

TEST(CudaTail, NormsTheSumOfATokensExperts) {
  std::uint32_t seed = 300;
  for (const std::int32_t ranks : {1, 2, 8, 9}) {
    for (const std::int32_t tokens : {1, 3}) {
      for (const int multiprocessors : {24, 132}) {
        ExpectNormedBothWays({{.dtypes = {DType::kQ4_K},
                               .n = {288},
                               .k = 256,
                               .tokens = tokens,
                               .ranks = ranks,
                               .rows_of_pairs = true,
                               .seed = ++seed},
                              {}},
                             multiprocessors);
      }
    }
  }
}

// The head's rows: some, in any order, one of them twice.
TEST(CudaTail, NormsTheRowsThatAreAskedFor) {
  std::uint32_t seed = 400;
  for (const std::int32_t ranks : {0, 4}) {
    for (const std::vector<std::int32_t>& rows :
         {std::vector<std::int32_t>{6}, std::vector<std::int32_t>{8, 0, 3, 3, 6}}) {
      ExpectNormedBothWays({{.dtypes = {DType::kQ6_K},
                             .n = {256},
                             .k = 256,
                             .tokens = 9,
                             .ranks = ranks,
                             .rows_of_pairs = true,
                             .seed = ++seed},
                            rows},
                           132);
    }
  }
}

TEST(CudaTail, TakesAKernelOfItsOwnWhereItDoesNotFit) {
  std::uint32_t seed = 500;
  // Many rows, float weights, rows that cannot be read in 16 bytes, long rows.
  for (const NormCase& c :
       {NormCase{{.dtypes = {DType::kQ4_K}, .n = {64}, .tokens = 17, .seed = ++seed}, {}},
        NormCase{{.dtypes = {DType::kBF16}, .n = {64}, .tokens = 2, .seed = ++seed}, {}},
        NormCase{{.dtypes = {DType::kQ4_K}, .n = {33}, .tokens = 2, .seed = ++seed}, {}},
        NormCase{{.dtypes = {DType::kQ4_K}, .n = {8192}, .tokens = 5, .seed = ++seed}, {}}}) {
    ExpectNormed(c, {132, true, false});
  }
}

// ---- Rotation and append ------------------------------------------------------------------------

void ExpectAppended(const testing::RopeCase& rope, ProductCase c, const Launching& launching) {
  SCOPED_TRACE("heads of " + std::to_string(rope.head_dim) + ", tokens " +
               std::to_string(rope.tokens) + ", seed " + std::to_string(c.seed) +
               (launching.fused ? ", fused" : ", apart"));
  c.n = {rope.heads * rope.head_dim, rope.kv_heads * rope.head_dim, rope.kv_heads * rope.head_dim};
  c.tokens = rope.tokens;
  Product product(c);
  std::mt19937_64 random(c.seed);
  testing::RopeInputs in = testing::MakeRopeInputs(rope, &random);
  in.q = product.Rows(0);
  in.k = product.Rows(1);
  in.v = product.Rows(2);
  testing::RopeOnDevice device(rope, in);
  MatmulTail tail;
  tail.kind = TailKind::kRopeAppend;
  tail.rope_append = device.Params();
  RopeAppendParams& params = tail.rope_append;
  params.q = product.y(0).data();
  params.q_stride = c.n[0];
  params.k = product.y(1).data();
  params.v = product.y(2).data();
  params.k_stride = params.v_stride = c.n[1];
  ASSERT_NO_FATAL_FAILURE(LaunchAs(launching, product.Params(), tail));
  device.Expect(product.y(0).Read(), c.n[0]);
}

void ExpectAppendedBothWays(const testing::RopeCase& rope, const ProductCase& c,
                            int multiprocessors, bool fuses = true) {
  ExpectAppended(rope, c, {multiprocessors, true, fuses});
  ExpectAppended(rope, c, {multiprocessors, false, fuses});
}

const std::vector<DType> kAllQ4K = {DType::kQ4_K, DType::kQ4_K, DType::kQ4_K};

TEST(CudaTail, RotatesAndAppendsToEveryTypeOfCache) {
  std::uint32_t seed = 600;
  for (const KvDType type : {KvDType::kF16, KvDType::kF32, KvDType::kQ8_0, KvDType::kFp8}) {
    for (const std::int32_t tokens : {1, 3, 8, 11}) {
      ExpectAppendedBothWays({.dtype = type,
                              .head_dim = 64,
                              .heads = 4,
                              .kv_heads = 2,
                              .rotary_dim = 64,
                              .tokens = tokens},
                             {.dtypes = kAllQ4K, .k = 512, .seed = ++seed}, 132);
    }
  }
}

// Heads that are no whole number of blocks' tiles, so that a group has several.
TEST(CudaTail, RotatesAndAppendsHeadsOfAnySize) {
  std::uint32_t seed = 700;
  for (const std::int32_t dim : {16, 48, 80, 128, 256}) {
    for (const int multiprocessors : {kFew, 24, 132}) {
      for (const std::int32_t tokens : {1, 9}) {
        ExpectAppendedBothWays({.dtype = KvDType::kF16,
                                .head_dim = dim,
                                .heads = 5,
                                .kv_heads = 3,
                                .rotary_dim = 16,
                                .block_size = 16,
                                .pairing = RopePairing::kInterleaved,
                                .norms = dim != 80,
                                .tokens = tokens},
                               {.dtypes = kAllQ4K, .k = 256, .seed = ++seed}, multiprocessors);
      }
    }
  }
}

// Two forms in one launch, forms in launches of their own, and one whose kernel has no tails.
TEST(CudaTail, RotatesAndAppendsBehindMixedTypes) {
  std::uint32_t seed = 800;
  const testing::RopeCase rope = {.dtype = KvDType::kF16,
                                  .head_dim = 64,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .rotary_dim = 64,
                                  .tokens = 2};
  for (const auto& [v, fuses] : std::vector<std::pair<DType, bool>>{
           {DType::kQ6_K, true}, {DType::kQ8_0, true}, {DType::kF16, false}}) {
    for (const DType k : {DType::kQ4_K, v}) {
      ExpectAppendedBothWays(rope, {.dtypes = {DType::kQ4_K, k, v}, .k = 256, .seed = ++seed}, 132,
                             fuses);
    }
  }
}

// ---- SwiGLU -------------------------------------------------------------------------------------

void ExpectActivated(const ProductCase& c, const Launching& launching) {
  SCOPED_TRACE("ffn " + std::to_string(c.n[0]) + ", rows " + std::to_string(c.rows()) + ", seed " +
               std::to_string(c.seed) + (launching.fused ? ", fused" : ", apart"));
  Product product(c);
  ActivationArrays out(c.rows() + 1, c.n[0]);
  MatmulTail tail;
  tail.kind = TailKind::kSwiglu;
  SwigluParams& params = tail.swiglu;
  params.gate = product.y(0).data();
  params.up = product.y(1).data();
  params.stride = c.n[0];
  params.num_tokens = product.count();
  params.max_tokens = c.tokens + kSpareTokens;
  params.rows_per_token = std::max(1, c.ranks);
  params.ffn = c.n[0];
  params.out = out.rows();
  params.chained = true;
  ASSERT_NO_FATAL_FAILURE(LaunchAs(launching, product.Params(), tail));
  for (std::int32_t r = 0; r < c.rows(); ++r) {
    const std::vector<float> gate = product.Row(0, r);
    const std::vector<float> up = product.Row(1, r);
    std::vector<float> row(gate.size());
    cpu::SelectMoe(cpu::Isa::kScalar).fns.swiglu(gate.data(), up.data(), c.n[0], row.data());
    out.ExpectRow(r, row);
  }
  out.ExpectUntouched(c.rows());
}

void ExpectActivatedBothWays(const ProductCase& c, int multiprocessors, bool fuses = true) {
  ExpectActivated(c, {multiprocessors, true, fuses});
  ExpectActivated(c, {multiprocessors, false, fuses});
}

TEST(CudaTail, ActivatesGateAndUpOfAnyWidth) {
  std::uint32_t seed = 900;
  for (const std::int32_t ffn : {4, 160, 256, 288, 768}) {
    for (const int multiprocessors : {24, 132}) {
      for (const std::int32_t tokens : {1, 8, 10}) {
        ExpectActivatedBothWays({.dtypes = {DType::kQ4_K, DType::kQ4_K},
                                 .n = {ffn, ffn},
                                 .k = 512,
                                 .tokens = tokens,
                                 .seed = ++seed},
                                multiprocessors);
      }
      ExpectActivatedBothWays({.dtypes = {DType::kQ4_K, DType::kQ4_K},
                               .n = {ffn, ffn},
                               .k = 512,
                               .tokens = 2,
                               .ranks = 4,
                               .seed = ++seed},
                              multiprocessors);
    }
  }
}

TEST(CudaTail, ActivatesMixedTypesWhereTheyShareALaunch) {
  const auto product = [](DType up) {
    return ProductCase{
        .dtypes = {DType::kQ4_K, up}, .n = {288, 288}, .tokens = 2, .ranks = 2, .seed = 1000};
  };
  ExpectActivatedBothWays(product(DType::kQ6_K), 132, true);
  ExpectActivatedBothWays(product(DType::kQ8_0), 132, false);
}

// ---- The plan -----------------------------------------------------------------------------------

constexpr std::int32_t kHidden[] = {2048};

TailProblem NormProblem(const MatmulShape& product, std::int32_t rows) {
  TailProblem problem;
  problem.kind = TailKind::kNorm;
  problem.product = product;
  problem.max_rows = rows;
  problem.blocks = kHidden[0] / 16;
  problem.n = kHidden;
  problem.unit = kHidden[0];
  problem.unit_bytes = NormRowFloats(kHidden[0]) * std::int64_t{sizeof(float)};
  problem.num_counters = kCounters;
  return problem;
}

MatmulShape Vector(int columns, int tiles, int splits) {
  return {.kernel = MatmulKernel::kVector, .columns = columns, .tiles = tiles, .splits = splits};
}

TEST(TailPlan, EightRowsOf2048AreNormedAtOnce) {
  const TailShape shape = PlanTail(NormProblem(Vector(8, 1, 8), 8));
  EXPECT_TRUE(shape.fused) << shape.why;
  EXPECT_EQ(shape.units_at_once, 8);
  EXPECT_EQ(shape.group_values, 2048);
  EXPECT_EQ(PlanTail(NormProblem(Vector(1, 1, 8), 1)).units_at_once, 1);
}

TEST(TailPlan, SaysWhyATailIsAKernelOfItsOwn) {
  const auto why = [](const TailProblem& problem) {
    const TailShape shape = PlanTail(problem);
    EXPECT_FALSE(shape.fused);
    return std::string(shape.why);
  };
  TailProblem problem = NormProblem(Vector(8, 1, 8), 8);
  problem.num_counters = 0;
  EXPECT_EQ(why(problem), "tails are off");
  problem = NormProblem(Vector(8, 1, 8), 8);
  problem.kind = TailKind::kNone;
  EXPECT_EQ(why(problem), "nothing follows");
  problem = NormProblem({.kernel = MatmulKernel::kTensor, .columns = 16, .tiles = 4}, 32);
  EXPECT_EQ(why(problem), "many rows: launches cost little");
  problem = NormProblem({.kernel = MatmulKernel::kFloat}, 1);
  EXPECT_EQ(why(problem), "the kernel of float weights has none");
  // Room for two rows of 8 192 at a time: four rounds.
  problem = NormProblem(Vector(8, 1, 8), 8);
  problem.unit_bytes = NormRowFloats(8192) * std::int64_t{sizeof(float)};
  EXPECT_EQ(why(problem), "long rows, or few warps: a block would norm them one after the other");
  problem = NormProblem(Vector(1, 1, 8), 1);
  problem.unit_bytes = NormRowFloats(32768) * std::int64_t{sizeof(float)};
  EXPECT_EQ(why(problem), "a row does not fit a block's memory");
  // Blocks of eight warps, four times as many as 132 multiprocessors run at once, and one more.
  problem = NormProblem(Vector(1, 8, 1), 64);
  problem.blocks = 4 * 2 * 132;
  EXPECT_TRUE(PlanTail(problem).fused);
  ++problem.blocks;
  EXPECT_EQ(why(problem), "many blocks: all would wait for their counters");
  problem = NormProblem(Vector(8, 1, 8), 16);
  problem.num_counters = 1;
  EXPECT_EQ(why(problem), "more groups than there are counters");
}

TEST(TailPlan, GroupsAreWholeBlocksAndWholeUnits) {
  for (const int tiles : {1, 2, 3, 4, 5, 7, 8}) {
    for (const std::int32_t unit : {16, 48, 80, 128, 256}) {
      TailProblem problem;
      problem.kind = TailKind::kRopeAppend;
      problem.product = Vector(8, tiles, 1);
      problem.max_rows = 16;
      const std::int32_t n[] = {32 * unit, 4 * unit, 4 * unit};
      problem.n = n;
      problem.unit = unit;
      problem.unit_bytes = unit * std::int64_t{sizeof(float)};
      problem.num_counters = kCounters;
      const TailShape shape = PlanTail(problem);
      ASSERT_TRUE(shape.fused) << shape.why;
      EXPECT_EQ(shape.group_values % (16 * tiles), 0);
      EXPECT_EQ(shape.group_values % unit, 0);
      EXPECT_LE(shape.shared_bytes, kBlockSharedBytes);
    }
  }
}

}  // namespace
}  // namespace millrace::cuda

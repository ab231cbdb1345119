#include "kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/dequantize.h"
#include "kernels/fp8.h"
#include "kernels/reference/attention.h"
#include "tests/kernels/float_test_support.h"
#include "tests/kernels/fp8_reference.h"

namespace millrace::cpu {
namespace {

using testing::CanRun;

// One sequence with its queries, keys and values: what attention is asked about.
struct Problem {
  std::int32_t head_dim;
  std::int32_t kv_heads;
  std::int32_t group;
  std::int32_t context;
  std::vector<float> q;       // [context][kv_heads * group][head_dim]
  std::vector<float> keys;    // [context][kv_heads][head_dim]
  std::vector<float> values;  // as keys

  std::int32_t heads() const { return kv_heads * group; }
  const float* Query(std::int32_t position, std::int32_t head) const {
    return q.data() + (static_cast<std::ptrdiff_t>(position) * heads() + head) * head_dim;
  }
  std::size_t KvRow(std::int32_t position, std::int32_t head) const {
    return static_cast<std::size_t>((position * kv_heads + head) * head_dim);
  }
};

Problem MakeProblem(std::int32_t head_dim, std::int32_t kv_heads, std::int32_t group,
                    std::int32_t context, std::mt19937_64* random) {
  Problem p = {head_dim, kv_heads, group, context, {}, {}, {}};
  const auto rows = static_cast<std::size_t>(context) * static_cast<std::size_t>(head_dim);
  p.q = testing::RandomFloats(rows * static_cast<std::size_t>(p.heads()), random);
  p.keys = testing::RandomFloats(rows * static_cast<std::size_t>(kv_heads), random);
  p.values = testing::RandomFloats(rows * static_cast<std::size_t>(kv_heads), random);
  return p;
}

// A paged cache that holds the problem's keys and values in blocks of random order; all that is
// not theirs is NaN.
class Cache {
 public:
  Cache(const Problem& problem, std::int32_t block_size, KvDType dtype,
        const AttentionVariant& variant, std::mt19937_64* random) {
    const std::int32_t used = (problem.context + block_size - 1) / block_size;
    const std::int32_t blocks = used + 3;
    view_.layout = {.num_layers = 1,
                    .num_kv_heads = problem.kv_heads,
                    .head_dim = problem.head_dim,
                    .block_size = block_size,
                    .dtype = dtype};
    // All ones is a NaN in every type.
    bytes_.assign(static_cast<std::size_t>(blocks * view_.layout.layer_block_bytes()),
                  std::byte{0xFF});
    view_.data = bytes_.data();
    std::vector<std::int32_t> all(static_cast<std::size_t>(blocks));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), *random);
    table_.assign(all.begin(), all.begin() + used);
    for (std::int32_t p = 0; p < problem.context; ++p) {
      for (std::int32_t head = 0; head < problem.kv_heads; ++head) {
        variant.append(view_, table_[static_cast<std::size_t>(p / block_size)], head,
                       p % block_size, problem.keys.data() + problem.KvRow(p, head),
                       problem.values.data() + problem.KvRow(p, head));
      }
    }
  }
  const KvLayerView& view() const { return view_; }
  const std::int32_t* table() const { return table_.data(); }

 private:
  std::vector<std::byte> bytes_;
  KvLayerView view_;
  std::vector<std::int32_t> table_;
};

// The same as Attend by AttentionWholeFn.
std::vector<float> AttendWhole(const Problem& problem, const Cache& cache,
                               const AttentionVariant& variant, std::int32_t first,
                               std::int32_t count) {
  const auto row = static_cast<std::size_t>(problem.heads() * problem.head_dim);
  std::vector<float> out(static_cast<std::size_t>(problem.context) * row, testing::kNan);
  std::vector<std::int32_t> positions(static_cast<std::size_t>(problem.context));
  std::iota(positions.begin(), positions.end(), 0);
  for (std::int32_t head = 0; head < problem.kv_heads; ++head) {
    AttentionPartialParams params;
    params.kv = cache.view();
    params.kv_head = head;
    params.group = problem.group;
    params.block_table = cache.table();
    params.positions = positions.data();
    params.queries = positions.data() + first;
    params.num_queries = count;
    params.q = problem.Query(0, head * problem.group);
    params.q_stride = std::int64_t{problem.heads()} * problem.head_dim;
    params.scale = 1.0F / std::sqrt(static_cast<float>(problem.head_dim));
    params.next_keys = cache.view().keys(cache.table()[0], head);
    variant.whole(params, out.data() + std::int64_t{head} * problem.group * problem.head_dim);
  }
  const auto begin =
      out.begin() + static_cast<std::ptrdiff_t>(first) * static_cast<std::ptrdiff_t>(row);
  return {begin, begin + static_cast<std::ptrdiff_t>(count) * static_cast<std::ptrdiff_t>(row)};
}

// Queries first .. first + count - 1 of all heads: [count][heads][head_dim].
std::vector<float> Attend(const Problem& problem, const Cache& cache,
                          const AttentionVariant& variant, std::int32_t first, std::int32_t count) {
  const std::int32_t partitions = (first + count + kKvPartition - 1) / kKvPartition;
  const std::int64_t entry = problem.head_dim + 2;
  const std::int64_t partition_stride = std::int64_t{count} * problem.group * entry;
  std::vector<float> partials(static_cast<std::size_t>(partitions * partition_stride),
                              testing::kNan);
  std::vector<float> out(static_cast<std::size_t>(count * problem.heads() * problem.head_dim));
  std::vector<std::int32_t> positions(static_cast<std::size_t>(problem.context));
  std::iota(positions.begin(), positions.end(), 0);
  for (std::int32_t head = 0; head < problem.kv_heads; ++head) {
    for (std::int32_t partition = 0; partition < partitions; ++partition) {
      AttentionPartialParams params;
      params.kv = cache.view();
      params.kv_head = head;
      params.group = problem.group;
      params.block_table = cache.table();
      params.partition = partition;
      params.positions = positions.data();  // a token for each position
      params.queries = positions.data() + first;
      params.num_queries = count;
      params.q = problem.Query(0, head * problem.group);
      params.q_stride = std::int64_t{problem.heads()} * problem.head_dim;
      params.scale = 1.0F / std::sqrt(static_cast<float>(problem.head_dim));
      params.partials = partials.data() + partition * partition_stride;
      params.first_token = first;
      params.partial_query_stride = problem.group * entry;
      variant.partial(params);
    }
    for (std::int32_t i = 0; i < count; ++i) {
      for (std::int32_t g = 0; g < problem.group; ++g) {
        variant.merge(partials.data() + (std::int64_t{i} * problem.group + g) * entry,
                      partition_stride, partitions, problem.head_dim,
                      out.data() + (std::int64_t{i} * problem.heads() + head * problem.group + g) *
                                       problem.head_dim);
      }
    }
  }
  return out;
}

// What the cache makes of a row.
std::vector<float> Rounded(std::span<const float> row, KvDType dtype) {
  std::vector<float> out(row.begin(), row.end());
  if (dtype == KvDType::kF16) {
    for (float& x : out) x = static_cast<float>(static_cast<_Float16>(x));
  }
  if (dtype == KvDType::kFp8) {
    for (float& x : out) {
      const double magnitude = testing::Fp8Magnitude(testing::NearestFp8Code(x));
      x = std::copysign(static_cast<float>(magnitude), x);
    }
  }
  for (std::size_t at = 0; dtype == KvDType::kQ8_0 && at < out.size(); at += 32) {
    float largest = 0.0F;
    for (std::size_t i = at; i < at + 32; ++i) largest = std::max(largest, std::abs(out[i]));
    const auto d = static_cast<float>(static_cast<_Float16>(largest / 127.0F));
    const float inverse = d == 0.0F ? 0.0F : 1.0F / d;
    for (std::size_t i = at; i < at + 32; ++i) {
      out[i] = std::clamp(std::nearbyint(out[i] * inverse), -127.0F, 127.0F) * d;
    }
  }
  return out;
}

std::span<const float> RowOf(const Problem& problem, const std::vector<float>& rows,
                             std::int32_t position, std::int32_t head) {
  return std::span(rows).subspan(problem.KvRow(position, head),
                                 static_cast<std::size_t>(problem.head_dim));
}

// Keys or values of one head for the first `context` positions, as the cache rounds them.
std::vector<float> HeadRows(const Problem& problem, const std::vector<float>& rows,
                            std::int32_t head, std::int32_t context, KvDType dtype) {
  std::vector<float> out;
  for (std::int32_t p = 0; p < context; ++p) {
    const std::vector<float> row = Rounded(RowOf(problem, rows, p, head), dtype);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

// The value at element `i` of a row of the cache.
float Stored(const std::byte* row, std::int32_t i, KvDType dtype) {
  const auto at = static_cast<std::size_t>(i);
  switch (dtype) {
    case KvDType::kF32:
      return reinterpret_cast<const float*>(row)[at];
    case KvDType::kF16:
      return HalfToFloat(reinterpret_cast<const HalfBits*>(row)[at]);
    case KvDType::kQ8_0: {
      const BlockQ8_0& block = reinterpret_cast<const BlockQ8_0*>(row)[at / 32];
      return HalfToFloat(block.d) * static_cast<float>(block.q[at % 32]);
    }
    case KvDType::kFp8:
      return Fp8ToFloat(reinterpret_cast<const Fp8*>(row)[at]);
  }
  return 0.0F;
}

void ExpectNearTheTruth(const Problem& problem, KvDType dtype, std::int32_t position,
                        std::span<const float> out) {
  const double scale = 1.0F / std::sqrt(static_cast<float>(problem.head_dim));
  for (std::int32_t head = 0; head < problem.heads(); ++head) {
    const std::int32_t kv_head = head / problem.group;
    const auto truth = reference::Attention(
        {problem.Query(position, head), static_cast<std::size_t>(problem.head_dim)},
        HeadRows(problem, problem.keys, kv_head, position + 1, dtype),
        HeadRows(problem, problem.values, kv_head, position + 1, dtype), scale);
    const double factor =
        reference::AttentionErrorFactor(problem.head_dim, position + 1, truth.max_score);
    for (std::size_t i = 0; i < truth.out.size(); ++i) {
      ASSERT_NEAR(out[static_cast<std::size_t>(head * problem.head_dim) + i], truth.out[i],
                  factor * truth.magnitude[i])
          << "position " << position << " head " << head << " element " << i;
    }
  }
}

class AttentionOfType : public ::testing::TestWithParam<KvDType> {};

TEST_P(AttentionOfType, GivesTheSameBitsOnEveryLevelAndStaysNearTheTruth) {
  std::mt19937_64 random(1);
  struct Shape {
    std::int32_t head_dim, kv_heads, group, context;
  };
  constexpr Shape kShapes[] = {{64, 2, 4, 1},    {64, 1, 1, 17},  {128, 2, 8, 255},
                               {128, 1, 8, 256}, {80, 2, 3, 257}, {96, 1, 2, 1100},
                               {32, 3, 1, 513},  {256, 1, 2, 40}, {24, 2, 3, 70}};
  for (const Shape& s : kShapes) {
    if (s.head_dim % KvHeadDimMultiple(GetParam()) != 0) continue;
    SCOPED_TRACE("head_dim " + std::to_string(s.head_dim) + " context " +
                 std::to_string(s.context));
    const Problem problem = MakeProblem(s.head_dim, s.kv_heads, s.group, s.context, &random);
    const std::int32_t count = std::min(5, s.context);
    const std::int32_t first = s.context - count;
    const AttentionVariant& scalar = SelectAttention(GetParam(), Isa::kScalar);
    const Cache cache(problem, 32, GetParam(), scalar, &random);
    const std::vector<float> expected = Attend(problem, cache, scalar, first, count);
    const auto row = static_cast<std::size_t>(problem.heads() * problem.head_dim);
    for (const std::int32_t i : {0, count - 1}) {
      ExpectNearTheTruth(problem, GetParam(), first + i,
                         std::span(expected).subspan(static_cast<std::size_t>(i) * row, row));
    }
    for (const AttentionVariant& variant : AttentionVariants()) {
      if (variant.dtype != GetParam() || !CanRun(variant.isa)) continue;
      SCOPED_TRACE(variant.name);
      const Cache own(problem, 32, GetParam(), variant, &random);
      testing::ExpectSameBits(Attend(problem, own, variant, first, count), expected);
      testing::ExpectSameBits(AttendWhole(problem, own, variant, first, count), expected);
    }
  }
}

// FALSIFY-PKV-002: paged attention equals contiguous attention, whatever the blocks.
TEST_P(AttentionOfType, DoesNotDependOnBlocksTheirOrderOrTheChunk) {
  std::mt19937_64 random(2);
  const Problem problem = MakeProblem(64, 2, 4, 530, &random);
  for (const AttentionVariant& variant : AttentionVariants()) {
    if (variant.dtype != GetParam() || !CanRun(variant.isa)) continue;
    SCOPED_TRACE(variant.name);
    // One block of the partition's size holds its positions one after the other.
    const Cache contiguous(problem, kKvPartition, GetParam(), variant, &random);
    const std::int32_t first = 240;  // queries on both sides of two borders of partitions
    const std::int32_t count = problem.context - first;
    const std::vector<float> expected = Attend(problem, contiguous, variant, first, count);
    const auto row = static_cast<std::size_t>(problem.heads() * problem.head_dim);
    for (const std::int32_t block_size : {16, 32, 64}) {
      const Cache cache(problem, block_size, GetParam(), variant, &random);
      testing::ExpectSameBits(Attend(problem, cache, variant, first, count), expected);
      testing::ExpectSameBits(AttendWhole(problem, cache, variant, first, count), expected);
      for (const std::int32_t at : {240, 255, 256, 257, 511, 512, 529}) {
        const auto offset = static_cast<std::size_t>(at - first) * row;
        // One query and two, of which the first may see less of a partition or nothing.
        for (const std::int32_t queries : {1, 2}) {
          if (at + queries > problem.context) continue;
          testing::ExpectSameBits(
              Attend(problem, cache, variant, at, queries),
              std::span(expected).subspan(offset, static_cast<std::size_t>(queries) * row));
        }
      }
    }
  }
}

// Tokens of several sequences that see the whole partition, in any places of the step.
TEST_P(AttentionOfType, TakesQueriesFromAnywhereInTheStep) {
  std::mt19937_64 random(5);
  const Problem problem = MakeProblem(64, 1, 4, 256, &random);
  constexpr std::int32_t kTokens = 9;
  const std::vector<std::int32_t> queries = {7, 2, 5, 3};
  // The queries' vectors lie in the first positions of the problem; all see its last position.
  const std::vector<std::int32_t> positions(kTokens, 255);
  const std::int64_t entry = problem.head_dim + 2;
  for (const AttentionVariant& variant : AttentionVariants()) {
    if (variant.dtype != GetParam() || !CanRun(variant.isa)) continue;
    SCOPED_TRACE(variant.name);
    const Cache cache(problem, 32, GetParam(), variant, &random);
    const auto attend = [&](std::span<const std::int32_t> tokens, float* partials) {
      AttentionPartialParams params;
      params.kv = cache.view();
      params.group = problem.group;
      params.block_table = cache.table();
      params.queries = tokens.data();
      params.num_queries = static_cast<std::int32_t>(tokens.size());
      params.positions = positions.data();
      params.q = problem.Query(0, 0);
      params.q_stride = std::int64_t{problem.heads()} * problem.head_dim;
      params.scale = 0.125F;
      params.partials = partials;
      params.first_token = 1;
      params.partial_query_stride = problem.group * entry;
      variant.partial(params);
    };
    const auto size = static_cast<std::size_t>((kTokens - 1) * problem.group * entry);
    std::vector<float> together(size, testing::kNan);
    std::vector<float> alone(size, testing::kNan);
    attend(queries, together.data());
    for (const std::int32_t& token : queries) attend({&token, 1}, alone.data());
    testing::ExpectSameBits(together, alone);
  }
}

TEST_P(AttentionOfType, KeepsScoresOfAnySizeFinite) {
  std::mt19937_64 random(3);
  Problem problem = MakeProblem(64, 1, 2, 300, &random);
  for (float& value : problem.q) value *= 1e4F;
  for (const AttentionVariant& variant : AttentionVariants()) {
    if (variant.dtype != GetParam() || !CanRun(variant.isa)) continue;
    const Cache cache(problem, 32, GetParam(), variant, &random);
    for (const float value : Attend(problem, cache, variant, 299, 1)) {
      EXPECT_TRUE(std::isfinite(value));
    }
  }
}

// A request with a fault in its cache must end, not go on with other numbers.
TEST_P(AttentionOfType, LetsNoFaultOfTheCacheGoUnseen) {
  std::mt19937_64 random(6);
  const Problem sound = MakeProblem(64, 1, 2, 40, &random);
  for (const float fault : {testing::kNan, testing::kInfinity, -testing::kInfinity}) {
    for (std::vector<float> Problem::*const rows : {&Problem::keys, &Problem::values}) {
      Problem problem = sound;
      (problem.*rows)[problem.KvRow(17, 0) + 5] = fault;
      // A key of minus infinity, times a query, may be the lowest score and count for nothing.
      if (rows == &Problem::keys) {
        for (float& x : problem.q) x = std::copysign(x, fault);
      }
      for (const AttentionVariant& variant : AttentionVariants()) {
        if (variant.dtype != GetParam() || !CanRun(variant.isa)) continue;
        SCOPED_TRACE(variant.name);
        const Cache cache(problem, 16, GetParam(), variant, &random);
        const std::vector<float> out = Attend(problem, cache, variant, 39, 1);
        EXPECT_FALSE(std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }));
      }
    }
  }
}

// Not in the macro: a comma inside braces parts its arguments.
std::string TypeName(const ::testing::TestParamInfo<KvDType>& info) {
  constexpr const char* kNames[] = {"F16", "F32", "Q8_0", "Fp8"};
  return kNames[static_cast<std::size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Types, AttentionOfType,
                         ::testing::Values(KvDType::kF16, KvDType::kF32, KvDType::kQ8_0,
                                           KvDType::kFp8),
                         TypeName);

// The only position has weight 1, so its value comes out as it is read, from the middle of rows and
// from their ends.
TEST(AttentionOfFp8, ReadsEveryCodeOnEveryLevel) {
  for (const AttentionVariant& variant : AttentionVariants()) {
    if (variant.dtype != KvDType::kFp8 || !CanRun(variant.isa)) continue;
    SCOPED_TRACE(variant.name);
    for (const std::int32_t head_dim : {256, 250, 129, 7, 1}) {
      for (std::int32_t first = 0; first < 256; first += head_dim) {
        const auto n = static_cast<std::size_t>(head_dim);
        std::vector<std::byte> bytes(2 * 16 * n);  // keys are 0
        const KvLayerView kv = {bytes.data(), {1, 1, head_dim, 16, KvDType::kFp8}};
        for (std::int32_t i = 0; i < head_dim; ++i) {
          kv.values(0, 0)[i] = static_cast<std::byte>((first + i) % 256);
        }
        const std::vector<float> q(n, 1.0F);
        const std::int32_t zero = 0;
        std::vector<float> entry(n + 2);
        AttentionPartialParams params;
        params.kv = kv;
        params.group = 1;
        params.block_table = params.queries = params.positions = &zero;
        params.num_queries = 1;
        params.q = q.data();
        params.q_stride = head_dim;
        params.scale = 1.0F;
        params.partials = entry.data();
        params.partial_query_stride = head_dim + 2;
        variant.partial(params);
        for (std::int32_t i = 0; i < head_dim; ++i) {
          const int code = (first + i) % 256;
          const float value = entry[static_cast<std::size_t>(i)];
          if (code % 128 == 127) {
            ASSERT_TRUE(std::isnan(value)) << code;
          } else {
            const double magnitude = testing::Fp8Magnitude(code % 128);
            ASSERT_EQ(value, code < 128 ? magnitude : -magnitude) << code;
          }
        }
      }
    }
  }
}

TEST(KvAppend, RoundsToTheTypeOfTheCacheAndTouchesNothingElse) {
  std::mt19937_64 random(4);
  Problem problem = MakeProblem(64, 2, 1, 3, &random);
  problem.keys[0] = 65519.0F;    // the largest that rounds to a finite half
  problem.keys[1] = 1e-8F;       // below the smallest subnormal half: 0
  problem.keys[2] = 0x1.001p0F;  // half way: to even
  for (const AttentionVariant& variant : AttentionVariants()) {
    if (!CanRun(variant.isa)) continue;
    SCOPED_TRACE(variant.name);
    const Cache cache(problem, 16, variant.dtype, variant, &random);
    const KvLayerView& view = cache.view();
    for (std::int32_t slot = 0; slot < 16; ++slot) {
      const std::byte* row = view.keys(cache.table()[0], 0) + slot * view.layout.row_bytes();
      const std::vector<float> expected =
          slot < 3 ? Rounded(RowOf(problem, problem.keys, slot, 0), variant.dtype)
                   : std::vector<float>(64, testing::kNan);
      for (std::int32_t i = 0; i < 64; ++i) {
        const float value = Stored(row, i, variant.dtype);
        if (slot >= 3) {
          ASSERT_TRUE(std::isnan(value));
        } else {
          ASSERT_EQ(value, expected[static_cast<std::size_t>(i)]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace millrace::cpu

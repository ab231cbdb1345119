// Attention on the (emulated) GPU against the CPU's scalar level, bit for bit: partials, and their
// merge in every format.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/attention.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/expect_rows.h"
#include "tests/kernels/float_test_support.h"
#include "tests/kernels/fp8_reference.h"

namespace millrace::cuda {
namespace {

using testing::ActivationArrays;
using testing::DeviceArray;
using testing::ExpectSameBits;
using testing::kInfinity;
using testing::kNan;
using testing::RandomFloats;

struct Shape {
  KvDType dtype = KvDType::kF16;
  std::int32_t head_dim = 128;
  std::int32_t kv_heads = 1;
  std::int32_t group = 8;
  std::int32_t block_size = 32;

  std::int32_t heads() const { return kv_heads * group; }
  std::int32_t entry() const { return head_dim + 2; }
  KvLayout layout() const { return {1, kv_heads, head_dim, block_size, dtype}; }
};

struct Sequence {
  std::int32_t context;
  std::int32_t queries;  // the last of its positions are tokens of the step
};

// A step: a cache that holds the sequences' keys and values in blocks of random order, whatever is
// not theirs NaN, and the vectors of the queries.
struct Step {
  Shape shape;
  std::vector<std::byte> cache;
  std::vector<std::int32_t> block_table, block_table_start;
  std::vector<std::int32_t> positions, sequence_of;  // [tokens]
  std::vector<float> q;                              // [tokens][heads][head_dim]

  std::int32_t tokens() const { return static_cast<std::int32_t>(positions.size()); }
  // To be read only: a view is not of constants.
  KvLayerView view() const { return {const_cast<std::byte*>(cache.data()), shape.layout()}; }
  const std::int32_t* table(std::int32_t sequence) const {
    return block_table.data() + block_table_start[static_cast<std::size_t>(sequence)];
  }
};

// Draws keys and values with `spread`; `spoil` may change them before they are stored.
template <typename Spoil>
Step MakeStep(const Shape& shape, const std::vector<Sequence>& sequences, std::mt19937_64* random,
              const Spoil& spoil) {
  Step step;
  step.shape = shape;
  step.block_table_start = {0};
  for (const Sequence& s : sequences) {
    const std::int32_t blocks = (s.context + shape.block_size - 1) / shape.block_size;
    step.block_table_start.push_back(step.block_table_start.back() + blocks);
  }
  const std::int32_t used = step.block_table_start.back();
  std::vector<std::int32_t> all(static_cast<std::size_t>(used + 2));
  std::iota(all.begin(), all.end(), 0);
  std::shuffle(all.begin(), all.end(), *random);
  step.block_table.assign(all.begin(), all.begin() + used);
  step.cache.assign(static_cast<std::size_t>((used + 2) * shape.layout().layer_block_bytes()),
                    std::byte{0xFF});
  const KvLayerView view = {step.cache.data(), shape.layout()};
  for (std::int32_t s = 0; s < static_cast<std::int32_t>(sequences.size()); ++s) {
    const Sequence& sequence = sequences[static_cast<std::size_t>(s)];
    for (std::int32_t p = 0; p < sequence.context; ++p) {
      for (std::int32_t head = 0; head < shape.kv_heads; ++head) {
        auto key = RandomFloats(static_cast<std::size_t>(shape.head_dim), random);
        auto value = RandomFloats(static_cast<std::size_t>(shape.head_dim), random);
        spoil(s, p, head, &key, &value);
        cpu::SelectAttention(shape.dtype, cpu::Isa::kScalar)
            .append(view, step.table(s)[p / shape.block_size], head, p % shape.block_size,
                    key.data(), value.data());
      }
    }
    for (std::int32_t i = sequence.context - sequence.queries; i < sequence.context; ++i) {
      step.positions.push_back(i);
      step.sequence_of.push_back(s);
    }
  }
  step.q = RandomFloats(static_cast<std::size_t>(step.tokens() * shape.heads() * shape.head_dim),
                        random);
  return step;
}
Step MakeStep(const Shape& shape, const std::vector<Sequence>& sequences, std::mt19937_64* random) {
  return MakeStep(shape, sequences, random, [](auto...) {});
}

// How the work is cut: units, and the tokens that their queries are.
struct Plan {
  std::vector<AttentionUnit> units;
  std::vector<std::int32_t> queries;
  std::int32_t max_queries = 1;

  void Add(std::int32_t partition, std::int32_t sequence, const std::vector<std::int32_t>& tokens) {
    const auto count = static_cast<std::int32_t>(tokens.size());
    units.push_back({partition, sequence, static_cast<std::int32_t>(queries.size()), count});
    queries.insert(queries.end(), tokens.begin(), tokens.end());
    max_queries = std::max(max_queries, count);
  }
};

std::int32_t Partitions(std::int32_t position) { return position / kKvPartition + 1; }

// Units of up to `most` queries of one sequence, in random order.
Plan MakePlan(const Step& step, std::int32_t most, std::mt19937_64* random) {
  Plan plan;
  for (std::int32_t t = 0; t < step.tokens();) {
    const auto at = static_cast<std::size_t>(t);
    std::vector<std::int32_t> tokens;
    while (t < step.tokens() && static_cast<std::int32_t>(tokens.size()) < most &&
           step.sequence_of[static_cast<std::size_t>(t)] == step.sequence_of[at]) {
      tokens.push_back(t++);
    }
    const std::int32_t last = step.positions[static_cast<std::size_t>(tokens.back())];
    for (std::int32_t p = 0; p < Partitions(last); ++p) plan.Add(p, step.sequence_of[at], tokens);
  }
  std::shuffle(plan.units.begin(), plan.units.end(), *random);
  return plan;
}

// Where a token's entries begin: as many as the queries of its units need.
std::vector<std::int32_t> PartialStarts(const Step& step, const Plan& plan) {
  std::vector<std::int32_t> partitions(static_cast<std::size_t>(step.tokens()));
  for (const AttentionUnit& unit : plan.units) {
    for (std::int32_t i = unit.begin; i < unit.begin + unit.count; ++i) {
      auto& of_token =
          partitions[static_cast<std::size_t>(plan.queries[static_cast<std::size_t>(i)])];
      of_token = std::max(of_token, unit.partition + 1);
    }
  }
  std::vector<std::int32_t> starts = {0};
  for (const std::int32_t count : partitions) starts.push_back(starts.back() + count);
  return starts;
}

float ScaleOf(const Shape& shape) { return 1.0F / std::sqrt(static_cast<float>(shape.head_dim)); }

// The entries of one token and partition on the CPU: [heads][head_dim + 2].
std::vector<float> PartialOnCpu(const Step& step, std::int32_t token, std::int32_t partition,
                                std::int32_t sequence) {
  const Shape& shape = step.shape;
  std::vector<float> out(static_cast<std::size_t>(shape.heads() * shape.entry()), kNan);
  for (std::int32_t head = 0; head < shape.kv_heads; ++head) {
    cpu::AttentionPartialParams params;
    params.kv = step.view();
    params.kv_head = head;
    params.group = shape.group;
    params.block_table = step.table(sequence);
    params.partition = partition;
    params.queries = &token;
    params.num_queries = 1;
    params.positions = step.positions.data();
    params.q = step.q.data() + head * shape.group * shape.head_dim;
    params.q_stride = std::int64_t{shape.heads()} * shape.head_dim;
    params.scale = ScaleOf(shape);
    params.partials = out.data() + head * shape.group * shape.entry();
    params.first_token = token;
    params.partial_query_stride = std::int64_t{shape.heads()} * shape.entry();
    cpu::SelectAttention(shape.dtype, cpu::Isa::kScalar).partial(params);
  }
  return out;
}

// The merge of a token's partials, `entries(partition)` of each.
template <typename Entries>
std::vector<float> MergeOnCpu(const Step& step, std::int32_t token, const Entries& entries) {
  const Shape& shape = step.shape;
  const std::int32_t seen = Partitions(step.positions[static_cast<std::size_t>(token)]);
  std::vector<float> partials;
  for (std::int32_t p = 0; p < seen; ++p) {
    const std::vector<float> of_partition = entries(p);
    partials.insert(partials.end(), of_partition.begin(), of_partition.end());
  }
  std::vector<float> out(static_cast<std::size_t>(shape.heads() * shape.head_dim));
  for (std::int32_t head = 0; head < shape.heads(); ++head) {
    cpu::SelectAttention(shape.dtype, cpu::Isa::kScalar)
        .merge(partials.data() + head * shape.entry(), std::int64_t{shape.heads()} * shape.entry(),
               seen, shape.head_dim, out.data() + head * shape.head_dim);
  }
  return out;
}

// Runs a step on the device, and keeps what it gave.
class Device {
 public:
  Device(const Step& step, const Plan& plan)
      : step_(step),
        starts_(PartialStarts(step, plan)),
        cache_(step.cache),
        block_table_(step.block_table),
        block_table_start_(step.block_table_start),
        positions_(step.positions),
        q_(step.q),
        units_(plan.units),
        queries_(plan.queries),
        num_units_(std::vector<std::int32_t>{static_cast<std::int32_t>(plan.units.size())}),
        partial_start_(starts_),
        partials_(
            static_cast<std::size_t>(starts_.back() * step.shape.heads() * step.shape.entry())) {
    partials_.Poison();
    params_.kv = {cache_.data(), step.shape.layout()};
    params_.num_heads = step.shape.heads();
    params_.units = units_.data();
    params_.num_units = num_units_.data();
    params_.max_units = static_cast<std::int32_t>(plan.units.size()) + 2;
    params_.max_queries = plan.max_queries;
    params_.queries = queries_.data();
    params_.positions = positions_.data();
    params_.block_table = block_table_.data();
    params_.block_table_start = block_table_start_.data();
    params_.q = q_.data();
    params_.q_stride = std::int64_t{step.shape.heads()} * step.shape.head_dim;
    params_.scale = ScaleOf(step.shape);
    params_.partials = partials_.data();
    params_.partial_start = partial_start_.data();
    params_.chained = true;
  }

  void Attend(AttentionTile tile) {
    params_.tile = tile;
    ASSERT_EQ(LaunchAttention(params_, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(cudaGetLastError(), cudaSuccess);
  }

  // Partials and merge in one kernel, and what it gives for every token; its counters are left as
  // they were.
  void AttendAndCompare(AttentionTile tile, const std::vector<std::vector<float>>& merged) {
    SCOPED_TRACE(Info(tile).reason);
    const Shape& shape = step_.shape;
    const std::vector<std::int32_t> zeros(static_cast<std::size_t>(
        AttentionTailCounters(step_.tokens(), shape.heads(), shape.head_dim)));
    ActivationArrays out(step_.tokens(), shape.heads() * shape.head_dim);
    DeviceArray<std::int32_t> counters(zeros);
    params_.tail = {.counters = counters.data(), .out = out.rows()};
    Attend(tile);
    params_.tail = {};
    for (std::int32_t t = 0; t < step_.tokens(); ++t) {
      out.ExpectRow(t, merged[static_cast<std::size_t>(t)]);
    }
    EXPECT_EQ(counters.Read(), zeros);
  }

  // [heads][head_dim + 2]
  std::vector<float> Entries(std::int32_t token, std::int32_t partition) {
    const auto size = static_cast<std::size_t>(step_.shape.heads() * step_.shape.entry());
    if (read_.empty()) read_ = partials_.Read();
    const auto at = static_cast<std::size_t>(starts_[static_cast<std::size_t>(token)] + partition);
    return {read_.begin() + static_cast<std::ptrdiff_t>(at * size),
            read_.begin() + static_cast<std::ptrdiff_t>((at + 1) * size)};
  }
  void Poison() {
    partials_.Poison();
    read_.clear();
  }

  // Merges tokens [first, end) and compares them, and that others are left alone.
  void MergeAndCompare(std::int32_t first, std::int32_t end) {
    const Shape& shape = step_.shape;
    const std::int32_t width = shape.heads() * shape.head_dim;
    ActivationArrays out(step_.tokens(), width);
    DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{end});
    AttentionMergeParams params;
    params.partials = partials_.data();
    params.partial_start = partial_start_.data();
    params.positions = positions_.data();
    params.first_token = first;
    params.num_tokens = num_tokens.data();
    params.max_tokens = end - first + 3;
    params.num_heads = shape.heads();
    params.head_dim = shape.head_dim;
    params.out = out.rows();
    params.chained = true;
    ASSERT_EQ(LaunchAttentionMerge(params, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(cudaGetLastError(), cudaSuccess);
    for (std::int32_t t = 0; t < step_.tokens(); ++t) {
      if (t < first || t >= end) {
        out.ExpectUntouched(t);
      } else {
        out.ExpectRow(t, MergedOnCpu(t));
      }
    }
  }

 private:
  std::vector<float> MergedOnCpu(std::int32_t token) {
    return MergeOnCpu(step_, token, [&](std::int32_t p) { return Entries(token, p); });
  }

  const Step& step_;
  const std::vector<std::int32_t> starts_;
  DeviceArray<std::byte> cache_;
  DeviceArray<std::int32_t> block_table_, block_table_start_, positions_;
  DeviceArray<float> q_;
  DeviceArray<AttentionUnit> units_;
  DeviceArray<std::int32_t> queries_, num_units_, partial_start_;
  DeviceArray<float> partials_;
  AttentionParams params_;
  std::vector<float> read_;
};

// The step's partials and their merge are the CPU's, whatever the tile.
void ExpectAsOnCpu(const Step& step, const Plan& plan, const std::vector<AttentionTile>& tiles) {
  const Shape& shape = step.shape;
  SCOPED_TRACE("head_dim " + std::to_string(shape.head_dim) + ", group " +
               std::to_string(shape.group) + ", block_size " + std::to_string(shape.block_size));
  Device device(step, plan);
  for (const AttentionTile tile : tiles) {
    SCOPED_TRACE(Info(tile).reason);
    device.Poison();
    device.Attend(tile);
    for (const AttentionUnit& unit : plan.units) {
      for (std::int32_t i = unit.begin; i < unit.begin + unit.count; ++i) {
        const std::int32_t token = plan.queries[static_cast<std::size_t>(i)];
        SCOPED_TRACE("token " + std::to_string(token) + " partition " +
                     std::to_string(unit.partition));
        ExpectSameBits(device.Entries(token, unit.partition),
                       PartialOnCpu(step, token, unit.partition, unit.sequence));
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
  device.MergeAndCompare(0, step.tokens());
}

// Attention in one kernel is the CPU's, whatever the tile; twice, since a kernel leaves its
// counters as it found them.
void ExpectMergedAsOnCpu(const Step& step, const Plan& plan,
                         const std::vector<AttentionTile>& tiles) {
  const Shape& shape = step.shape;
  SCOPED_TRACE("head_dim " + std::to_string(shape.head_dim) + ", heads " +
               std::to_string(shape.heads()) + ", group " + std::to_string(shape.group));
  std::vector<std::vector<float>> merged;
  for (std::int32_t t = 0; t < step.tokens(); ++t) {
    const std::int32_t sequence = step.sequence_of[static_cast<std::size_t>(t)];
    merged.push_back(
        MergeOnCpu(step, t, [&](std::int32_t p) { return PartialOnCpu(step, t, p, sequence); }));
  }
  Device device(step, plan);
  for (const AttentionTile tile : tiles) {
    device.AttendAndCompare(tile, merged);
    device.AttendAndCompare(tile, merged);
    if (::testing::Test::HasFailure()) return;
  }
}

constexpr AttentionTile kEvery[] = {AttentionTile::kFew, AttentionTile::kGroup,
                                    AttentionTile::kMany};
const std::vector<AttentionTile> kEveryTile(std::begin(kEvery), std::end(kEvery));

class CudaAttention : public ::testing::TestWithParam<KvDType> {};

// Contexts to both sides of every border: of tiles, of blocks, of partitions.
TEST_P(CudaAttention, DecodesToTheBitsOfTheCpu) {
  std::mt19937_64 random(1);
  const std::vector<Sequence> sequences = {{1, 1},   {31, 1},  {32, 1},  {33, 1},
                                           {255, 1}, {256, 1}, {257, 1}, {600, 1}};
  for (const std::int32_t block_size : {16, 64}) {
    const Step step = MakeStep({.dtype = GetParam(), .block_size = block_size}, sequences, &random);
    ExpectAsOnCpu(step, MakePlan(step, 1, &random), kEveryTile);
  }
}

TEST_P(CudaAttention, DecodesALongContext) {
  std::mt19937_64 random(2);
  const Step step = MakeStep({.dtype = GetParam()}, {{4097, 1}}, &random);
  ExpectAsOnCpu(step, MakePlan(step, 1, &random), {AttentionTile::kGroup});
}

// Chunks whose queries lie to both sides of a border, and begin in the middle.
TEST_P(CudaAttention, TakesChunksOfQueries) {
  std::mt19937_64 random(3);
  const std::vector<Sequence> sequences = {{270, 23}, {17, 17}, {3, 1}, {513, 2}};
  const Step step = MakeStep({.dtype = GetParam(), .group = 4}, sequences, &random);
  ExpectAsOnCpu(step, MakePlan(step, 16, &random), kEveryTile);
}

TEST_P(CudaAttention, TakesHeadsOfAnyShape) {
  std::mt19937_64 random(4);
  for (const Shape& shape : {Shape{GetParam(), 64, 2, 4, 32}, Shape{GetParam(), 80, 2, 3, 16},
                             Shape{GetParam(), 96, 1, 16, 256}, Shape{GetParam(), 256, 1, 2, 64},
                             Shape{GetParam(), 32, 3, 1, 128}, Shape{GetParam(), 160, 1, 5, 32}}) {
    if (shape.head_dim % KvHeadDimMultiple(shape.dtype) != 0) continue;
    const Step step = MakeStep(shape, {{70, 9}, {300, 1}}, &random);
    ExpectAsOnCpu(step, MakePlan(step, 7, &random), kEveryTile);
  }
}

// A query that lies before its unit's partition, and one of another sequence with the same blocks.
TEST_P(CudaAttention, TakesQueriesThatSeeNothingAndOnesThatShare) {
  std::mt19937_64 random(5);
  const Step step =
      MakeStep({.dtype = GetParam(), .group = 2}, {{520, 3}, {200, 1}, {400, 2}}, &random);
  Plan plan;
  plan.Add(1, 0, {3, 0, 1, 2});  // token 3 is at 199
  plan.Add(2, 0, {3});
  plan.Add(0, 2, {4, 5, 1});
  Device device(step, plan);
  for (const AttentionTile tile : kEvery) {
    SCOPED_TRACE(Info(tile).reason);
    device.Poison();
    device.Attend(tile);
    for (const std::int32_t token : {0, 1, 2}) {
      ExpectSameBits(device.Entries(token, 1), PartialOnCpu(step, token, 1, 0));
    }
    for (const std::int32_t token : {4, 5, 1}) {
      ExpectSameBits(device.Entries(token, 0), PartialOnCpu(step, token, 0, 2));
    }
    std::vector<float> nothing(static_cast<std::size_t>(step.shape.entry()), 0.0F);
    nothing[static_cast<std::size_t>(step.shape.head_dim)] = -kInfinity;
    nothing.insert(nothing.end(), nothing.begin(), nothing.end());  // two heads
    ExpectSameBits(device.Entries(3, 1), nothing);
    ExpectSameBits(device.Entries(3, 2), nothing);
  }
}

TEST_P(CudaAttention, CarriesFaultsAsTheCpu) {
  std::mt19937_64 random(6);
  const auto spoil = [](std::int32_t sequence, std::int32_t position, std::int32_t,
                        std::vector<float>* key, std::vector<float>* value) {
    if (sequence == 0 && position == 17) (*key)[3] = kNan;
    if (sequence == 1 && position == 299) (*key)[60] = kNan;
    if (sequence == 2 && position == 40) (*value)[7] = kInfinity;
    if (sequence == 3 && position == 20) (*value)[63] = kNan;
    if (sequence == 4) std::fill(key->begin(), key->end(), 1e4F);
    if (sequence == 4 && position == 9) (*key)[0] = -kInfinity;
  };
  // Chunks, so that some of a tile's rows see the fault and their neighbours do not.
  const Step step = MakeStep({.dtype = GetParam(), .head_dim = 64, .group = 2},
                             {{300, 3}, {302, 4}, {43, 6}, {31, 14}, {20, 14}}, &random, spoil);
  ExpectAsOnCpu(step, MakePlan(step, 16, &random), kEveryTile);
}

// Which NaNs reach the maximum depends on where they stand: a NaN yields to what follows it.
TEST_P(CudaAttention, TakesTheMaximumOfScoresWithNansInTheOrderOfTheCpu) {
  std::mt19937_64 random(10);
  const auto spoil = [&random](std::int32_t, std::int32_t, std::int32_t, std::vector<float>* key,
                               std::vector<float>*) {
    if (random() % 4 == 0) (*key)[0] = kNan;
  };
  const Step step = MakeStep({.dtype = GetParam(), .head_dim = 32, .kv_heads = 2, .group = 2},
                             {{45, 12}, {100, 9}, {250, 20}, {290, 1}}, &random, spoil);
  ExpectAsOnCpu(step, MakePlan(step, 16, &random), kEveryTile);
}

TEST_P(CudaAttention, KeepsScoresOfAnySizeFinite) {
  std::mt19937_64 random(7);
  Step step = MakeStep({.dtype = GetParam(), .group = 2}, {{300, 1}, {1100, 1}}, &random);
  for (float& value : step.q) value *= 1e4F;
  ExpectAsOnCpu(step, MakePlan(step, 1, &random), {AttentionTile::kGroup});
}

TEST_P(CudaAttention, MergesTheTokensOfAWave) {
  std::mt19937_64 random(8);
  const Step step = MakeStep({.dtype = GetParam(), .group = 2}, {{260, 6}}, &random);
  Device device(step, MakePlan(step, 6, &random));
  device.Attend(AttentionTile::kMany);
  device.MergeAndCompare(2, 5);
  device.MergeAndCompare(5, 6);
  device.MergeAndCompare(3, 3);
}

std::string TypeName(const ::testing::TestParamInfo<KvDType>& info) {
  constexpr const char* kNames[] = {"F16", "F32", "Q8_0", "Fp8"};
  return kNames[static_cast<std::size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Types, CudaAttention,
                         ::testing::Values(KvDType::kF16, KvDType::kF32, KvDType::kQ8_0,
                                           KvDType::kFp8),
                         TypeName);

// ---- Partials and merge in one kernel -----------------------------------------------------------

// Tokens with one partition, whose only entry stays where it was computed, and with more.
TEST_P(CudaAttention, MergesWhatItDecodesInTheSameKernel) {
  std::mt19937_64 random(12);
  const std::vector<Sequence> sequences = {{1, 1},   {31, 1},  {32, 1},  {33, 1},
                                           {255, 1}, {256, 1}, {257, 1}, {600, 1}};
  const Step step = MakeStep({.dtype = GetParam()}, sequences, &random);
  ExpectMergedAsOnCpu(step, MakePlan(step, 1, &random), kEveryTile);
}

// Chunks whose queries lie to both sides of a border: some see nothing of a unit's partition.
TEST_P(CudaAttention, MergesWhatItComputesOfChunksInTheSameKernel) {
  std::mt19937_64 random(13);
  const Step step = MakeStep({.dtype = GetParam(), .kv_heads = 2, .group = 4},
                             {{270, 23}, {3, 1}, {513, 2}}, &random);
  ExpectMergedAsOnCpu(step, MakePlan(step, 16, &random), kEveryTile);
}

// The only position has weight 1, so its value comes out as it is read.
TEST(CudaAttentionOfFp8, ReadsEveryCode) {
  std::mt19937_64 random(11);
  const Shape shape = {.dtype = KvDType::kFp8, .head_dim = 256, .group = 1};
  Step step = MakeStep(shape, {{1, 1}}, &random);
  std::byte* value = step.view().values(step.block_table[0], 0);
  for (int code = 0; code < 256; ++code) value[code] = static_cast<std::byte>(code);
  Device device(step, MakePlan(step, 1, &random));
  device.Attend(AttentionTile::kFew);
  const std::vector<float> entry = device.Entries(0, 0);
  for (int code = 0; code < 256; ++code) {
    const float read = entry[static_cast<std::size_t>(code)];
    if (code % 128 == 127) {
      EXPECT_TRUE(std::isnan(read)) << code;
    } else {
      const double magnitude = testing::Fp8Magnitude(code % 128);
      EXPECT_EQ(read, code < 128 ? magnitude : -magnitude) << code;
    }
  }
}

TEST(CudaAttentionTail, MergesALongContext) {
  std::mt19937_64 random(14);
  const Step step = MakeStep({.kv_heads = 2, .group = 4}, {{4097, 1}, {20, 1}}, &random);
  ExpectMergedAsOnCpu(step, MakePlan(step, 1, &random),
                      {AttentionTile::kFew, AttentionTile::kGroup});
}

// Parts that are some of a group, all of it, of several groups, and not of whole groups; rows of a
// block that are not whole parts.
TEST(CudaAttentionTail, MergesPartsOfAnyNumberOfHeads) {
  std::mt19937_64 random(15);
  for (const Shape& shape :
       {Shape{KvDType::kF16, 128, 4, 7, 32}, Shape{KvDType::kF16, 64, 2, 4, 32},
        Shape{KvDType::kF16, 64, 4, 2, 32}, Shape{KvDType::kF16, 80, 2, 3, 16},
        Shape{KvDType::kF16, 80, 8, 4, 16}, Shape{KvDType::kF16, 256, 1, 5, 64},
        Shape{KvDType::kF16, 32, 3, 1, 128}, Shape{KvDType::kF16, 160, 1, 5, 32}}) {
    const Step step = MakeStep(shape, {{70, 5}, {300, 1}}, &random);
    ExpectMergedAsOnCpu(step, MakePlan(step, 3, &random), kEveryTile);
  }
}

// Sequences whose first partition is the same blocks of the cache, in one unit for all.
TEST(CudaAttentionTail, MergesSequencesThatShareAPrefix) {
  std::mt19937_64 random(16);
  Step step = MakeStep({.kv_heads = 2, .group = 4},
                       {{300, 1}, {256, 1}, {600, 2}, {270, 1}, {9, 1}}, &random);
  const std::int32_t blocks = kKvPartition / step.shape.block_size;
  for (const std::int32_t sequence : {1, 2, 3}) {
    std::copy_n(
        step.block_table.begin(), blocks,
        step.block_table.begin() + step.block_table_start[static_cast<std::size_t>(sequence)]);
  }
  Plan plan;
  plan.Add(2, 2, {2, 3});
  plan.Add(0, 1, {0, 1, 2, 3, 4});
  plan.Add(1, 0, {0});
  plan.Add(1, 2, {2, 3});
  plan.Add(0, 4, {5});
  plan.Add(1, 3, {4});
  ExpectMergedAsOnCpu(step, plan, kEveryTile);
}

TEST(CudaAttentionTail, CarriesFaultsAsTheCpu) {
  std::mt19937_64 random(17);
  const auto spoil = [](std::int32_t sequence, std::int32_t position, std::int32_t,
                        std::vector<float>* key, std::vector<float>* value) {
    if (sequence == 0 && position == 17) (*key)[3] = kNan;
    if (sequence == 1 && position == 299) (*value)[60] = kNan;
    if (sequence == 2 && position == 4) (*value)[7] = kInfinity;
    if (sequence == 2 && position == 9) (*key)[0] = -kInfinity;
  };
  const Step step = MakeStep({.head_dim = 64}, {{300, 1}, {302, 4}, {12, 9}}, &random, spoil);
  ExpectMergedAsOnCpu(step, MakePlan(step, 16, &random), kEveryTile);
}

TEST(CudaAttentionTail, IsForFewTokensOnly) {
  const auto chosen = [](AttentionTailWork work) { return ChooseAttentionTail(work).fused; };
  const AttentionTailWork decode = {.work = {.units = 17, .group = 8, .num_kv_heads = 4},
                                    .head_dim = 128,
                                    .tokens = 1,
                                    .num_counters = 512};
  AttentionTailWork work = decode;
  EXPECT_TRUE(chosen(work));
  work.tokens = kMaxTokensOfAttentionTail;
  EXPECT_TRUE(chosen(work));
  ++work.tokens;
  EXPECT_FALSE(chosen(work));
  work = decode;
  work.allowed = false;
  EXPECT_FALSE(chosen(work));
  work = decode;
  work.tile = AttentionTile::kMany;
  EXPECT_FALSE(chosen(work));
  work = decode;
  work.tokens = kMaxTokensOfAttentionTail;
  --work.num_counters;
  EXPECT_FALSE(chosen(work));
  work = decode;
  work.work.units = 264;  // 1 056 blocks for 132 multiprocessors
  EXPECT_TRUE(chosen(work));
  ++work.work.units;
  EXPECT_FALSE(chosen(work));
}

// 61 heads of 48 values are merged as a whole.
TEST(CudaAttentionTail, IsRefusedWhereABlockHasNoRoomForIt) {
  const AttentionTailWork work = {.work = {.units = 1, .group = 61, .num_kv_heads = 1},
                                  .tile = AttentionTile::kFew,
                                  .head_dim = 48,
                                  .tokens = 1,
                                  .num_counters = 512};
  EXPECT_FALSE(ChooseAttentionTail(work).fused);
  std::int32_t counter = 0;
  AttentionParams params;
  params.num_heads = 61;
  params.max_units = 1;
  params.kv.layout = {1, 1, 48, 32, KvDType::kF16};
  params.tile = AttentionTile::kFew;
  params.tail.counters = &counter;
  EXPECT_EQ(LaunchAttention(params, nullptr), cudaErrorInvalidValue);
  cudaGetLastError();
}

// More partitions than a batch of the merge, with every kind of entry, as no cache of a test holds.
TEST(CudaAttentionMerge, MergesAnyNumberOfPartitionsInTheOrderOfTheCpu) {
  std::mt19937_64 random(9);
  constexpr std::int32_t kHeads = 4;
  for (const std::int32_t dim : {128, 80, 64}) {
    const std::vector<std::int32_t> seen = {1, 2, 31, 32, 33, 64, 131};
    std::vector<std::int32_t> starts = {0};
    std::vector<std::int32_t> positions;
    for (const std::int32_t partitions : seen) {
      starts.push_back(starts.back() + partitions);
      positions.push_back(partitions * kKvPartition - 1);
    }
    const std::int32_t entry = dim + 2;
    std::vector<float> partials =
        RandomFloats(static_cast<std::size_t>(starts.back() * kHeads * entry), &random);
    for (std::int32_t e = 0; e < starts.back() * kHeads; ++e) {
      float* max_and_sum = partials.data() + e * entry + dim;
      max_and_sum[0] *= 10;
      max_and_sum[1] = std::fabs(max_and_sum[1]) * 100;
      if (random() % 10 == 0) {  // saw nothing
        max_and_sum[0] = -kInfinity;
        max_and_sum[1] = 0.0F;
      }
      if (random() % 97 == 0) max_and_sum[0] = kNan;
    }
    DeviceArray<float> device_partials(partials);
    DeviceArray<std::int32_t> device_starts(starts), device_positions(positions);
    const auto tokens = static_cast<std::int32_t>(seen.size());
    DeviceArray<std::int32_t> num_tokens(std::vector<std::int32_t>{tokens});
    ActivationArrays out(tokens, kHeads * dim);
    AttentionMergeParams params;
    params.partials = device_partials.data();
    params.partial_start = device_starts.data();
    params.positions = device_positions.data();
    params.num_tokens = num_tokens.data();
    params.max_tokens = tokens;
    params.num_heads = kHeads;
    params.head_dim = dim;
    params.out = out.rows();
    ASSERT_EQ(LaunchAttentionMerge(params, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (std::int32_t t = 0; t < tokens; ++t) {
      const auto at = static_cast<std::size_t>(t);
      std::vector<float> expected(static_cast<std::size_t>(kHeads * dim));
      for (std::int32_t head = 0; head < kHeads; ++head) {
        cpu::SelectAttention(KvDType::kF16, cpu::Isa::kScalar)
            .merge(partials.data() + (starts[at] * kHeads + head) * entry, kHeads * entry, seen[at],
                   dim, expected.data() + head * dim);
      }
      out.ExpectRow(t, expected);
    }
  }
}

TEST(CudaAttentionTile, SharesAsMuchAsStillFillsTheGpu) {
  constexpr std::int32_t kH200 = 132;
  const auto choose = [](std::int64_t units, std::int32_t queries, std::int32_t group) {
    return ChooseAttentionTile(
        {.units = units, .queries_per_unit = queries, .group = group, .num_kv_heads = 4}, kH200);
  };
  EXPECT_EQ(choose(2, 1, 8), AttentionTile::kFew);     // one sequence of 512
  EXPECT_EQ(choose(32, 1, 8), AttentionTile::kFew);    // 128 blocks for 132
  EXPECT_EQ(choose(33, 1, 8), AttentionTile::kGroup);  // 32 sequences and more
  EXPECT_EQ(choose(1000, 1, 1), AttentionTile::kFew);  // nothing to share
  EXPECT_EQ(choose(64, 16, 8), AttentionTile::kMany);  // a chunk of 512
  EXPECT_EQ(choose(3, 16, 8), AttentionTile::kGroup);  // a short one
  EXPECT_EQ(choose(0, 1, 8), AttentionTile::kFew);
}

TEST(CudaAttentionTile, FitsTheSharedMemoryOfABlock) {
  struct Limit {
    std::size_t bytes;
    std::int32_t head_dim;
    std::vector<KvDType> types;
  };
  const Limit limits[] = {
      {99 * 1024, 128, {KvDType::kF16, KvDType::kQ8_0, KvDType::kFp8}},   // sm_120
      {163 * 1024, 256, {KvDType::kF16, KvDType::kQ8_0, KvDType::kFp8}},  // sm_80
      {163 * 1024, 128, {KvDType::kF32}},
      {227 * 1024, 256, {KvDType::kF32}},  // sm_90
  };
  for (const Limit& limit : limits) {
    for (const AttentionTileInfo& info : kAttentionTiles) {
      for (const KvDType dtype : limit.types) {
        EXPECT_LE(AttentionSharedBytes(info.tile, dtype, limit.head_dim), limit.bytes)
            << info.reason << ", heads of " << limit.head_dim;
      }
    }
  }
}

TEST(CudaAttentionTile, RefusesWhatItCannotDo) {
  AttentionParams params;
  params.num_heads = 8;
  for (const KvLayout& layout :
       {KvLayout{1, 4, 40, 32, KvDType::kF16}, KvLayout{1, 4, 272, 32, KvDType::kF16},
        KvLayout{1, 4, 80, 32, KvDType::kQ8_0}, KvLayout{1, 3, 128, 32, KvDType::kF16},
        KvLayout{1, 4, 128, 8, KvDType::kF16}, KvLayout{1, 4, 128, 48, KvDType::kF16}}) {
    params.kv.layout = layout;
    EXPECT_EQ(LaunchAttention(params, nullptr), cudaErrorInvalidValue);
  }
  cudaGetLastError();
}

}  // namespace
}  // namespace millrace::cuda

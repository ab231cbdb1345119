#include "kernels/cuda/tail_plan.h"

#include <algorithm>
#include <numeric>

namespace millrace::cuda {
namespace {

// Shared memory of a tail at most. The blocks of the product have it, too, and three of them should
// still fit a multiprocessor (228 KB). Eight rows of 2 048 values are 64.1 KB.
constexpr std::int64_t kTailBytes = std::int64_t{72} << 10;
// Rounds of the rows of a norm at most: a kernel of its own takes all rows at once, and each round
// takes about as long as its launch.
constexpr std::int64_t kNormRounds = 2;
// A block that counts itself waits until its outputs can be seen and for the counter, about a
// microsecond in which its place on the multiprocessor is idle. With more blocks behind each other
// than these that is more than a launch.
constexpr std::int64_t kWaves = 4;
// Warps of the vector kernel that a multiprocessor has at once, by their registers.
constexpr std::int64_t kWarpsAtOnce = 16;

constexpr std::int64_t CeilDivide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

TailShape Separate(const char* why) {
  TailShape shape;
  shape.why = why;
  return shape;
}

// How many units of the tail a block has room and threads for.
std::int64_t UnitsAtOnce(const TailProblem& problem) {
  const std::int64_t warps = std::int64_t{problem.product.tiles} * problem.product.splits;
  switch (problem.kind) {
    case TailKind::kNorm:
      return std::clamp<std::int64_t>(kTailBytes / problem.unit_bytes, 1,
                                      std::min<std::int64_t>(warps, problem.product.columns));
    case TailKind::kRopeAppend:
      return 2 * warps;  // half a warp takes a head's row
    default:
      return warps;
  }
}

const char* WhyFused(TailKind kind) {
  switch (kind) {
    case TailKind::kNorm:
      return "few rows: the last block to add to them norms them";
    case TailKind::kRopeAppend:
      return "few rows: the last block of a head takes it to the cache";
    default:
      return "few rows: the last block of 256 values activates them";
  }
}

}  // namespace

TailShape PlanTail(const TailProblem& problem) {
  const MatmulShape& product = problem.product;
  if (problem.kind == TailKind::kNone) return Separate("nothing follows");
  if (problem.num_counters == 0) return Separate("tails are off");
  if (product.kernel == MatmulKernel::kFloat)
    return Separate("the kernel of float weights has none");
  if (product.kernel == MatmulKernel::kTensor) return Separate("many rows: launches cost little");
  const std::int64_t warps = problem.blocks * product.tiles * product.splits;
  if (warps > kWaves * kWarpsAtOnce * problem.multiprocessors) {
    return Separate("many blocks: all would wait for their counters");
  }
  if (!problem.one_launch) return Separate("two launches write what it reads");
  if (!problem.plain) return Separate("rows change places, or are not aligned");
  TailShape shape;
  const std::int64_t tile_values = std::int64_t{product.tiles} * kTileRows;
  shape.group_values = static_cast<std::int32_t>(
      problem.kind == TailKind::kNorm
          ? CeilDivide(problem.unit, tile_values) * tile_values
          : std::lcm(tile_values, static_cast<std::int64_t>(problem.unit)));
  shape.row_blocks = problem.rows_per_unit;
  const std::int64_t at_once = UnitsAtOnce(problem);
  const std::int64_t rows = std::min(product.columns, problem.max_rows);  // of a block
  if (problem.kind == TailKind::kNorm && at_once * kNormRounds < rows) {
    return Separate("long rows, or few warps: a block would norm them one after the other");
  }
  shape.units_at_once = static_cast<std::int32_t>(at_once);
  shape.shared_bytes = at_once * problem.unit_bytes;
  if (shape.shared_bytes > kBlockSharedBytes)
    return Separate("a row does not fit a block's memory");
  std::int64_t groups = 0;
  for (const std::int32_t n : problem.n) groups += CeilDivide(n, shape.group_values);
  groups *= CeilDivide(CeilDivide(problem.max_rows, product.columns), shape.row_blocks);
  if (groups > problem.num_counters) return Separate("more groups than there are counters");
  shape.fused = true;
  shape.why = WhyFused(problem.kind);
  return shape;
}

}  // namespace millrace::cuda

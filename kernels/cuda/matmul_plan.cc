#include "kernels/cuda/matmul_plan.h"

#include <algorithm>

#include "kernels/cuda/vector_slots.h"

namespace millrace::cuda {
namespace {

// Warps of a multiprocessor that hide the latency of memory when each has a unit (2 to 4 KB) under
// way: 4.8 TB/s for 0.8 us are 29 KB for each of 132, and half of them are between loads.
constexpr std::int64_t kWarpsPerMultiprocessor = 16;
// Of a block of the vector kernel.
constexpr int kVectorWarps = 8;
// Slots of a pass of the vector kernel, so that three blocks fit a multiprocessor (228 KB).
constexpr std::int64_t kSlotBytes = std::int64_t{64} << 10;
// Above so many rows the vector kernel would read dense weights a third time, if only from cache.
constexpr std::int32_t kVectorRows = 16;

std::int64_t CeilDivide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

MatmulShape TensorShape(int columns, const char* why) {
  MatmulShape shape;
  shape.kernel = MatmulKernel::kTensor;
  shape.columns = columns;
  // With 64 columns of activations in shared memory more warps should share them.
  shape.tiles = columns == 64 ? 8 : 4;
  shape.why = why;
  return shape;
}

MatmulShape FloatShape(const MatmulProblem& problem) {
  MatmulShape shape;
  shape.kernel = MatmulKernel::kFloat;
  const std::int64_t rows = problem.num_experts > 0
                                ? CeilDivide(problem.max_rows, problem.num_experts)
                                : problem.max_rows;
  if (problem.pairs || rows <= 2) {
    shape.columns = 1;
    shape.why = "float weights, one row a thread: all threads there are read weights";
  } else if (rows <= 32) {
    shape.columns = 4;
    shape.why = "float weights, 2 x 4 outputs in registers: blocks enough, weights read less often";
  } else {
    shape.columns = 8;
    shape.why = "float weights, 4 x 8 outputs in registers: arithmetic is what takes time";
  }
  return shape;
}

}  // namespace

std::int64_t VectorSharedBytes(WeightForm form, std::int64_t k, const MatmulShape& shape) {
  return shape.columns * VectorColumnBytes(form, k) +
         shape.tiles * shape.pass_units * VectorUnitBytes(form, shape.columns);
}

MatmulShape PlanVector(const MatmulProblem& problem, int columns) {
  MatmulShape shape;
  shape.kernel = MatmulKernel::kVector;
  shape.columns = columns;
  const std::int64_t units = UnitCount(problem.k);
  const std::int64_t work =
      std::max<std::int64_t>(1, problem.tiles * CeilDivide(problem.max_rows, columns));
  const std::int64_t wanted = problem.multiprocessors * kWarpsPerMultiprocessor;
  const std::int64_t unit_bytes = VectorUnitBytes(problem.form, columns);
  const std::int64_t room = std::min(
      kSlotBytes, kBlockSharedBytes - columns * VectorColumnBytes(problem.form, problem.k));
  // Rows so long that the scales of eight of them leave no room; one row's always do.
  if (room < unit_bytes && columns > 1) return PlanVector(problem, 1);
  // Enough warps, and all of them the same number of units, or one less.
  const std::int64_t at_least = std::clamp<std::int64_t>(CeilDivide(wanted, work), 1, units);
  const std::int64_t units_of_warp = std::max(units / at_least, CeilDivide(units, kVectorWarps));
  std::int64_t splits = CeilDivide(units, units_of_warp);
  std::int64_t tiles = std::max<std::int64_t>(1, kVectorWarps / splits);
  while (tiles * splits * unit_bytes > room) (tiles > 1 ? tiles : splits) -= 1;
  const std::int64_t fitting = room / (tiles * unit_bytes) / splits * splits;
  shape.splits = static_cast<int>(splits);
  shape.tiles = static_cast<int>(tiles);
  shape.pass_units = static_cast<int>(std::min(fitting, CeilDivide(units, splits) * splits));
  shape.why = splits > 1 ? "few rows, and fewer tiles than warps: warps share k"
                         : "few rows, and tiles for all warps: each takes whole rows";
  return shape;
}

MatmulShape PlanMatmul(const MatmulProblem& problem) {
  if (!IsQuantised(problem.form)) return FloatShape(problem);
  if (problem.pairs) return PlanVector(problem, 1);
  if (problem.num_experts > 0) {
    const std::int64_t rows = CeilDivide(problem.max_rows, problem.num_experts);
    if (rows <= 16) return TensorShape(16, "up to 16 rows an expert: more would be empty columns");
    if (rows <= 32) return TensorShape(32, "up to 32 rows an expert");
    return TensorShape(64, "more than 32 rows an expert: weights are unpacked once for 64");
  }
  if (problem.max_rows == 1) return PlanVector(problem, 1);
  if (problem.max_rows <= kVectorRows) return PlanVector(problem, 8);
  for (const int columns : {64, 32}) {
    const MatmulShape shape = TensorShape(columns, "dense: the widest shape that fills the device");
    const std::int64_t blocks =
        CeilDivide(problem.tiles, shape.tiles) * CeilDivide(problem.max_rows, columns);
    if (blocks >= problem.multiprocessors) return shape;
  }
  return TensorShape(16, "dense, and few blocks: narrow ones, so that there are more");
}

std::int64_t MaxRowBlocks(std::int32_t max_rows, std::int32_t num_experts, int columns) {
  if (num_experts == 0) return CeilDivide(max_rows, columns);
  // Whole blocks, and one that is not whole for each expert that has rows.
  return max_rows / columns + std::min(max_rows, num_experts);
}

}  // namespace millrace::cuda

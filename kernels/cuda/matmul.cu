#include "kernels/cuda/matmul.h"

#include <span>

#include "kernels/cuda/matmul_float.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/matmul_tail.h"
#include "kernels/cuda/matmul_tensor.h"
#include "kernels/cuda/matmul_vector.h"
#include "kernels/cuda/vector_slots.h"

namespace millrace::cuda {
namespace {

MatmulProblem ProblemOf(const MatmulParams& params, const MatmulDevice& device) {
  MatmulProblem problem;
  problem.form = params.matrices[0].form;
  problem.k = params.k;
  for (int m = 0; m < params.num_matrices; ++m) {
    const MatmulMatrix& matrix = params.matrices[static_cast<std::size_t>(m)];
    problem.tiles += TileCount(matrix.form, matrix.n);
    // What the vector kernel's threads share must fit the form that needs most of it.
    if (IsQuantised(matrix.form) && IsQuantised(problem.form) &&
        VectorUnitBytes(matrix.form, 1) > VectorUnitBytes(problem.form, 1)) {
      problem.form = matrix.form;
    }
  }
  problem.max_rows = params.max_rows;
  problem.num_experts = params.expert_offsets != nullptr ? params.num_experts : 0;
  problem.pairs = params.experts != nullptr;
  problem.multiprocessors = device.multiprocessors;
  return problem;
}

// Whether all matrices have the first one's form or, where the kernel takes two, one other.
bool ShareALaunch(const MatmulParams& params, MatmulKernel kernel) {
  const WeightForm first = params.matrices[0].form;
  WeightForm other = first;
  for (int m = 1; m < params.num_matrices; ++m) {
    const WeightForm form = params.matrices[static_cast<std::size_t>(m)].form;
    if (form == first || form == other) continue;
    if (other != first) return false;
    other = form;
  }
  return other == first || (kernel == MatmulKernel::kVector && VectorServes(first, other));
}

// One launch of those that a product is made of.
struct Part {
  MatmulParams params;
  MatmulShape shape;
  std::array<std::size_t, kMaxMatrices> matrix_of = {};  // of the whole product
};

struct Parts {
  std::array<Part, kMaxMatrices> part;
  std::size_t count = 0;
};

// One for each form, in the order of the first matrix of each, unless all share a kernel.
Parts PartsOf(const MatmulParams& params, const MatmulDevice& device) {
  Parts parts;
  const auto matrices = static_cast<std::size_t>(params.num_matrices);
  const MatmulShape shape = PlanMatmul(ProblemOf(params, device));
  const bool all = ShareALaunch(params, shape.kernel);
  std::array<bool, kMaxMatrices> done = {};
  for (std::size_t first = 0; first < matrices; ++first) {
    if (done[first]) continue;
    Part& part = parts.part[parts.count++];
    part.params = params;
    part.params.num_matrices = 0;
    for (std::size_t m = first; m < matrices; ++m) {
      if (!all && params.matrices[m].form != params.matrices[first].form) continue;
      const auto i = static_cast<std::size_t>(part.params.num_matrices++);
      part.params.matrices[i] = params.matrices[m];
      part.matrix_of[i] = m;
      done[m] = true;
    }
    part.shape = all ? shape : PlanMatmul(ProblemOf(part.params, device));
  }
  return parts;
}

// `tail` is null, or fits the part.
cudaError_t LaunchPart(const Part& part, const FusedTail* tail, cudaStream_t stream) {
  switch (part.shape.kernel) {
    case MatmulKernel::kVector:
      return LaunchMatmulVector(part.params, part.shape, stream, tail);
    case MatmulKernel::kTensor:
      return LaunchMatmulTensor(part.params, part.shape, stream);
    case MatmulKernel::kFloat:
      return LaunchMatmulFloat(part.params, part.shape, stream);
  }
  return cudaErrorInvalidValue;
}

// The tail of one part of a product.
FusedTail FuseTail(const Part& part, const MatmulTail& tail, bool one_launch,
                   const MatmulDevice& device) {
  const MatmulParams& params = part.params;
  TailProblem problem;
  std::array<std::int32_t, kMaxMatrices> n = {};
  for (std::size_t m = 0; m < static_cast<std::size_t>(params.num_matrices); ++m) {
    n[m] = params.matrices[m].n;
    const int tile_rows = part.shape.tiles * kTileRows;
    problem.blocks += (n[m] + tile_rows - 1) / tile_rows;
  }
  problem.blocks *= (params.max_rows + part.shape.columns - 1) / part.shape.columns;
  problem.multiprocessors = device.multiprocessors;
  const bool side_by_side = tail.kind == TailKind::kSwiglu;
  const auto matrices = static_cast<std::size_t>(side_by_side ? 1 : params.num_matrices);
  problem.kind = tail.kind;
  problem.product = part.shape;
  problem.max_rows = params.max_rows;
  problem.n = std::span(n).first(matrices);
  problem.plain = params.y_rows == nullptr;
  problem.num_counters = tail.num_counters;
  FusedTail fused;
  fused.tail = tail;
  switch (tail.kind) {
    case TailKind::kNorm:
      problem.unit = tail.norm.n;
      problem.unit_bytes = std::int64_t{NormRowFloats(tail.norm.n)} * std::int64_t{sizeof(float)};
      problem.plain = problem.plain && NormInFours(tail.norm);
      if (tail.norm.expert_rows != nullptr) problem.rows_per_unit = tail.norm.experts_per_token;
      break;
    case TailKind::kRopeAppend: {
      const KvLayout& layout = tail.rope_append.kv.layout;
      const std::int32_t first_head[] = {0, tail.rope_append.num_heads,
                                         tail.rope_append.num_heads + layout.num_kv_heads};
      problem.unit = layout.head_dim;
      problem.unit_bytes = std::int64_t{layout.head_dim} * std::int64_t{sizeof(float)};
      for (std::size_t m = 0; m < matrices; ++m) {
        fused.first_head[m] = first_head[part.matrix_of[m]];
      }
      break;
    }
    case TailKind::kSwiglu:
      problem.unit = kSwigluValues;
      problem.unit_bytes = kSwigluValues * std::int64_t{sizeof(float)};
      problem.one_launch = one_launch;
      problem.plain = problem.plain && SwigluInFours(tail.swiglu);
      break;
    case TailKind::kNone:
      break;
  }
  fused.shape = PlanTail(problem);
  return fused;
}

// The parts of a product with a tail, which all of them have or none has.
struct FusedParts : Parts {
  std::array<FusedTail, kMaxMatrices> tail;
  bool fused = true;
};

FusedParts FusePartsOf(const MatmulParams& params, const MatmulTail& tail,
                       const MatmulDevice& device) {
  FusedParts parts = {PartsOf(params, device), {}, true};
  for (std::size_t i = 0; i < parts.count; ++i) {
    parts.tail[i] = FuseTail(parts.part[i], tail, parts.count == 1, device);
    parts.fused = parts.fused && parts.tail[i].shape.fused;
  }
  return parts;
}

}  // namespace

cudaError_t LaunchMatmul(const MatmulParams& params, const MatmulDevice& device,
                         cudaStream_t stream) {
  return LaunchMatmulThen(params, {}, device, stream);
}

cudaError_t LaunchTail(const MatmulTail& tail, cudaStream_t stream) {
  switch (tail.kind) {
    case TailKind::kNorm:
      return LaunchNorm(tail.norm, stream);
    case TailKind::kRopeAppend:
      return LaunchRopeAppend(tail.rope_append, stream);
    case TailKind::kSwiglu:
      return LaunchSwiglu(tail.swiglu, stream);
    case TailKind::kNone:
      break;
  }
  return cudaSuccess;
}

bool FusesTail(const MatmulParams& params, const MatmulTail& tail, const MatmulDevice& device) {
  return FusePartsOf(params, tail, device).fused;
}

cudaError_t LaunchMatmulThen(const MatmulParams& params, const MatmulTail& tail,
                             const MatmulDevice& device, cudaStream_t stream) {
  const FusedParts parts = FusePartsOf(params, tail, device);
  for (std::size_t i = 0; i < parts.count; ++i) {
    const FusedTail* fused = parts.fused ? &parts.tail[i] : nullptr;
    const cudaError_t error = LaunchPart(parts.part[i], fused, stream);
    if (error != cudaSuccess) return error;
  }
  return parts.fused ? cudaSuccess : LaunchTail(tail, stream);
}

}  // namespace millrace::cuda

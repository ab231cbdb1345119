#include "kernels/cuda/matmul.h"

#include "kernels/cuda/matmul_float.h"
#include "kernels/cuda/matmul_plan.h"
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

cudaError_t LaunchPlanned(const MatmulParams& params, const MatmulShape& shape,
                          cudaStream_t stream) {
  switch (shape.kernel) {
    case MatmulKernel::kVector:
      return LaunchMatmulVector(params, shape, stream);
    case MatmulKernel::kTensor:
      return LaunchMatmulTensor(params, shape, stream);
    case MatmulKernel::kFloat:
      return LaunchMatmulFloat(params, shape, stream);
  }
  return cudaErrorInvalidValue;
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

}  // namespace

cudaError_t LaunchMatmul(const MatmulParams& params, const MatmulDevice& device,
                         cudaStream_t stream) {
  const MatmulShape shape = PlanMatmul(ProblemOf(params, device));
  if (ShareALaunch(params, shape.kernel)) return LaunchPlanned(params, shape, stream);
  // One launch for each form, in the order of the first matrix of each.
  std::array<bool, kMaxMatrices> done = {};
  for (std::size_t first = 0; first < static_cast<std::size_t>(params.num_matrices); ++first) {
    if (done[first]) continue;
    MatmulParams part = params;
    part.num_matrices = 0;
    for (std::size_t m = first; m < static_cast<std::size_t>(params.num_matrices); ++m) {
      if (params.matrices[m].form != params.matrices[first].form) continue;
      part.matrices[static_cast<std::size_t>(part.num_matrices++)] = params.matrices[m];
      done[m] = true;
    }
    const cudaError_t error = LaunchPlanned(part, PlanMatmul(ProblemOf(part, device)), stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace millrace::cuda

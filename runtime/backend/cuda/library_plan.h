// Which products of a step cuBLAS computes where --matmul cublas allows it: a pure function of
// sizes, with its reasons. Thread-safe (pure).
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_LIBRARY_PLAN_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_LIBRARY_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/weight_layout.h"
#include "runtime/backend/cuda/step_shape.h"

namespace millrace::cuda {

// Steps that are launched as graphs stay exact: a library's launches would be captured with choices
// that it made for one number of rows.
inline constexpr std::int32_t kLeastLibraryRows = kMaxGraphTokens + 1;

// Quantised weights are written and read once more as 16-bit floats, 4.6 bytes a value with what is
// read of them: 1.15 ps at the 4 TB/s that an H200's memory copies. A row's multiply-add is 2.9 fs
// at 700 of its 990 TFLOPS in BF16. Below 400 rows the first takes longer than the second. (The
// rates are NVIDIA's figures and a guess at what is reached of them; nothing here is measured.)
inline constexpr std::int32_t kLeastLibraryRowsQuantised = 512;

struct LibraryPlan {
  bool use = false;
  const char* why = "";  // for people
};

// `least_rows` above 0 replaces both limits: tests have small steps.
inline LibraryPlan PlanLibrary(WeightForm form, std::int32_t rows, std::int32_t least_rows) {
  if (form == WeightForm::kF32) return {false, "rounding F32 weights would lose what they are for"};
  const std::int32_t least = least_rows > 0      ? least_rows
                             : IsQuantised(form) ? kLeastLibraryRowsQuantised
                                                 : kLeastLibraryRows;
  if (rows < least) {
    return {false, IsQuantised(form) ? "few rows: dequantising would take longer than multiplying"
                                     : "few rows: the step may be a graph"};
  }
  return {true, IsQuantised(form)
                    ? "many rows: multiplying in BF16 takes longer than dequantising"
                    : "many rows of float weights: the exact kernel has no matrix instructions"};
}

// The fewest rows of any form.
inline std::int32_t FewestLibraryRows(std::int32_t least_rows) {
  return least_rows > 0 ? least_rows : std::min(kLeastLibraryRows, kLeastLibraryRowsQuantised);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_LIBRARY_PLAN_H_

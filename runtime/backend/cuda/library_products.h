// Products of all tokens of a step (q, k and v, the output projection, a dense feed-forward, the
// head) by cuBLAS, for large steps where --matmul cublas was asked for. Weights become rows of
// 16-bit floats in scratch, a part of the matrix at a time, activations too, and the sums are
// float32 (docs/numerics.md, "Products by cuBLAS"). Experts' products stay with the exact kernels:
// how many rows an expert has only the device knows, and a step does not wait for it. So does the
// router, whose choice hangs on small differences.
//
// Driven by the engine thread. Owns the library's handle and the scratch.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_LIBRARY_PRODUCTS_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_LIBRARY_PRODUCTS_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/matmul.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/cublas.h"
#include "runtime/backend/cuda/resources.h"
#include "runtime/backend/cuda/weight_store.h"
#include "runtime/backend/program.h"

namespace millrace::cuda {

struct LibraryOptions {
  bool use = false;
  std::string library = kCublasName;
  // 0: the plan's (runtime/backend/cuda/library_plan.h).
  std::int32_t least_rows = 0;
  // Of 16-bit weights that stand in scratch together: what the library reads is then still in the
  // L2 cache of an H200 (50 MB), and the head of a large vocabulary takes no more than others.
  std::int64_t part_bytes = std::int64_t{32} << 20;
  // The library's own scratch: what NVIDIA recommends for Hopper; smaller GPUs need less.
  std::int64_t workspace_bytes = std::int64_t{32} << 20;
};

// The weights of a program that the library may multiply, by where they lie.
std::vector<const std::byte*> LibraryWeights(const Program& program, const WeightStore& weights);

class LibraryProducts {
 public:
  // As Cublas::Open.
  static absl::StatusOr<std::unique_ptr<LibraryProducts>> Open(const LibraryOptions& options);

  // Device bytes that Prepare allocates, whatever the weights' types are.
  std::int64_t Bytes(const ProgramDims& dims, const BackendLimits& limits) const;
  // `weights` as LibraryWeights. Products go to `stream`.
  absl::Status Prepare(const ProgramDims& dims, const BackendLimits& limits,
                       std::vector<const std::byte*> weights, cudaStream_t stream);

  // Whether products with these weights, in a step with so many rows, are the library's: their
  // activations are then floats, whatever the weights' type.
  bool Serves(const std::byte* weights, WeightForm form, std::int32_t rows) const;
  // Whether a step of so many tokens may have such products. It is no graph then.
  bool MayServe(std::int32_t tokens) const;

  // Puts those products of `params` that are served on the stream and takes them out of it.
  // REQUIRES: a matrix that is served has rows of floats as x, and either y or add_to, not both;
  // there are params->max_rows rows.
  cudaError_t Take(MatmulParams* params, cudaStream_t stream);
  // Why Take failed, where the library did.
  const absl::Status& status() const { return status_; }

  std::string version() const { return cublas_->version(); }

 private:
  // T = max_tokens, k the longest row.
  struct Scratch {
    std::uint16_t* weights = nullptr;  // weight_values of a part of a matrix
    std::int64_t weight_values = 0;
    std::uint16_t* x = nullptr;      // [T, k]
    float* scales = nullptr;         // [T] of x
    float* products = nullptr;       // [T, H], for results that are scaled and then added
    std::byte* workspace = nullptr;  // the library's
  };
  // Which activations stand in the scratch.
  struct Rows {
    const std::byte* x = nullptr;
    HalfType type = HalfType::kBF16;
  };

  LibraryProducts(LibraryOptions options, std::unique_ptr<Cublas> cublas);
  Scratch Carve(const ProgramDims& dims, const BackendLimits& limits, std::byte* memory,
                std::int64_t* bytes) const;
  cudaError_t Multiply(const MatmulParams& params, const MatmulMatrix& matrix, Rows* rows,
                       cudaStream_t stream);
  cudaError_t MultiplyPart(const MatmulParams& params, const MatmulMatrix& matrix,
                           std::int32_t first, std::int32_t count, cudaStream_t stream);

  const LibraryOptions options_;
  DeviceMemory memory_;
  Scratch scratch_;
  std::int64_t hidden_ = 0;
  std::vector<const std::byte*> weights_;  // ascending
  absl::Status status_;
  const std::unique_ptr<Cublas> cublas_;  // gone before the memory it uses
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_LIBRARY_PRODUCTS_H_

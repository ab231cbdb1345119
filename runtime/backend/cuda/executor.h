// Puts the kernels of a step on a stream: the stages of a Program, fused where that costs no bit. A
// stage ends with the norm of the next one, since its product's kernel can do that, too.
// Which kernels, and how large their grids are, is a function of a StepShape alone, so that what
// was captured for a shape can be run again for every step of it: all else is read from device
// memory.
//
// Driven by the engine thread; owns nothing. Lives as long as the backend.
#ifndef MILLRACE_RUNTIME_BACKEND_CUDA_EXECUTOR_H_
#define MILLRACE_RUNTIME_BACKEND_CUDA_EXECUTOR_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "kernels/cuda/activation_rows.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_tail.h"
#include "kernels/cuda/moe_plan.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/route.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cuda/device.h"
#include "runtime/backend/cuda/library_products.h"
#include "runtime/backend/cuda/step_buffers.h"
#include "runtime/backend/cuda/step_shape.h"
#include "runtime/backend/cuda/step_tables.h"
#include "runtime/backend/cuda/weight_store.h"
#include "runtime/backend/program.h"

namespace millrace::cuda {

class Executor {
 public:
  // All pointers outlive the executor; kv_data is [num_layers] layers of the layout's bytes, in
  // device memory. `fused`: kernels end with what follows them where that pays. `library` computes
  // products of large steps; it may be null. REQUIRES: the program is what Transformer emits (a
  // product of q, k and v is followed by their append, an attention stage by its output projection,
  // a router by its experts; after what adds to the residual stream comes a stage that begins with
  // a norm).
  Executor(const Program* program, const BackendLimits& limits, const DeviceFacts& device,
           const WeightStore* weights, const StepBuffers* buffers, const StepTables* tables,
           std::byte* kv_data, bool fused, LibraryProducts* library);

  // Puts one step, whose tables are written, on the stream; `slot` is where its sampled tokens go.
  // The first error of a launch, after which nothing more is put.
  cudaError_t Run(const StepShape& shape, int slot, cudaStream_t stream);

 private:
  // One for each kind of stage, called by std::visit.
  void operator()(const EmbedStage& stage);
  void operator()(const NormQkvStage& stage);
  void operator()(const QkNormRopeAppendStage& stage);
  void operator()(const AttentionStage& stage);
  void operator()(const OutputProjectionStage& stage);
  void operator()(const NormRouterStage& stage);
  void operator()(const ExpertsStage& stage);
  void operator()(const DenseFfnStage& stage);
  void operator()(const NormHeadStage& stage);
  void operator()(const SampleStage& stage);

  // Keeps the first error.
  void Note(cudaError_t error) {
    if (error_ == cudaSuccess) error_ = error;
  }
  template <typename NextStage>
  const NextStage& Next() const;
  // The norm with which a stage begins, over what this one leaves in x.
  NormParams NormOf(const NormQkvStage& stage) const;
  NormParams NormOf(const NormRouterStage& stage) const;
  NormParams NormOf(const DenseFfnStage& stage) const;
  NormParams NormOf(const NormHeadStage& stage) const;

  // Of `rows`, those formats that the weights read, in products of `count` rows; 0: of all tokens.
  ActivationRows RowsFor(const ActivationRows& rows, std::initializer_list<WeightId> readers,
                         std::int32_t count = 0) const;
  MatmulMatrix Matrix(WeightId weight, const ActivationRows& x, std::int32_t count = 0) const;
  ActivationFormat FormatFor(const Weight& weight, std::int32_t count) const;
  // All tokens of the step; one launch.
  MatmulParams OverTokens(std::int64_t k) const;
  void Multiply(MatmulParams params, const MatmulTail& tail = {});
  MatmulTail Tail(TailKind kind) const;
  // What comes after the last kernel that adds to x: the next stage's norm, where it has rows.
  MatmulTail NormOfNext() const;
  // All tokens of the step, after the sum of the experts' outputs where this stage is theirs.
  NormParams OverRows(WeightId weight, const ActivationRows& out) const;
  MatmulTail RopeAppend(const QkNormRopeAppendStage& stage) const;
  KvLayerView KvLayer(std::int32_t layer) const;
  void Attend(const AttentionStage& stage, std::size_t wave);
  RouteParams Route(const NormRouterStage& stage) const;
  MoePlanParams Plan(std::int32_t layer) const;
  bool pairs_unsorted() const;
  // The feed-forward up to the activations that `down` reads: `params` says which rows there are.
  void GateUpSwiglu(WeightId gate, WeightId up, WeightId down, MatmulParams params);

  const Program& program_;
  const ProgramDims& dims_;
  const BackendLimits limits_;
  const DeviceFacts device_;
  const WeightStore* const weights_;
  const StepBuffers* const buffers_;
  const StepTables* const tables_;
  std::byte* const kv_data_;
  const bool chained_;  // kernels/cuda/launch.h
  const bool fused_;
  LibraryProducts* const library_;

  // Of the step that is put.
  const StepShape* shape_ = nullptr;
  int slot_ = 0;
  cudaStream_t stream_ = nullptr;
  cudaError_t error_ = cudaSuccess;
  std::size_t stage_ = 0;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_RUNTIME_BACKEND_CUDA_EXECUTOR_H_

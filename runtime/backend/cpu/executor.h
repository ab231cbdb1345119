// Runs the stages of a Program over one step on the worker pool. Each stage is one run of the pool:
// a chain of lists of tasks that write disjoint outputs, so results do not depend on who does
// which. A layer of experts is six such runs; attention takes one more for each wave of tokens
// whose partials do not fit into memory with the others.
//
// Driven by the engine thread; owns no weights and no cache. Lives as long as the backend.
#ifndef MILLRACE_RUNTIME_BACKEND_CPU_EXECUTOR_H_
#define MILLRACE_RUNTIME_BACKEND_CPU_EXECUTOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/task_chain.h"
#include "base/thread_pool.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/moe.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cpu/rope.h"
#include "runtime/backend/attention_plan.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cpu/moe_plan.h"
#include "runtime/backend/cpu/product_tasks.h"
#include "runtime/backend/cpu/step_buffers.h"
#include "runtime/backend/cpu/weight_store.h"
#include "runtime/backend/program.h"

namespace millrace::cpu {

class Executor {
 public:
  // All pointers outlive the executor; kv_data is [num_layers] layers of the layout's bytes.
  Executor(Isa isa, const ProgramDims& dims, const BackendLimits& limits,
           const WeightStore* weights, StepBuffers* buffers, std::byte* kv_data, ThreadPool* pool);

  // `token_ids` is the step's, with deferred ones filled in. REQUIRES: the input is valid.
  void Run(const Program& program, const StepInput& input, std::span<const std::int32_t> token_ids,
           StepOutput* output);

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

  // Row `index` of normed = norm(x), then its forms in every format that `readers` read.
  void NormAndQuantise(const float* x, std::int64_t index, const float* norm,
                       std::span<const Weight* const> readers);
  void Quantise(const float* row, std::int64_t index, std::int64_t k,
                std::span<const Weight* const> readers);
  // One run of the pool: `before` makes the `m` rows of activations that all products read, then
  // the products, then `after`.
  template <typename Before, typename... After>
  void Multiply(std::span<const Product> products, std::int64_t m, const Before& before,
                const After&... after);
  void MultiplyTask(const ProductTasks::Task& task, std::int64_t m, const std::byte* next_w);

  void QkNormRope(std::int64_t token, const Weight* norm, std::int32_t heads, float* rows) const;
  void AppendToken(std::int64_t token, std::int32_t sequence, const KvLayerView& kv);
  KvLayerView KvLayer(std::int32_t layer) const;
  // [blocks] of the unit's sequence.
  const std::int32_t* BlockTable(const AttentionPlan::Unit& unit) const;
  const std::byte* KeysOf(const AttentionPlan::Unit& unit, std::int32_t kv_head,
                          const KvLayerView& kv) const;
  // attend(unit_of(i), kv head, keys that are read next) for each i < count and kv head. With few
  // tasks a worker nothing is known of the next: who takes that early may leave another without.
  template <typename UnitOf, typename Attend>
  void AttendEach(std::int64_t count, const KvLayerView& kv, const UnitOf& unit_of,
                  const Attend& attend);
  // A wave whose units are tasks of their own, and one whose runs are.
  void AttendUnits(const AttentionPlan::Wave& wave, const KvLayerView& kv);
  void AttendRuns(const AttentionPlan::Wave& wave, const KvLayerView& kv);
  bool RunsAreFineEnough(const AttentionPlan::Wave& wave) const;
  void PlanAttention(const StepInput& input);
  // What units and runs have in common. `next_keys` as AttentionPartialParams has it.
  AttentionPartialParams AttentionOf(const AttentionPlan::Unit& unit, std::int32_t kv_head,
                                     const KvLayerView& kv, const std::byte* next_keys) const;
  void AttendUnit(const AttentionPlan::Unit& unit, const AttentionPlan::Wave& wave,
                  std::int32_t kv_head, const KvLayerView& kv, const std::byte* next_keys);
  void MergePartials(std::int32_t token, const AttentionPlan::Wave& wave);

  struct FeedForward {
    const Weight* gate;
    const Weight* up;
    const Weight* down;
  };
  // One run of the pool: `before` makes the activations, then gate, up and SwiGLU of rows grouped
  // by expert, then down into `down[slot]`, then `after`.
  template <typename Before, typename After>
  void RunFeedForward(const FeedForward& ffn, const Before& before, const After& after);
  // A slice of one expert's output features; `next_w` as MatmulParams has it.
  void GateUpTask(const FeedForward& ffn, const MoePlan::Group& group, std::int64_t begin,
                  std::int64_t end, const std::byte* next_w);
  void DownTask(const Weight& down, const MoePlan::Group& group, std::int64_t begin,
                std::int64_t end, const std::byte* next_w);

  MatmulFn matmul(DType dtype) const { return matmul_[static_cast<std::size_t>(dtype)]; }
  std::int64_t num_tokens() const { return static_cast<std::int64_t>(input_->positions.size()); }

  const ProgramDims dims_;
  const BackendLimits limits_;
  const WeightStore* const weights_;
  StepBuffers* const buffers_;
  std::byte* const kv_data_;
  const int threads_;
  TaskChain chain_;

  std::vector<MatmulFn> matmul_;         // by DType
  std::vector<QuantizeRowFn> quantize_;  // by ActivationFormat
  const RmsNormFn rms_norm_;
  const RopeFn rope_;
  const AttentionVariant& attention_;
  const MoeFns moe_;

  MoePlan plan_;
  AttentionPlan attention_plan_;
  std::vector<SampleScratch> scratch_;                    // one for each worker
  std::vector<std::atomic<std::int32_t>> partials_left_;  // [T] of attention, of a wave

  // Of the step that runs.
  const StepInput* input_ = nullptr;
  std::span<const std::int32_t> token_ids_;
  StepOutput* output_ = nullptr;
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_EXECUTOR_H_

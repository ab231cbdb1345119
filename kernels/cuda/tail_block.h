// The tails of the vector product (kernels/cuda/matmul_tail.h) on the device. Device code.
#ifndef MILLRACE_KERNELS_CUDA_TAIL_BLOCK_H_
#define MILLRACE_KERNELS_CUDA_TAIL_BLOCK_H_

#include <array>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/last_block.h"
#include "kernels/cuda/matmul_rows.h"
#include "kernels/cuda/matmul_tail.h"
#include "kernels/cuda/norm_row.h"
#include "kernels/cuda/rope_row.h"
#include "kernels/cuda/swiglu_row.h"
#include "kernels/cuda/team.h"

namespace millrace::cuda {

// A tail as the kernel has it. Groups are numbered over the matrices of a launch, except that
// matrices which are read side by side share theirs.
struct TailArgs {
  FusedTail fused;
  MatmulParams params;                             // of the product
  std::array<int, kMaxMatrices> first_block = {};  // of each matrix, in the grid's y
  int group_blocks = 1;       // blocks of a matrix that are a group, in the grid's y
  int groups = 0;             // of a block of rows
  int matrices_of_group = 1;  // 2 where they are read side by side
  std::array<int, kMaxMatrices> blocks = {};  // of each matrix
  std::array<int, kMaxMatrices> first_group = {};
};

// What a group has made: values [begin, end) of rows [rows.begin, rows.begin + rows.count).
struct TailWork {
  RowBlock rows;
  int begin;
  int end;
};

// Rows are dealt to teams of as many warps as there are for each.
__device__ inline void NormTail(const NormParams& p, const TailWork& work, int at_once) {
  const Team block = WholeBlock();
  const int teams = AtMost(at_once, work.rows.count);
  const int warps = block.warps() / teams;
  const int team = block.warp() / warps;
  const Team own = {block.thread - team * warps * kWarpSize, warps * kWarpSize};
  const NormSpace space = NormSpaceOf(p.n, team < teams ? team : 0);
  for (int first = 0; first < work.rows.count; first += teams) {
    const bool works = team < teams && first + team < work.rows.count;
    const int row = work.rows.begin + first + team;
    if (works) LoadNormRow<4>(p, row, space.row, own);
    NormLoadedRow(p, p.weight, works, space, own);
    if (works) {
      // Where rows are asked for, those of the result that ask for this one.
      const bool asked = p.row_index != nullptr;
      const int last = asked ? *p.num_rows : row + 1;
      for (int r = asked ? 0 : row; r < last; ++r) {
        if (asked && p.row_index[r] != row) continue;
        WriteActivations(space.row, 0, p.n, p.n, r, p.out, own);
      }
    }
    SyncBlock();  // the rows may be overwritten
  }
}

// `first_head` is the number among q, k and v of the head that begins at work.begin.
__device__ inline void RopeAppendTail(const RopeAppendParams& p, const TailWork& work,
                                      int first_head) {
  const int dim = p.kv.layout.head_dim;
  const int half = static_cast<int>(threadIdx.x) / kLanes16;
  const int halves = static_cast<int>(blockDim.x) / kLanes16;
  const int heads = (work.end - work.begin) / dim;
  const int jobs = heads * work.rows.count;
  float* row = BlockShared<float>() + half * dim;
  for (int first = 0; first < jobs; first += halves) {
    const bool is_one = first + half < jobs;
    const int at = is_one ? first + half : 0;
    const int token = work.rows.begin + at / heads;
    const RopeJob job = is_one ? RopeJobOf(p, token, first_head + at % heads)
                               : RopeJob{RopeRole::kNone, token, 0, nullptr};
    const std::int64_t angles = std::int64_t{p.positions[token]} * (p.rotary_dim / 2);
    NormAndRotate(p, job, {p.cosines + angles, p.sines + angles, p.q_norm, p.k_norm}, row);
    const std::int32_t slot = p.kv_slots[token];
    switch (p.kv.layout.dtype) {
      case KvDType::kF16:
        AppendRow<KvF16>(p, job, slot, row);
        break;
      case KvDType::kF32:
        AppendRow<KvF32>(p, job, slot, row);
        break;
      case KvDType::kQ8_0:
        AppendRow<KvQ8_0>(p, job, slot, row);
        break;
      case KvDType::kFp8:
        AppendRow<KvFp8>(p, job, slot, row);
        break;
    }
    SyncWarp();  // the row may be overwritten
  }
}

__device__ inline void SwigluTail(const SwigluParams& p, const TailWork& work) {
  const Team block = WholeBlock();
  const int parts = (work.end - work.begin + kSwigluValues - 1) / kSwigluValues;
  float* values = BlockShared<float>() + block.warp() * kSwigluValues;
  for (int i = block.warp(); i < parts * work.rows.count; i += block.warps()) {
    SwigluPart<true>(p, work.rows.begin + i / parts, work.begin + i % parts * kSwigluValues,
                     values);
    SyncWarp();  // the values may be overwritten
  }
}

// Counts the block, which has written its outputs, and does the tail where it is the last of its
// group. All threads of the block; nothing where it had no rows of `columns`. A function of its
// own, with arguments of its own, so that it costs the product no registers.
[[gnu::noinline]] __device__ static void RunTail(const TailArgs& args, int columns) {
  const RowBlock rows = PlainRowBlock(args.params, static_cast<int>(blockIdx.x), columns);
  if (rows.count == 0) return;
  const auto [matrix, block] = MatrixBlockOf(args.params, args.first_block);
  const TailShape& shape = args.fused.shape;
  const MatmulTail& tail = args.fused.tail;
  const int group = block / args.group_blocks;
  const int row_group = static_cast<int>(blockIdx.x) / shape.row_blocks;
  const int blocks = AtMost(args.blocks[matrix] - group * args.group_blocks, args.group_blocks);
  std::int32_t* counter =
      tail.counters + row_group * args.groups + args.first_group[matrix] + group;
  if (!IsLastBlock(counter, blocks * args.matrices_of_group * shape.row_blocks)) return;
  TailWork work = {rows, group * shape.group_values, 0};
  work.end = AtMost(work.begin + shape.group_values, args.params.matrices[matrix].n);
  if (shape.row_blocks > 1) work.rows = {0, row_group, 1};  // all pairs of a token
  switch (tail.kind) {
    case TailKind::kNorm:
      NormTail(tail.norm, work, shape.units_at_once);
      break;
    case TailKind::kRopeAppend:
      RopeAppendTail(
          tail.rope_append, work,
          args.fused.first_head[matrix] + work.begin / tail.rope_append.kv.layout.head_dim);
      break;
    case TailKind::kSwiglu:
      SwigluTail(tail.swiglu, work);
      break;
    case TailKind::kNone:
      break;
  }
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_TAIL_BLOCK_H_

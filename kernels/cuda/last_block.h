// "Last block done": blocks of a kernel count themselves when their results are written, and the
// one that makes the count of its group whole goes on alone, with all results of the group before
// it. So what follows a product needs no kernel, and no launch, of its own.
//
// Counters are ints in device memory, one for each group of blocks that work together. They are 0
// when a kernel begins and 0 when it ends, so the kernels of a stream may all use the same ones:
// what is chained to a kernel touches none before AwaitPrevious.
//
// Device code; all threads of a block call together.
#ifndef MILLRACE_KERNELS_CUDA_LAST_BLOCK_H_
#define MILLRACE_KERNELS_CUDA_LAST_BLOCK_H_

#include <cstdint>

#include "kernels/cuda/device.h"

namespace millrace::cuda {

// Counts this block, one of `total` that share `counter`. True in all threads of the block that
// comes last, which then sees what the threads of all the others wrote to global memory before
// their call; read it by plain loads (LoadOnce16 may bring what was there before). The call is a
// barrier, too: shared memory may be used anew after it.
__device__ inline bool IsLastBlock(std::int32_t* counter, int total) {
  SyncBlock();  // what the block's threads wrote happens before what the first does now
  bool last = false;
  if (threadIdx.x == 0) {
    FenceDevice();
    last = AtomicAdd(counter, 1) == total - 1;
    if (last) {
      *counter = 0;   // for the next kernel: nobody else of this one comes
      FenceDevice();  // no later read of the block is older than the count
    }
  }
  return SyncBlockOr(last);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_LAST_BLOCK_H_

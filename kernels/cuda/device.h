// The few things that kernels use of a GPU beyond C++: barriers, shuffles, integer dot products and
// matrix products, asynchronous copies, shared memory. Kernels use these wrappers only, so that the
// same sources compile for a GPU and, in tests, against an emulation of one (tests/cuda/emulation).
//
// Arithmetic: kernels are compiled without contraction, flushing or approximate division, so +, -,
// *, / and sqrtf round as IEEE says and fusing is written as Fma (docs/numerics.md).
//
// Device code; each function says which threads must call it together.
#ifndef MILLRACE_KERNELS_CUDA_DEVICE_H_
#define MILLRACE_KERNELS_CUDA_DEVICE_H_

#include <cuda_runtime.h>

#include <cstdint>

#ifdef MILLRACE_CUDA_EMULATION
#include <millrace_emulated_device.h>  // of the emulation, found by its include path
#else
#include <cuda_fp16.h>

namespace millrace::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kWholeWarp = 0xFFFFFFFFU;

// ---- Barriers ----------------------------------------------------------------------------------

// Waits for all threads of the block; what they wrote to shared and global memory is then visible
// to all of them. All threads of the block.
__device__ inline void SyncBlock() { __syncthreads(); }
// The same, and whether the predicate of any of them is true.
__device__ inline bool SyncBlockOr(bool predicate) { return __syncthreads_or(predicate) != 0; }
// As SyncBlock for the 32 threads of a warp.
__device__ inline void SyncWarp() { __syncwarp(); }

// ---- Exchange within a warp: all 32 threads ----------------------------------------------------

// The value of lane `lane` of the warp, of lane (own ^ mask), and of lane (own + delta), or the own
// one where there is none.
template <typename T>
__device__ inline T Shuffle(T value, int lane) {
  return __shfl_sync(kWholeWarp, value, lane);
}
template <typename T>
__device__ inline T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(kWholeWarp, value, mask);
}
template <typename T>
__device__ inline T ShuffleDown(T value, int delta) {
  return __shfl_down_sync(kWholeWarp, value, delta);
}
// Bit i is the predicate of lane i.
__device__ inline unsigned Ballot(bool predicate) { return __ballot_sync(kWholeWarp, predicate); }

// ---- Integer products --------------------------------------------------------------------------

// c plus the sum of the products of the four signed bytes of a and b. Any thread.
__device__ inline int Dp4a(int a, int b, int c) { return __dp4a(a, b, c); }

// D += A * B of signed bytes in int32, by a whole warp; fragments as PTX lays out mma.m16n8k32
// (.row .col .s8): with g = lane / 4 and t = lane % 4,
//   a[0] A[g][4t..], a[1] A[g + 8][4t..], a[2] A[g][16 + 4t..], a[3] A[g + 8][16 + 4t..]
//   b[0] B[4t..][g], b[1] B[16 + 4t..][g]
//   d[0] D[g][2t], d[1] D[g][2t + 1], d[2] D[g + 8][2t], d[3] D[g + 8][2t + 1]
// Four bytes of k to a word, the lowest first.
__device__ inline void MmaS8K32(int (&d)[4], const std::uint32_t (&a)[4],
                                const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same for k = 16: a[0] A[g][4t..], a[1] A[g + 8][4t..], b[0] B[4t..][g].
__device__ inline void MmaS8K16(int (&d)[4], const std::uint32_t (&a)[2],
                                const std::uint32_t (&b)[1]) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

// ---- Memory ------------------------------------------------------------------------------------

struct alignas(16) Bytes16 {
  std::uint32_t word[4];
};

// 16 bytes that are read once in a step, so that they do not push others out of the caches.
// REQUIRES: aligned to 16 and not written while the kernel runs.
__device__ inline Bytes16 LoadOnce16(const void* address) {
  Bytes16 r;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(r.word[0]), "=r"(r.word[1]), "=r"(r.word[2]), "=r"(r.word[3])
      : "l"(address));
  return r;
}

// The dynamic shared memory of the block, aligned to 16; its size is the launch's.
template <typename T>
__device__ inline T* BlockShared() {
  extern __shared__ Bytes16 millrace_block_shared[];
  return reinterpret_cast<T*>(millrace_block_shared);
}

// Copies 16 bytes from global to shared memory in the background. Copies since the last
// CommitCopies form a group; WaitCopies<n> waits until at most the n newest groups of this thread
// are under way. Other threads see them after a barrier that follows the wait. Any thread.
__device__ inline void CopyAsync16(void* shared, const void* global) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kNewest>
__device__ inline void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
}

// The value before. Any thread; the order among threads is not determined, so only results that do
// not depend on it may use it.
__device__ inline int AtomicAdd(int* address, int value) { return atomicAdd(address, value); }
// Makes this thread's writes to global memory visible to the device before those that follow.
__device__ inline void FenceDevice() { __threadfence(); }

// ---- Chained launches --------------------------------------------------------------------------

// Waits until the kernel before this one in the stream is done and its writes are visible. Every
// thread of a kernel that is launched with `chained` calls it before it touches what that kernel
// writes (or reads and this one writes). What lies before it runs beside the end of that kernel.
__device__ inline void AwaitPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the kernel after this one be started; a hint.
__device__ inline void LetNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- Numbers -----------------------------------------------------------------------------------

__device__ inline float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ inline std::uint32_t FloatBits(float value) { return __float_as_uint(value); }
__device__ inline float BitsFloat(std::uint32_t bits) { return __uint_as_float(bits); }
// IEEE binary16 by its bits, exact one way, rounded to nearest even the other.
__device__ inline float HalfToFloat(std::uint16_t half) {
  return __half2float(__ushort_as_half(half));
}
__device__ inline std::uint16_t FloatToHalf(float value) {
  return __half_as_ushort(__float2half_rn(value));
}

}  // namespace millrace::cuda

#endif  // MILLRACE_CUDA_EMULATION
#endif  // MILLRACE_KERNELS_CUDA_DEVICE_H_

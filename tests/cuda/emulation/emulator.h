// Runs CUDA kernels that were compiled as plain C++: a grid of blocks of threads on one CPU thread.
// Each CUDA thread is a fiber that runs until it waits at a barrier or a warp's exchange.
//
// What a GPU leaves open is drawn from a seed: the order of blocks, of warps and of lanes, so that
// a missing barrier shows as a wrong result. Two blocks run beside each other, one often far ahead.
// Shared memory begins as NaNs and ends where a protected page begins. What CUDA forbids ends the
// kernel with a fault that says what: threads that wait at a barrier which others of their block or
// warp never reach, different exchanges in one warp, a chained kernel whose thread never waits for
// the one before. A chained kernel begins before the one before it runs: some of its blocks go as
// far as they can without it.
//
// Test code. One grid runs at a time in a process (runtime.h holds the lock).
#ifndef MILLRACE_TESTS_CUDA_EMULATION_EMULATOR_H_
#define MILLRACE_TESTS_CUDA_EMULATION_EMULATOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace millrace::emulation {

struct Index3 {
  unsigned x = 0;
  unsigned y = 0;
  unsigned z = 0;
};

struct GridShape {
  Index3 grid;
  Index3 block;
  std::size_t shared_bytes = 0;
  bool chained = false;
};

// Empty, or what the kernel did wrong.
using Fault = std::string;

// Runs `kernel` once for each thread of the grid. One grid may begin while another runs.
class Grid {
 public:
  Grid(const GridShape& shape, std::function<void()> kernel, std::uint64_t seed);
  ~Grid();
  Grid(const Grid&) = delete;
  Grid& operator=(const Grid&) = delete;

  // Takes some blocks up to where their threads await the kernel before.
  void Begin();
  // All the rest.
  Fault Run();

 private:
  class Parts;
  const std::unique_ptr<Parts> parts_;
};

// ---- For the threads of a kernel ---------------------------------------------------------------

// What a warp does together.
enum class Exchange : std::uint8_t { kNone, kSync, kShuffle, kBallot, kMma };

inline constexpr int kLanes = 32;
inline constexpr std::size_t kSlotBytes = 32;

// One thread that runs; valid until it ends.
struct Thread {
  Index3 thread;  // threadIdx
  Index3 block;   // blockIdx
  const GridShape* shape = nullptr;
  int lane = 0;
  std::byte* shared = nullptr;  // of its block
  bool awaited_previous = false;

  // Whether its asynchronous copies are done as soon as they are asked for, or as late as allowed.
  bool copies_at_once = false;
  // Those that have been asked for and not yet done, oldest first, with the group of each.
  struct Copy {
    void* to;
    const void* from;
    int group;
  };
  std::vector<Copy> copies;
  int groups = 0;  // committed
};

Thread& Self();

// Returns whether the predicate of any thread of the block was true.
bool BlockBarrier(bool predicate);

// Behind an atomic operation, by which a thread may have told other blocks of something: often its
// block goes on much later, so that what it told of had better be done.
void AfterAtomic();

// Waits for the end of the kernel before, where that still runs.
void AwaitPreviousGrid();

// Gives `value` to the warp and returns those of all lanes once all have given theirs; valid until
// the thread's next exchange but one.
using Slots = std::array<std::array<std::byte, kSlotBytes>, kLanes>;
const Slots& ExchangeInWarp(Exchange kind, const void* value, std::size_t bytes);

}  // namespace millrace::emulation

#endif  // MILLRACE_TESTS_CUDA_EMULATION_EMULATOR_H_

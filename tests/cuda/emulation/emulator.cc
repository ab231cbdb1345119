#include "tests/cuda/emulation/emulator.h"

#include <cuda_runtime.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>

millrace::emulation::Index3 threadIdx;
millrace::emulation::Index3 blockIdx;
millrace::emulation::Index3 blockDim;
millrace::emulation::Index3 gridDim;

namespace millrace::emulation {
namespace {

using boost::context::fiber;

// Room for deep frames of unoptimised and sanitized builds; pages that are not touched cost
// nothing.
constexpr std::size_t kStackBytes = 256 * 1024;
constexpr std::size_t kMaxThreads = 1024;  // of a block, as CUDA has it

// Stacks are taken and given back in blocks of threads, so they are kept.
class StackCache {
 public:
  boost::context::stack_context Take() {
    if (free_.empty()) {
      void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) std::abort();
      mprotect(memory, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), PROT_NONE);
      free_.push_back(memory);
    }
    boost::context::stack_context context;
    context.size = kStackBytes;
    context.sp = static_cast<char*>(free_.back()) + kStackBytes;
    free_.pop_back();
    return context;
  }
  void Give(const boost::context::stack_context& context) {
    free_.push_back(static_cast<char*>(context.sp) - kStackBytes);
  }

 private:
  std::vector<void*> free_;
};

StackCache& Stacks() {
  static auto* cache = new StackCache;  // outlives every fiber
  return *cache;
}

struct CachedStack {
  boost::context::stack_context allocate() { return Stacks().Take(); }
  void deallocate(boost::context::stack_context& context) { Stacks().Give(context); }
};

// Shared memory of one block, its end at a protected page.
class SharedArena {
 public:
  // A block may have 227 KiB on the newest GPUs.
  static constexpr std::size_t kBytes = 256 * 1024;

  SharedArena() {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, kBytes + 2 * page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    begin_ = static_cast<std::byte*>(memory) + page;
    mprotect(memory, page, PROT_NONE);
    mprotect(begin_ + kBytes, page, PROT_NONE);
  }
  // NaNs as floats, absurd as integers; different ones each time.
  std::byte* Poisoned(std::size_t bytes, std::mt19937_64* random) {
    const std::size_t rounded = (bytes + 15) / 16 * 16;
    std::byte* data = begin_ + kBytes - rounded;
    const auto bits = static_cast<std::uint32_t>((*random)() | 0x7FC00000U);
    for (std::size_t i = 0; i < rounded; i += sizeof(bits)) {
      std::memcpy(data + i, &bits, sizeof(bits));
    }
    return data;
  }

 private:
  std::byte* begin_;
};

enum class Waits : std::uint8_t { kNothing, kBlock, kWarp, kEnded };

struct Warp {
  Exchange kind = Exchange::kNone;
  int arrived = 0;
  std::uint32_t generation = 0;
  // Two, in turn: a lane can be one exchange ahead of one that has not read yet.
  std::array<Slots, 2> slots;
};

struct Lane : Thread {
  fiber context;
  Waits waits = Waits::kNothing;
  Warp* warp = nullptr;
};

class BlockRun {
 public:
  BlockRun(const GridShape& shape, Index3 block, const std::function<void()>& kernel,
           std::byte* shared, std::mt19937_64* random)
      : kernel_(kernel), random_(random) {
    const unsigned count = shape.block.x * shape.block.y * shape.block.z;
    lanes_.resize(count);
    warps_.resize((count + kLanes - 1) / kLanes);
    for (unsigned i = 0; i < count; ++i) {
      Lane& lane = lanes_[i];
      lane.thread = {i % shape.block.x, i / shape.block.x % shape.block.y,
                     i / shape.block.x / shape.block.y};
      lane.block = block;
      lane.shape = &shape;
      lane.lane = static_cast<int>(i % kLanes);
      lane.shared = shared;
      lane.warp = &warps_[i / kLanes];
    }
  }

  Fault Run();

  static BlockRun* current;
  Lane* self = nullptr;
  fiber scheduler;

  void WaitAtBlockBarrier() {
    ++at_barrier_;
    self->waits = Waits::kBlock;
    if (at_barrier_ == lanes_.size()) {
      at_barrier_ = 0;
      for (Lane& lane : lanes_) lane.waits = Waits::kNothing;
    }
    Yield();
  }
  const Slots& ExchangeValues(Exchange kind, const void* value, std::size_t bytes);

 private:
  void Yield() { scheduler = std::move(scheduler).resume(); }
  bool RunWarp(std::size_t warp);
  void Resume(Lane* lane);
  Fault Stuck() const;

  const std::function<void()>& kernel_;
  std::mt19937_64* random_;
  std::vector<Lane> lanes_;
  std::vector<Warp> warps_;
  std::size_t at_barrier_ = 0;
  std::size_t ended_ = 0;
  Fault fault_;
};

BlockRun* BlockRun::current = nullptr;

const Slots& BlockRun::ExchangeValues(Exchange kind, const void* value, std::size_t bytes) {
  Warp& warp = *self->warp;
  if (warp.arrived == 0) warp.kind = kind;
  if (warp.kind != kind && fault_.empty()) {
    fault_ = "the lanes of a warp take part in different exchanges";
  }
  Slots& slots = warp.slots[warp.generation % 2];
  if (bytes > 0) std::memcpy(slots[static_cast<std::size_t>(self->lane)].data(), value, bytes);
  ++warp.arrived;
  self->waits = Waits::kWarp;
  if (warp.arrived == kLanes) {
    warp.arrived = 0;
    ++warp.generation;
    const auto first = static_cast<std::size_t>(self - lanes_.data()) / kLanes * kLanes;
    for (std::size_t i = first; i < first + kLanes; ++i) lanes_[i].waits = Waits::kNothing;
  }
  Yield();
  return slots;
}

void BlockRun::Resume(Lane* lane) {
  self = lane;
  threadIdx = lane->thread;
  if (!lane->context) {
    lane->context = fiber(std::allocator_arg, CachedStack(), [this, lane](fiber&& caller) {
      scheduler = std::move(caller);
      kernel_();
      lane->waits = Waits::kEnded;
      ++ended_;
      return std::move(scheduler);
    });
  }
  lane->context = std::move(lane->context).resume();
}

// Runs what can run of a warp, its lanes in a new order; false if nothing could.
bool BlockRun::RunWarp(std::size_t warp) {
  const std::size_t first = warp * kLanes;
  std::array<std::size_t, kLanes> order;
  const std::size_t count = std::min<std::size_t>(kLanes, lanes_.size() - first);
  std::iota(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), first);
  const std::uint64_t turn = (*random_)();  // a rotation and a direction: cheap, and enough orders
  std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(turn % count),
              order.begin() + static_cast<std::ptrdiff_t>(count));
  if ((turn >> 32) % 2 == 1) {
    std::reverse(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count));
  }
  bool ran = false;
  for (std::size_t i = 0; i < count; ++i) {
    if (lanes_[order[i]].waits != Waits::kNothing) continue;
    Resume(&lanes_[order[i]]);
    ran = true;
  }
  return ran;
}

Fault BlockRun::Stuck() const {
  std::array<int, 4> count = {};
  for (const Lane& lane : lanes_) ++count[static_cast<std::size_t>(lane.waits)];
  return "threads wait for ever: " + std::to_string(count[1]) + " at the block's barrier, " +
         std::to_string(count[2]) + " in an exchange of their warp, " + std::to_string(count[3]) +
         " have ended";
}

Fault BlockRun::Run() {
  current = this;
  blockIdx = lanes_.front().block;
  std::vector<std::size_t> order(warps_.size());
  std::iota(order.begin(), order.end(), 0);
  while (ended_ < lanes_.size() && fault_.empty()) {
    std::shuffle(order.begin(), order.end(), *random_);
    bool ran = false;
    for (const std::size_t warp : order) {
      // Often far ahead of the other warps, sometimes not.
      while (RunWarp(warp)) {
        ran = true;
        if ((*random_)() % 8 == 0) break;
      }
    }
    if (!ran && fault_.empty()) fault_ = Stuck();
  }
  if (fault_.empty() && lanes_.front().shape->chained) {
    for (const Lane& lane : lanes_) {
      if (!lane.awaited_previous) fault_ = "a thread of a chained kernel never awaits the previous";
    }
  }
  lanes_.clear();  // unwinds the fibers of a kernel that was stopped
  current = nullptr;
  return fault_;
}

std::string Describe(const Index3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

}  // namespace

Thread& Self() { return *BlockRun::current->self; }
void BlockBarrier() { BlockRun::current->WaitAtBlockBarrier(); }
const Slots& ExchangeInWarp(Exchange kind, const void* value, std::size_t bytes) {
  return BlockRun::current->ExchangeValues(kind, value, bytes);
}

Fault RunGrid(const GridShape& shape, const std::function<void()>& kernel, std::uint64_t seed) {
  static auto* arena = new SharedArena;
  const std::size_t threads = std::size_t{shape.block.x} * shape.block.y * shape.block.z;
  if (threads == 0 || threads > kMaxThreads || threads % kLanes != 0) {
    return "a block of " + std::to_string(threads) + " threads: 32 to 1024 in whole warps";
  }
  if (shape.shared_bytes > SharedArena::kBytes) return "too much shared memory";
  std::mt19937_64 random(seed);
  gridDim = shape.grid;
  blockDim = shape.block;
  std::vector<unsigned> order(shape.grid.x * shape.grid.y * shape.grid.z);
  std::iota(order.begin(), order.end(), 0U);
  std::shuffle(order.begin(), order.end(), random);
  for (const unsigned i : order) {
    const Index3 block = {i % shape.grid.x, i / shape.grid.x % shape.grid.y,
                          i / shape.grid.x / shape.grid.y};
    BlockRun run(shape, block, kernel, arena->Poisoned(shape.shared_bytes, &random), &random);
    Fault fault = run.Run();
    if (!fault.empty()) return fault + "; block " + Describe(block) + " of " + Describe(shape.grid);
  }
  return {};
}

}  // namespace millrace::emulation

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

enum class Waits : std::uint8_t { kNothing, kBlock, kWarp, kEnded, kPrevious };

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
    std::uint64_t coins = 0;
    for (unsigned i = 0; i < count; ++i) {
      if (i % 64 == 0) coins = (*random)();
      Lane& lane = lanes_[i];
      lane.copies_at_once = (coins >> (i % 64)) % 2 == 1;
      lane.thread = {i % shape.block.x, i / shape.block.x % shape.block.y,
                     i / shape.block.x / shape.block.y};
      lane.block = block;
      lane.shape = &shape;
      lane.lane = static_cast<int>(i % kLanes);
      lane.shared = shared;
      lane.warp = &warps_[i / kLanes];
    }
  }

  // Runs what does not await the kernel before.
  void Begin();
  // Runs for a while; true when the block has ended, or is stopped by a fault.
  bool Advance();
  // Other blocks should go first.
  bool set_aside() const { return set_aside_; }
  // What it did wrong. REQUIRES: Advance returned true.
  Fault End();

  static BlockRun* current;
  Lane* self = nullptr;
  fiber scheduler;

  bool WaitAtBlockBarrier(bool predicate) {
    // Two, in turn: a thread can be one barrier ahead of one that has not read yet.
    bool& any = any_[barrier_ % 2];
    any = any || predicate;
    ++at_barrier_;
    self->waits = Waits::kBlock;
    if (at_barrier_ == lanes_.size()) {
      at_barrier_ = 0;
      ++barrier_;
      any_[barrier_ % 2] = false;
      for (Lane& lane : lanes_) lane.waits = Waits::kNothing;
    }
    Yield();
    return any;
  }
  const Slots& ExchangeValues(Exchange kind, const void* value, std::size_t bytes);
  void SetAsideSometimes() { set_aside_ = set_aside_ || (*random_)() % 2 == 0; }
  void AwaitPrevious() {
    self->awaited_previous = true;
    if (!early_) return;
    self->waits = Waits::kPrevious;
    Yield();
  }

 private:
  void Yield() { scheduler = std::move(scheduler).resume(); }
  bool RunWarp(std::size_t warp);
  void TakeTurn();
  bool stopped() const { return ended_ == lanes_.size() || !fault_.empty(); }
  void Resume(Lane* lane);
  Fault Stuck() const;

  const std::function<void()>& kernel_;
  std::mt19937_64* random_;
  std::vector<Lane> lanes_;
  std::vector<Warp> warps_;
  std::size_t at_barrier_ = 0;
  std::uint32_t barrier_ = 0;  // how many the block has passed
  std::array<bool, 2> any_ = {};
  std::size_t ended_ = 0;
  bool early_ = false;  // the kernel before has not run
  Fault fault_;
  // The round of the warps that is under way.
  std::vector<std::size_t> round_;
  bool ran_in_round_ = true;
  bool set_aside_ = false;
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
  std::array<int, 5> count = {};
  for (const Lane& lane : lanes_) ++count[static_cast<std::size_t>(lane.waits)];
  return "threads wait for ever: " + std::to_string(count[1]) + " at the block's barrier, " +
         std::to_string(count[2]) + " in an exchange of their warp, " + std::to_string(count[3]) +
         " have ended";
}

// The next warp of the round; a round in which none could run is a fault.
void BlockRun::TakeTurn() {
  if (round_.empty()) {
    if (!ran_in_round_) {
      fault_ = Stuck();
      return;
    }
    ran_in_round_ = false;
    round_.resize(warps_.size());
    std::iota(round_.begin(), round_.end(), 0);
    std::shuffle(round_.begin(), round_.end(), *random_);
  }
  const std::size_t warp = round_.back();
  round_.pop_back();
  // Often far ahead of the other warps, sometimes not.
  while (RunWarp(warp)) {
    ran_in_round_ = true;
    if (set_aside_ || (*random_)() % 8 == 0) break;
  }
}

void BlockRun::Begin() {
  current = this;
  blockIdx = lanes_.front().block;
  early_ = true;
  bool ran = true;
  while (fault_.empty() && ran) {
    ran = false;
    for (std::size_t warp = 0; warp < warps_.size(); ++warp) ran = RunWarp(warp) || ran;
  }
  early_ = false;
  for (Lane& lane : lanes_) {
    if (lane.waits == Waits::kPrevious) lane.waits = Waits::kNothing;
  }
  current = nullptr;
}

// Half of the time to its end or to where it is set aside, so that other blocks are far behind;
// else for one turn.
bool BlockRun::Advance() {
  current = this;
  blockIdx = lanes_.front().block;
  const bool to_the_end = (*random_)() % 2 == 0;
  set_aside_ = false;
  do {
    if (!stopped()) TakeTurn();
  } while (to_the_end && !stopped() && !set_aside_);
  current = nullptr;
  return stopped();
}

Fault BlockRun::End() {
  current = this;
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
bool BlockBarrier(bool predicate) { return BlockRun::current->WaitAtBlockBarrier(predicate); }
const Slots& ExchangeInWarp(Exchange kind, const void* value, std::size_t bytes) {
  return BlockRun::current->ExchangeValues(kind, value, bytes);
}

void AfterAtomic() { BlockRun::current->SetAsideSometimes(); }
void AwaitPreviousGrid() { BlockRun::current->AwaitPrevious(); }

namespace {

// Blocks of a grid that begin early: each holds its threads' stacks and shared memory meanwhile.
constexpr std::size_t kEarlyBlocks = 2;
// Blocks of a grid that run beside each other.
constexpr std::size_t kBlocksAtOnce = 2;

// Shared memory for blocks that began and have not ended: those of two grids.
class Arenas {
 public:
  std::unique_ptr<SharedArena> Take() {
    if (free_.empty()) return std::make_unique<SharedArena>();
    std::unique_ptr<SharedArena> arena = std::move(free_.back());
    free_.pop_back();
    return arena;
  }
  void Give(std::unique_ptr<SharedArena> arena) { free_.push_back(std::move(arena)); }
  static Arenas& Get() {
    static auto* arenas = new Arenas;  // outlives every grid
    return *arenas;
  }

 private:
  std::vector<std::unique_ptr<SharedArena>> free_;
};

}  // namespace

class Grid::Parts {
 public:
  Parts(const GridShape& shape_in, std::function<void()> kernel_in, std::uint64_t seed)
      : shape(shape_in), kernel(std::move(kernel_in)), random(seed) {
    order.resize(std::size_t{shape.grid.x} * shape.grid.y * shape.grid.z);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), random);
  }
  ~Parts() {
    for (Held& held : blocks) {
      held.run.reset();
      if (held.arena != nullptr) Arenas::Get().Give(std::move(held.arena));
    }
  }

  struct Held {
    std::unique_ptr<SharedArena> arena;
    std::unique_ptr<BlockRun> run;
  };

  Index3 BlockAt(std::size_t i) const {
    const unsigned n = order[i];
    return {n % shape.grid.x, n / shape.grid.x % shape.grid.y, n / shape.grid.x / shape.grid.y};
  }
  // A block with shared memory of its own.
  Held Make(std::size_t i) {
    Held held = {Arenas::Get().Take(), nullptr};
    std::byte* shared = held.arena->Poisoned(shape.shared_bytes, &random);
    held.run = std::make_unique<BlockRun>(shape, BlockAt(i), kernel, shared, &random);
    return held;
  }
  Fault Check() const;
  void Enter() const {
    gridDim = shape.grid;
    blockDim = shape.block;
  }

  const GridShape shape;
  const std::function<void()> kernel;
  std::mt19937_64 random;
  std::vector<unsigned> order;
  std::vector<Held> blocks;  // that have begun, by their place in the order
};

Fault Grid::Parts::Check() const {
  const std::size_t threads = std::size_t{shape.block.x} * shape.block.y * shape.block.z;
  if (threads == 0 || threads > kMaxThreads || threads % kLanes != 0) {
    return "a block of " + std::to_string(threads) + " threads: 32 to 1024 in whole warps";
  }
  if (shape.shared_bytes > SharedArena::kBytes) return "too much shared memory";
  return {};
}

Grid::Grid(const GridShape& shape, std::function<void()> kernel, std::uint64_t seed)
    : parts_(std::make_unique<Parts>(shape, std::move(kernel), seed)) {}
Grid::~Grid() = default;

void Grid::Begin() {
  if (!parts_->Check().empty()) return;  // Run says it
  parts_->Enter();
  while (parts_->blocks.size() < std::min(kEarlyBlocks, parts_->order.size())) {
    parts_->blocks.push_back(parts_->Make(parts_->blocks.size()));
    parts_->blocks.back().run->Begin();
  }
}

Fault Grid::Run() {
  if (Fault fault = parts_->Check(); !fault.empty()) return fault;
  parts_->Enter();
  std::vector<std::size_t> running;  // places in the order
  std::vector<Parts::Held>& blocks = parts_->blocks;
  for (std::size_t next = 0; next < parts_->order.size() || !running.empty();) {
    while (running.size() < kBlocksAtOnce && next < parts_->order.size()) {
      if (next == blocks.size()) blocks.push_back(parts_->Make(next));
      running.push_back(next++);
    }
    const std::size_t turn = parts_->random() % running.size();
    Parts::Held& block = blocks[running[turn]];
    if (block.run->set_aside() && parts_->random() % 4 != 0) continue;
    if (!block.run->Advance()) continue;
    Fault fault = block.run->End();
    block.run.reset();
    Arenas::Get().Give(std::move(block.arena));
    if (!fault.empty()) {
      return fault + "; block " + Describe(parts_->BlockAt(running[turn])) + " of " +
             Describe(parts_->shape.grid);
    }
    running.erase(running.begin() + static_cast<std::ptrdiff_t>(turn));
  }
  return {};
}

}  // namespace millrace::emulation

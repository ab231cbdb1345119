// The emulated GPU shows the mistakes it is there to show.
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/last_block.h"
#include "kernels/cuda/launch.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/emulation/machine.h"

namespace millrace::cuda {
namespace {

using millrace::testing::DeviceArray;

constexpr int kThreads = 128;

class EmulationTest : public ::testing::Test {
 protected:
  void SetUp() override { emulation::Start({}); }
  void TearDown() override { emulation::Start({}); }
};

// Each thread writes its index and reads that of the thread opposite, which another warp wrote.
__global__ void Mirror(int* out, bool with_barrier) {
  int* shared = BlockShared<int>();
  const int i = static_cast<int>(threadIdx.x);
  shared[i] = i;
  if (with_barrier) SyncBlock();
  out[i] = shared[kThreads - 1 - i];
}

TEST_F(EmulationTest, ABarrierOrdersSharedMemoryAndAMissingOneShows) {
  DeviceArray<int> out(kThreads);
  const LaunchShape shape = {dim3(1), dim3(kThreads), kThreads * sizeof(int)};
  ASSERT_EQ(Launch(Mirror, shape, nullptr, out.data(), true), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  std::vector<int> expected(kThreads);
  for (int i = 0; i < kThreads; ++i) expected[static_cast<std::size_t>(i)] = kThreads - 1 - i;
  EXPECT_EQ(out.Read(), expected);

  ASSERT_EQ(Launch(Mirror, shape, nullptr, out.data(), false), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_NE(out.Read(), expected);
}

__global__ void HalfWait(int* out) {
  if (threadIdx.x < kThreads / 2) SyncBlock();
  out[threadIdx.x] = 1;
}

TEST_F(EmulationTest, ABarrierThatOthersNeverReachIsAFaultThatStays) {
  DeviceArray<int> out(kThreads);
  ASSERT_EQ(Launch(HalfWait, {dim3(1), dim3(kThreads)}, nullptr, out.data()), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(emulation::LastFault(), ::testing::HasSubstr("64 at the block's barrier"));
  int* more = nullptr;
  EXPECT_EQ(cudaMalloc(&more, 4), cudaErrorLaunchFailure);
}

__global__ void DivergentShuffle(int* out) {
  int value = static_cast<int>(threadIdx.x);
  if (threadIdx.x % 2 == 0) value = Shuffle(value, 0);
  out[threadIdx.x] = value;
}

TEST_F(EmulationTest, AnExchangeThatSomeLanesLeaveOutIsAFault) {
  DeviceArray<int> out(kThreads);
  ASSERT_EQ(Launch(DivergentShuffle, {dim3(1), dim3(kThreads)}, nullptr, out.data()), cudaSuccess);
  cudaDeviceSynchronize();
  EXPECT_THAT(emulation::LastFault(), ::testing::HasSubstr("in an exchange of their warp"));
}

__global__ void BehindShared(int* out) { out[0] = BlockShared<int>()[kThreads + threadIdx.x]; }
__global__ void BehindGlobal(int* out) { out[kThreads + threadIdx.x] = 1; }

TEST_F(EmulationTest, AccessBehindSharedOrGlobalMemoryEndsTheTest) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [](void (*kernel)(int*)) {
    emulation::Start({});
    DeviceArray<int> out(kThreads);
    const LaunchShape shape = {dim3(1), dim3(kThreads), kThreads * sizeof(int)};
    EXPECT_EQ(Launch(kernel, shape, nullptr, out.data()), cudaSuccess);
    cudaDeviceSynchronize();
  };
  EXPECT_DEATH(run(BehindShared), "");
  EXPECT_DEATH(run(BehindGlobal), "");
}

__global__ void Stage(const int* in, int* out, bool wait) {
  int* shared = BlockShared<int>();
  const unsigned i = threadIdx.x;
  if (i < kThreads / 4) CopyAsync16(shared + 4 * i, in + 4 * i);
  CommitCopies();
  if (wait) WaitCopies<0>();
  SyncBlock();
  out[i] = shared[i];
}

TEST_F(EmulationTest, TheHostCannotTouchDeviceMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto touch = [] {
    emulation::Start({});
    DeviceArray<int> out(kThreads);
    *static_cast<volatile int*>(out.data()) = 1;
  };
  EXPECT_DEATH(touch(), "");
}

TEST_F(EmulationTest, ACopyThatNobodyAwaitsIsThereForSomeThreadsOnly) {
  DeviceArray<int> in(kThreads);
  DeviceArray<int> out(kThreads);
  std::vector<int> values(kThreads);
  for (int i = 0; i < kThreads; ++i) values[static_cast<std::size_t>(i)] = 7 * i;
  in.Fill(values);
  const LaunchShape shape = {dim3(1), dim3(kThreads), kThreads * sizeof(int)};
  ASSERT_EQ(Launch(Stage, shape, nullptr, in.data(), out.data(), true), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(out.Read(), values);
  ASSERT_EQ(Launch(Stage, shape, nullptr, in.data(), out.data(), false), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<int> seen = out.Read();
  int there = 0;
  for (std::size_t i = 0; i < kThreads; ++i) there += seen[i] == values[i] ? 1 : 0;
  EXPECT_GT(there, 0);
  EXPECT_LT(there, kThreads);
}

// Shuffles, in each kind; out is [4][32].
__global__ void Shuffles(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = Shuffle(10 * lane, 5);
  out[32 + lane] = ShuffleXor(10 * lane, 8);
  out[64 + lane] = ShuffleDown(10 * lane, 3);
  out[96 + lane] = static_cast<int>(Ballot(lane % 3 == 0));
}

TEST_F(EmulationTest, ShufflesAndBallotsAreThoseOfCuda) {
  DeviceArray<int> out(128);
  ASSERT_EQ(Launch(Shuffles, {dim3(1), dim3(32)}, nullptr, out.data()), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<int> values = out.Read();
  std::uint32_t thirds = 0;
  for (int i = 0; i < 32; i += 3) thirds |= 1U << i;
  for (int lane = 0; lane < 32; ++lane) {
    const auto i = static_cast<std::size_t>(lane);
    EXPECT_EQ(values[i], 50);
    EXPECT_EQ(values[32 + i], 10 * (lane ^ 8));
    EXPECT_EQ(values[64 + i], 10 * (lane < 29 ? lane + 3 : lane));
    EXPECT_EQ(static_cast<std::uint32_t>(values[96 + i]), thirds);
  }
}

// A is [16][k] and B [8][k] of bytes (B as columns), D [16][8]: the fragments loaded as PTX says.
template <int kDepth>
__global__ void Multiply(const std::int8_t* a, const std::int8_t* b, int* d) {
  const int lane = static_cast<int>(threadIdx.x);
  const int g = lane / 4;
  const int t = lane % 4;
  const auto word = [](const std::int8_t* rows, int row, int k) {
    std::uint32_t bytes = 0;
    for (int i = 0; i < 4; ++i) {
      bytes |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(rows[row * kDepth + k + i]))
               << (8 * i);
    }
    return bytes;
  };
  int sums[4] = {1, 2, 3, 4};
  if constexpr (kDepth == 32) {
    const std::uint32_t left[4] = {word(a, g, 4 * t), word(a, g + 8, 4 * t), word(a, g, 16 + 4 * t),
                                   word(a, g + 8, 16 + 4 * t)};
    const std::uint32_t right[2] = {word(b, g, 4 * t), word(b, g, 16 + 4 * t)};
    MmaS8K32(sums, left, right);
  } else {
    const std::uint32_t left[2] = {word(a, g, 4 * t), word(a, g + 8, 4 * t)};
    const std::uint32_t right[1] = {word(b, g, 4 * t)};
    MmaS8K16(sums, left, right);
  }
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i] - (i + 1);
}

template <int kDepth>
void ExpectMatrixProduct() {
  std::mt19937 random(3);
  std::vector<std::int8_t> a(16 * kDepth);
  std::vector<std::int8_t> b(8 * kDepth);
  for (auto& value : a) value = static_cast<std::int8_t>(random());
  for (auto& value : b) value = static_cast<std::int8_t>(random());
  DeviceArray<std::int8_t> device_a(a.size());
  DeviceArray<std::int8_t> device_b(b.size());
  DeviceArray<int> device_d(16 * 8);
  device_a.Fill(a);
  device_b.Fill(b);
  ASSERT_EQ(Launch(Multiply<kDepth>, {dim3(1), dim3(32)}, nullptr, device_a.data(), device_b.data(),
                   device_d.data()),
            cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<int> d = device_d.Read();
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      int expected = 0;
      for (std::size_t k = 0; k < kDepth; ++k)
        expected += a[row * kDepth + k] * b[column * kDepth + k];
      EXPECT_EQ(d[row * 8 + column], expected) << row << ", " << column;
    }
  }
}

TEST_F(EmulationTest, MatrixProductsAreThoseOfTheirFragments) {
  ExpectMatrixProduct<32>();
  ExpectMatrixProduct<16>();
}

__global__ void Increment(int* value) {
  AwaitPrevious();
  if (threadIdx.x == 0) ++*value;
}
__global__ void NeverAwaits(int* value) {
  if (threadIdx.x == 0) ++*value;
}

TEST_F(EmulationTest, WorkRunsWhenSomethingWaitsForItAndGraphsRunItAgain) {
  DeviceArray<int> value(1);
  value.Fill(std::vector<int>{5});
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(Launch(Increment, {dim3(1), dim3(32)}, stream, value.data()), cudaSuccess);
  EXPECT_EQ(value.Read(), std::vector<int>{5});  // of another stream: it waits for nothing here
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(value.Read(), std::vector<int>{6});

  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(Launch(Increment, {dim3(1), dim3(32), 0, true}, stream, value.data()), cudaSuccess);
  int* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(value.Read(), std::vector<int>{9});
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(EmulationTest, AGraphRunsAgainAfterASmallerLaunchOfItsKernel) {
  DeviceArray<int> out(kThreads);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  const auto mirror = [&](std::size_t shared_bytes) {
    const LaunchShape shape = {dim3(1), dim3(kThreads), shared_bytes};
    return Launch(Mirror, shape, stream, out.data(), true);
  };
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(mirror(70 * 1024), cudaSuccess);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
  ASSERT_EQ(mirror(50 * 1024), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(EmulationTest, AChainedKernelAwaitsTheOneBefore) {
  DeviceArray<int> value(1);
  ASSERT_EQ(Launch(NeverAwaits, {dim3(1), dim3(32), 0, true}, nullptr, value.data()), cudaSuccess);
  cudaDeviceSynchronize();
  EXPECT_THAT(emulation::LastFault(), ::testing::HasSubstr("never awaits the previous"));
}

__global__ void CopyOne(const int* from, int* to, bool early) {
  const int before = early ? *from : 0;
  AwaitPrevious();
  if (threadIdx.x == 0) *to = early ? before : *from;
}

TEST_F(EmulationTest, WhatAChainedKernelReadsTooEarlyIsOld) {
  for (const bool early : {false, true}) {
    DeviceArray<int> in(1);
    DeviceArray<int> out(1);
    in.Fill(std::vector<int>{5});
    ASSERT_EQ(Launch(Increment, {dim3(1), dim3(32)}, nullptr, in.data()), cudaSuccess);
    const auto chained = [&] {
      return Launch(CopyOne, {dim3(1), dim3(32), 0, true}, nullptr, in.data(), out.data(), early);
    };
    ASSERT_EQ(chained(), cudaSuccess);
    EXPECT_EQ(out.Read(), std::vector<int>{early ? 5 : 6});
    EXPECT_EQ(emulation::LastFault(), "");
    // Behind a copy it begins no earlier.
    in.Fill(std::vector<int>{9});
    ASSERT_EQ(chained(), cudaSuccess);
    EXPECT_EQ(out.Read(), std::vector<int>{9});
  }
}

TEST_F(EmulationTest, ACopyFromPageableMemoryIsThereWhenTheDefaultStreamIsAwaited) {
  DeviceArray<int> value(1);
  value.Fill(std::vector<int>{5});
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  value.Fill(std::vector<int>{7});
  ASSERT_EQ(Launch(Increment, {dim3(1), dim3(32)}, stream, value.data()), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(value.Read(), std::vector<int>{7});  // over what the kernel made of the 5
  ASSERT_EQ(Launch(Increment, {dim3(1), dim3(32)}, stream, value.data()), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(value.Read(), std::vector<int>{8});
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(EmulationTest, AThreadLaunchesOnStreamsOfItsDeviceOnly) {
  emulation::Start({.devices = 2});
  DeviceArray<int> value(1);
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  const auto launch = [&] { return Launch(Increment, {dim3(1), dim3(32)}, stream, value.data()); };
  EXPECT_EQ(launch(), cudaSuccess);
  std::thread([&] { EXPECT_EQ(launch(), cudaErrorInvalidResourceHandle); }).join();
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
}

TEST_F(EmulationTest, PlannedFaultsComeWhenTheyAreDue) {
  emulation::FailLater(emulation::Call::kMalloc, 1, cudaErrorMemoryAllocation, false);
  int* first = nullptr;
  int* second = nullptr;
  EXPECT_EQ(cudaMalloc(&first, 4), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 4), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&second, 4), cudaSuccess);
  emulation::FailLater(emulation::Call::kLaunch, 0, cudaErrorEccUncorrectable, true);
  EXPECT_EQ(Launch(Increment, {dim3(1), dim3(32)}, nullptr, first), cudaErrorEccUncorrectable);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorEccUncorrectable);
  EXPECT_EQ(cudaFree(first), cudaErrorEccUncorrectable);  // and it is free
  cudaFree(second);
  EXPECT_EQ(emulation::DeviceBytes(), 0U);
}

TEST_F(EmulationTest, HungWorkIsNeverReadyUntilReleased) {
  DeviceArray<int> value(1);
  value.Fill(std::vector<int>{0});
  emulation::HangLater(0);
  ASSERT_EQ(Launch(Increment, {dim3(1), dim3(32)}, nullptr, value.data()), cudaSuccess);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(cudaStreamQuery(nullptr), cudaErrorNotReady);
  emulation::Release();
  EXPECT_EQ(value.Read(), std::vector<int>{1});
}

// Blocks (x, y) of group x write values; the last one of a group adds them up.
constexpr int kOfGroup = 3;

__device__ void AddUp(const int* values, int* sum) {
  int* shared = BlockShared<int>();
  const auto thread = static_cast<int>(threadIdx.x);
  shared[thread] = 0;
  for (int i = thread; i < kOfGroup * kThreads; i += kThreads) shared[thread] += values[i];
  SyncBlock();
  if (thread != 0) return;
  for (int i = 0; i < kThreads; ++i) *sum += shared[i];
}
__global__ void SumsOfGroups(int* values, std::int32_t* counters, int* sums, bool careless) {
  AwaitPrevious();
  const auto group = static_cast<int>(blockIdx.x);
  const auto thread = static_cast<int>(threadIdx.x);
  int* own = values + (group * kOfGroup + static_cast<int>(blockIdx.y)) * kThreads;
  own[thread] += thread + group;
  bool last = false;
  if (careless) {  // what the first thread says of all is not so
    if (thread == 0) {
      last = AtomicAdd(counters + group, 1) == kOfGroup - 1;
      if (last) counters[group] = 0;
    }
    last = SyncBlockOr(last);
  } else {
    last = IsLastBlock(counters + group, kOfGroup);
  }
  if (last) AddUp(values + group * kOfGroup * kThreads, sums + group);
}

// Whether two launches behind each other add up all that the blocks of every group write.
bool SumsAreWhole(std::uint64_t seed, bool careless) {
  constexpr int kGroups = 5;
  emulation::Start({.seed = seed});
  DeviceArray<int> values(kGroups * kOfGroup * kThreads);
  DeviceArray<int> sums(kGroups);
  DeviceArray<std::int32_t> counters(kGroups);
  values.Fill(std::vector<int>(values.size()));
  sums.Fill(std::vector<int>(kGroups));
  counters.Fill(std::vector<std::int32_t>(kGroups));
  const LaunchShape shape = {dim3(kGroups, kOfGroup), dim3(kThreads), kThreads * sizeof(int), true};
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(
        Launch(SumsOfGroups, shape, nullptr, values.data(), counters.data(), sums.data(), careless),
        cudaSuccess);
  }
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(counters.Read(), std::vector<std::int32_t>(kGroups));
  std::vector<int> expected;
  for (int group = 0; group < kGroups; ++group) {
    // Once as written by the first launch, once with what the second added.
    expected.push_back(3 * kOfGroup * (kThreads * (kThreads - 1) / 2 + kThreads * group));
  }
  return sums.Read() == expected;
}

TEST_F(EmulationTest, TheLastBlockOfAGroupSeesWhatAllOfThemWrote) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) EXPECT_TRUE(SumsAreWhole(seed, false)) << seed;
}

TEST_F(EmulationTest, ABlockThatCountsBeforeItsThreadsHaveWrittenShows) {
  int wrong = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) wrong += SumsAreWhole(seed, true) ? 0 : 1;
  EXPECT_GE(wrong, 3);
}

}  // namespace
}  // namespace millrace::cuda

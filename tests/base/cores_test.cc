#include "base/cores.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/memory.h"

namespace millrace {
namespace {

// A recorded tree of /proc and /sys in a folder of its own.
class Tree {
 public:
  Tree()
      : root_(std::filesystem::temp_directory_path() /
              ("millrace-tree-" + std::to_string(counter_++) + "-" + std::to_string(::getpid()))) {}
  ~Tree() { std::filesystem::remove_all(root_); }

  Tree& Write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = root_ / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
    return *this;
  }
  std::string root() const { return root_.string(); }

 private:
  static inline int counter_ = 0;
  const std::filesystem::path root_;
};

TEST(Cores, ReadsTheKernelsListsOfCpus) {
  EXPECT_EQ(ParseCpuList("0-3,8"), (std::vector<int>{0, 1, 2, 3, 8}));
  EXPECT_EQ(ParseCpuList("5"), (std::vector<int>{5}));
  EXPECT_TRUE(ParseCpuList("").empty());
}

TEST(Cores, CountsHyperThreadsOfOneCoreOnce) {
  Tree tree;
  for (int cpu = 0; cpu < 4; ++cpu) {
    tree.Write(
        "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
        cpu % 2 == 0 ? "0,2\n" : "1,3\n");
  }
  EXPECT_EQ(CountPhysicalCores({0, 1, 2, 3}, tree.root()), 2);
  EXPECT_EQ(CountPhysicalCores({1, 3}, tree.root()), 1);
}

TEST(Cores, CountsACpuWithoutTopologyAsACore) {
  EXPECT_EQ(CountPhysicalCores({0, 1}, "/nowhere"), 2);
}

TEST(Cores, RoundsTheQuotaOfVersion2Up) {
  Tree tree;
  tree.Write("proc/self/cgroup", "0::/a/b\n").Write("sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
  EXPECT_EQ(CgroupCpuLimit(tree.root()), 3);
}

TEST(Cores, TakesTheSmallestQuotaOfTheGroupsAbove) {
  Tree tree;
  tree.Write("proc/self/cgroup", "0::/a/b\n")
      .Write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
      .Write("sys/fs/cgroup/a/cpu.max", "100000 100000\n");
  EXPECT_EQ(CgroupCpuLimit(tree.root()), 1);
}

TEST(Cores, ReadsTheQuotaOfVersion1) {
  Tree tree;
  tree.Write("proc/self/cgroup", "3:memory:/m\n2:cpu,cpuacct:/x\n")
      .Write("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n")
      .Write("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpuLimit(tree.root()), 2);
}

TEST(Cores, SeesNoLimitWhereThereIsNone) {
  Tree tree;
  tree.Write("proc/self/cgroup", "0::/\n").Write("sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_EQ(CgroupCpuLimit(tree.root()), std::nullopt);
  EXPECT_EQ(CgroupCpuLimit("/nowhere"), std::nullopt);
  EXPECT_GE(AvailableCores(), 1);
}

TEST(Memory, ReadsWhatTheMachineHasFree) {
  Tree tree;
  tree.Write("proc/meminfo", "MemTotal:       24000000 kB\nMemAvailable:   12000000 kB\n");
  EXPECT_EQ(MachineAvailableBytes(tree.root()), std::int64_t{12000000} * 1024);
  EXPECT_EQ(MachineAvailableBytes("/nowhere"), std::nullopt);
}

TEST(Memory, CountsThePageCacheOfAGroupAsFree) {
  Tree tree;
  tree.Write("proc/self/cgroup", "0::/a\n")
      .Write("sys/fs/cgroup/a/memory.max", "1000\n")
      .Write("sys/fs/cgroup/a/memory.current", "700\n")
      .Write("sys/fs/cgroup/a/memory.stat", "anon 400\ninactive_file 300\n");
  EXPECT_EQ(CgroupAvailableBytes(tree.root()), 600);
}

TEST(Memory, TakesTheTightestGroupOfVersion1) {
  Tree tree;
  tree.Write("proc/self/cgroup", "4:memory:/x/y\n")
      .Write("sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712\n")
      .Write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "5000\n")
      .Write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1000\n");
  EXPECT_EQ(CgroupAvailableBytes(tree.root()), 4000);
}

TEST(Memory, IsKnownOnThisMachine) { EXPECT_GT(AvailableMemoryBytes(), 0); }

}  // namespace
}  // namespace millrace

// How many cores this process may really use: the affinity mask, with hyper-threads of one core
// counted once, and the CPU quota of its control group (v1 or v2). Thread-safe.
#ifndef MILLRACE_BASE_CORES_H_
#define MILLRACE_BASE_CORES_H_

#include <optional>
#include <string>
#include <vector>

namespace millrace {

// CPUs in "0-3,8" as the kernel writes lists.
std::vector<int> ParseCpuList(const std::string& list);

// Physical cores behind `cpus`, by <root>/sys/devices/system/cpu/cpuN/topology; a CPU without the
// file counts as a core of its own.
int CountPhysicalCores(const std::vector<int>& cpus, const std::string& root);

// CPUs' worth of time that the control group of this process allows, rounded up; nullopt without a
// limit. Reads <root>/proc/self/cgroup and the groups up to the top below <root>/sys/fs/cgroup.
std::optional<int> CgroupCpuLimit(const std::string& root);

// min of the two for this process; >= 1.
int AvailableCores();

}  // namespace millrace

#endif  // MILLRACE_BASE_CORES_H_

#include "base/cores.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

namespace millrace {
namespace {

std::optional<std::string> FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

// quota / period, or nullopt for "max", -1 and what is no number.
std::optional<double> Share(const std::string& quota, const std::string& period) {
  double q = 0;
  double p = 0;
  const auto a = std::from_chars(quota.data(), quota.data() + quota.size(), q);
  const auto b = std::from_chars(period.data(), period.data() + period.size(), p);
  if (a.ec != std::errc() || b.ec != std::errc() || q <= 0 || p <= 0) return std::nullopt;
  return q / p;
}

std::optional<double> ShareV2(const std::string& group) {
  const auto line = FirstLine(group + "/cpu.max");
  if (!line) return std::nullopt;
  std::istringstream words(*line);
  std::string quota;
  std::string period;
  words >> quota >> period;
  return Share(quota, period);
}

std::optional<double> ShareV1(const std::string& group) {
  const auto quota = FirstLine(group + "/cpu.cfs_quota_us");
  const auto period = FirstLine(group + "/cpu.cfs_period_us");
  if (!quota || !period) return std::nullopt;
  return Share(*quota, *period);
}

// The smallest share of `path` and the groups above it: each of them limits.
std::optional<double> SmallestShare(const std::string& mount, std::string path,
                                    std::optional<double> (*share)(const std::string&)) {
  std::optional<double> smallest;
  while (true) {
    const auto here = share(mount + path);
    if (here && (!smallest || *here < *smallest)) smallest = here;
    if (path.empty()) return smallest;
    path.resize(path == "/" ? 0 : path.rfind('/'));
  }
}

}  // namespace

std::vector<int> ParseCpuList(const std::string& list) {
  std::vector<int> cpus;
  std::istringstream parts(list);
  std::string part;
  while (std::getline(parts, part, ',')) {
    int first = 0;
    const auto begin = std::from_chars(part.data(), part.data() + part.size(), first);
    if (begin.ec != std::errc()) continue;
    int last = first;
    if (begin.ptr != part.data() + part.size() && *begin.ptr == '-') {
      std::from_chars(begin.ptr + 1, part.data() + part.size(), last);
    }
    for (int cpu = first; cpu <= std::min(last, first + CPU_SETSIZE); ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

int CountPhysicalCores(const std::vector<int>& cpus, const std::string& root) {
  std::set<int> cores;
  for (const int cpu : cpus) {
    const auto siblings = FirstLine(root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                                    "/topology/thread_siblings_list");
    const std::vector<int> list = siblings ? ParseCpuList(*siblings) : std::vector<int>();
    cores.insert(list.empty() ? cpu : list.front());
  }
  return static_cast<int>(cores.size());
}

std::optional<int> CgroupCpuLimit(const std::string& root) {
  std::ifstream groups(root + "/proc/self/cgroup");
  std::optional<double> smallest;
  std::string line;
  while (std::getline(groups, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    const std::string mount = root + "/sys/fs/cgroup";
    std::optional<double> share;
    if (controllers.empty()) {
      share = SmallestShare(mount, path, ShareV2);
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      share = SmallestShare(mount + "/cpu", path, ShareV1);
      const auto joint = SmallestShare(mount + "/cpu,cpuacct", path, ShareV1);
      if (joint && (!share || *joint < *share)) share = joint;
    }
    if (share && (!smallest || *share < *smallest)) smallest = share;
  }
  if (!smallest) return std::nullopt;
  return std::max(1, static_cast<int>(std::ceil(*smallest)));
}

int AvailableCores() {
  cpu_set_t mask;
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
    }
  }
  const int cores = std::max(1, CountPhysicalCores(cpus, ""));
  return std::min(cores, CgroupCpuLimit("").value_or(cores));
}

}  // namespace millrace

#include "base/memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace millrace {
namespace {

// cgroup v1 says "no limit" with the largest multiple of a page; no machine has this much.
constexpr std::int64_t kNoLimit = std::int64_t{1} << 60;

std::optional<std::int64_t> NumberIn(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  if (!(file >> word)) return std::nullopt;
  std::int64_t value = 0;
  const auto parsed = std::from_chars(word.data(), word.data() + word.size(), value);
  if (parsed.ec != std::errc() || value >= kNoLimit) return std::nullopt;
  return value;
}

// The value of `key` in a file of "key value" lines; 0 if absent.
std::int64_t FieldIn(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  std::int64_t value = 0;
  while (file >> name >> value) {
    if (name == key) return value;
  }
  return 0;
}

struct GroupFiles {
  const char* limit;
  const char* usage;
  const char* cache_field;  // of memory.stat
};
constexpr GroupFiles kV2 = {"/memory.max", "/memory.current", "inactive_file"};
constexpr GroupFiles kV1 = {"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                            "total_inactive_file"};

std::optional<std::int64_t> GroupAvailable(const std::string& group, const GroupFiles& files) {
  const auto limit = NumberIn(group + files.limit);
  if (!limit) return std::nullopt;
  const std::int64_t used = NumberIn(group + files.usage).value_or(0) -
                            FieldIn(group + "/memory.stat", files.cache_field);
  return std::max<std::int64_t>(0, *limit - std::max<std::int64_t>(0, used));
}

std::optional<std::int64_t> SmallestAvailable(const std::string& mount, std::string path,
                                              const GroupFiles& files) {
  std::optional<std::int64_t> smallest;
  while (true) {
    const auto here = GroupAvailable(mount + path, files);
    if (here && (!smallest || *here < *smallest)) smallest = here;
    if (path.empty()) return smallest;
    path.resize(path == "/" ? 0 : path.rfind('/'));
  }
}

}  // namespace

std::optional<std::int64_t> MachineAvailableBytes(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::int64_t kib = 0;
    if (words >> name >> kib && name == "MemAvailable:") return kib * 1024;
  }
  return std::nullopt;
}

std::optional<std::int64_t> CgroupAvailableBytes(const std::string& root) {
  std::ifstream groups(root + "/proc/self/cgroup");
  std::optional<std::int64_t> smallest;
  std::string line;
  while (std::getline(groups, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    const std::string mount = root + "/sys/fs/cgroup";
    std::optional<std::int64_t> here;
    if (controllers.empty()) {
      here = SmallestAvailable(mount, path, kV2);
    } else if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      here = SmallestAvailable(mount + "/memory", path, kV1);
    }
    if (here && (!smallest || *here < *smallest)) smallest = here;
  }
  return smallest;
}

std::int64_t AvailableMemoryBytes() {
  const std::int64_t machine = MachineAvailableBytes("").value_or(0);
  return std::min(machine, CgroupAvailableBytes("").value_or(machine));
}

}  // namespace millrace

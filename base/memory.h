// How much memory this process may still use: what the machine has free and what its control group
// (v1 or v2) leaves, whichever is less. Thread-safe.
#ifndef MILLRACE_BASE_MEMORY_H_
#define MILLRACE_BASE_MEMORY_H_

#include <cstdint>
#include <optional>
#include <string>

namespace millrace {

// MemAvailable of <root>/proc/meminfo in bytes; nullopt if it cannot be read.
std::optional<std::int64_t> MachineAvailableBytes(const std::string& root);

// Limit minus usage (without the page cache, which the kernel gives back) of the control group of
// this process and of those above it; nullopt without a limit. Reads <root>/proc/self/cgroup and
// <root>/sys/fs/cgroup.
std::optional<std::int64_t> CgroupAvailableBytes(const std::string& root);

// The smaller of the two for this process. 0 when nothing is known.
std::int64_t AvailableMemoryBytes();

}  // namespace millrace

#endif  // MILLRACE_BASE_MEMORY_H_

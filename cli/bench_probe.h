// What the machine can do at most: the limits that measured rates are held against.
#ifndef MILLRACE_CLI_BENCH_PROBE_H_
#define MILLRACE_CLI_BENCH_PROBE_H_

#include <cstdint>
#include <string>
#include <utility>

#include "runtime/runner/model_loader.h"

namespace millrace::cli {

struct ProbeResult {
  std::string isa;
  double read_gb_per_second = 0;  // all threads reading 1 GiB that no cache holds
  double int8_gops = 0;  // multiply-adds count as two, through the Q8_0 kernel on data in cache
};

// The threads and the kernel level that LoadModel chooses for these options. REQUIRES: LoadModel
// accepted them.
std::pair<int, std::string> BackendInUse(const LoadOptions& options);

ProbeResult ProbeMachine(int threads, const std::string& isa);

// Its first figure alone, in GB/s; reads less than 1 GiB where `available_bytes` calls for it.
double MeasureReadRate(int threads, std::int64_t available_bytes);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_BENCH_PROBE_H_

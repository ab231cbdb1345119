// The figures of `millrace capacity`: as JSON, and as lines for a terminal. Pure functions.
#ifndef MILLRACE_CLI_CAPACITY_REPORT_H_
#define MILLRACE_CLI_CAPACITY_REPORT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/capacity_plan.h"
#include "runtime/runner/model_loader.h"

namespace millrace::cli {

struct CapacityReport {
  ModelFacts facts;
  std::string memory_plan;
  std::uint64_t weight_bytes = 0;
  std::string kv_dtype;
  int threads = 0;
  CapacityFigures figures;
};

nlohmann::ordered_json CapacityJson(const CapacityReport& report);

// To stdout.
void PrintCapacity(const CapacityReport& report);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_CAPACITY_REPORT_H_

// The figures of a load: as JSON, as lines for a terminal, and as an HTML page with plots that
// stands alone. Pure functions.
#ifndef MILLRACE_CLI_LOAD_REPORT_H_
#define MILLRACE_CLI_LOAD_REPORT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/load_plan.h"
#include "cli/load_runner.h"

namespace millrace::cli {

// Throughput, goodput (tokens of calls that ended well), quantiles by the nearest rank, statuses,
// tenants, and how tokens a second and running calls went over time.
nlohmann::json SummariseLoad(const LoadgenOptions& options, const LoadResult& result);

// To stdout.
void PrintLoad(const nlohmann::json& summary);

// `summary` is of the same result.
std::string LoadPage(const nlohmann::json& summary, const LoadResult& result);

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_LOAD_REPORT_H_

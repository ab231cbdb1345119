#include "cli/load_plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "cli/distribution.h"
#include "scheduler/trace.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::json;

// Years from now: a time beyond is a mistake.
constexpr double kMostSeconds = 1e9;

// As Distribution draws at most: more tokens than any context has.
constexpr std::uint64_t kMostTokens = 1 << 20;

Duration Seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// What is wrong with a line of a trace.
struct BadLine : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A number of tokens; -1 and 2.5, which the JSON library would make one of, are none.
std::uint32_t Tokens(const Json& line, const char* name) {
  const Json& value = line.at(name);
  if (value.is_number_unsigned()) {
    const std::uint64_t tokens = value;
    if (tokens >= 1 && tokens <= kMostTokens) return static_cast<std::uint32_t>(tokens);
  }
  throw BadLine(absl::StrCat(name, ": want a whole number from 1 to ", kMostTokens));
}

// gRPC ends the process when it is given another character for a header.
std::string CheckTenant(std::string name) {
  const bool printable =
      std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (!printable) throw BadLine("tenant: want printable ASCII");
  return name;
}

// {"at": ..., ...}
PlannedCall FromArrival(const Json& line) {
  PlannedCall call;
  const double at = line.at("at");
  if (!(at >= 0 && at < kMostSeconds)) throw BadLine("at: want seconds, 0 or more");
  call.start = Seconds(at);
  call.prompt_tokens = Tokens(line, "prompt_tokens");
  call.output_tokens = Tokens(line, "output_tokens");
  call.tenant = CheckTenant(line.value("tenant", ""));
  return call;
}

// ["submit", now, {request}] of scheduler/trace.h.
PlannedCall FromRecord(const Json& line) {
  const Json& request = line.at(2);
  PlannedCall call;
  call.start = Duration(line.at(1).get<std::int64_t>());
  call.prompt = request.at("prompt").get<std::vector<std::uint32_t>>();
  call.prompt_tokens = static_cast<std::uint32_t>(call.prompt.size());
  call.output_tokens = std::max(1U, request.at("stopping").at("max_new_tokens").get<unsigned>());
  call.tenant = CheckTenant(absl::HexStringToBytes(request.at("tenant").get<std::string>()));
  return call;
}

// Whether `line` begins what `serve --record` wrote.
bool BeginsRecord(const Json& line) {
  if (!line.is_array() || line.at(0) != kTraceName) return false;
  if (line.at(1) != kTraceVersion) {
    throw BadLine(absl::StrCat("a record of version ", line.at(1).dump(), "; want version ",
                               kTraceVersion, ", which this serve --record writes"));
  }
  return true;
}

// The calls of a file by their times, the first at 0.
absl::StatusOr<std::vector<PlannedCall>> ReadTrace(const LoadgenOptions& options) {
  std::ifstream file(options.trace);
  if (!file) return absl::NotFoundError("--trace " + options.trace + ": cannot be read");
  std::vector<PlannedCall> calls;
  bool recorded = false;
  int number = 0;
  for (std::string text; std::getline(file, text);) {
    ++number;
    if (text.empty()) continue;
    try {
      const Json line = Json::parse(text);
      if (number == 1 && BeginsRecord(line)) {
        recorded = true;
      } else if (!recorded) {
        calls.push_back(FromArrival(line));
      } else if (line.at(0) == "submit") {
        calls.push_back(FromRecord(line));
      }
    } catch (const std::exception& error) {  // of the JSON library, or a value out of its range
      return absl::InvalidArgumentError(
          absl::StrCat("--trace ", options.trace, ":", number, ": ", error.what()));
    }
  }
  if (calls.empty()) {
    return absl::InvalidArgumentError("--trace " + options.trace + ": no calls in it");
  }
  std::stable_sort(calls.begin(), calls.end(),
                   [](const PlannedCall& a, const PlannedCall& b) { return a.start < b.start; });
  const Duration first = calls.front().start;
  for (PlannedCall& call : calls)
    call.start = Seconds(ToSeconds(call.start - first) / options.speed);
  return calls;
}

absl::StatusOr<std::vector<PlannedCall>> DrawCalls(const LoadgenOptions& options,
                                                   std::mt19937_64* rng) {
  MILLRACE_ASSIGN_OR_RETURN(const auto prompt, Distribution::Parse(options.prompt_tokens));
  MILLRACE_ASSIGN_OR_RETURN(const auto output, Distribution::Parse(options.output_tokens));
  std::exponential_distribution<double> gap(options.rate > 0 ? options.rate : 1);
  double at = 0;
  std::vector<PlannedCall> calls(static_cast<std::size_t>(options.requests));
  for (PlannedCall& call : calls) {
    // Poisson arrivals.
    if (options.rate > 0) at += gap(*rng);
    call.start = Seconds(at);
    call.prompt_tokens = prompt.Draw(rng);
    call.output_tokens = output.Draw(rng);
  }
  return calls;
}

}  // namespace

absl::StatusOr<std::vector<PlannedCall>> PlanLoad(const LoadgenOptions& options,
                                                  std::uint32_t context) {
  std::mt19937_64 rng(options.seed);
  std::vector<PlannedCall> calls;
  if (options.trace.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(calls, DrawCalls(options, &rng));
  } else {
    MILLRACE_ASSIGN_OR_RETURN(calls, ReadTrace(options));
  }
  std::uniform_real_distribution<double> share(0, 1);
  for (PlannedCall& call : calls) {
    call.prompt_tokens = std::min(call.prompt_tokens, context - 1);
    if (call.prompt.size() > call.prompt_tokens) call.prompt.resize(call.prompt_tokens);
    call.output_tokens = std::min(call.output_tokens, context - call.prompt_tokens);
    call.seed = rng();
    if (share(rng) < options.cancel_fraction) {
      call.cancel_after = static_cast<int>(rng() % call.output_tokens);
    }
    call.slow = share(rng) < options.slow_fraction;
  }
  return calls;
}

}  // namespace millrace::cli

#include "cli/load_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/svg_plot.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::json;

constexpr std::array<const char*, 5> kLatencies = {"ttft_seconds", "itl_seconds", "e2e_seconds",
                                                   "refusal_seconds", "late_seconds"};
// Points of a line in a plot: as many as can be told apart.
constexpr std::size_t kPoints = 200;

// The nearest rank: the least value that a share of q is not above. REQUIRES: sorted, not empty.
double At(const std::vector<double>& sorted, double q) {
  // A product that only rounding put above a whole number is that number.
  constexpr double kRounding = 1e-9;
  const double rank = std::ceil(q * static_cast<double>(sorted.size()) - kRounding);
  return sorted[rank < 1 ? 0 : std::min(static_cast<std::size_t>(rank), sorted.size()) - 1];
}

Json Quantiles(std::vector<double> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  double sum = 0;
  for (const double value : values) sum += value;
  return {{"mean", sum / static_cast<double>(values.size())},
          {"p50", At(values, 0.5)},
          {"p90", At(values, 0.9)},
          {"p95", At(values, 0.95)},
          {"p99", At(values, 0.99)},
          {"max", values.back()}};
}

// Of each tenant the tokens it got, and when its first ones came.
Json SummariseTenants(const LoadResult& result) {
  struct Sum {
    std::uint64_t requests = 0;
    std::uint64_t tokens = 0;
    std::uint64_t contended = 0;
    std::vector<double> first;
  };
  std::map<std::string, Sum> sums;
  for (const CallOutcome& call : result.calls) {
    Sum& sum = sums[call.tenant];
    ++sum.requests;
    sum.tokens += call.tokens;
    sum.contended += call.contended_tokens;
    if (call.first_token >= 0) sum.first.push_back(call.first_token);
  }
  Json tenants;
  for (auto& [name, sum] : sums) {
    tenants[name] = {{"requests", sum.requests},
                     {"generated_tokens", sum.tokens},
                     {"contended_tokens", sum.contended},
                     {"ttft_seconds", Quantiles(std::move(sum.first))}};
  }
  return tenants;
}

// Over the run, in at most kPoints steps of whole ticks.
Json Timeline(const LoadResult& result) {
  const double tick_seconds = result.tokens.tick_seconds();
  const auto ticks = static_cast<std::size_t>(std::ceil(result.seconds / tick_seconds)) + 1;
  const std::size_t width = (ticks + kPoints - 1) / kPoints;
  const std::size_t steps = (ticks + width - 1) / width;
  const double step_seconds = static_cast<double>(width) * tick_seconds;
  std::vector<double> seconds(steps), tokens(steps), running(steps);
  for (std::size_t i = 0; i < steps; ++i) seconds[i] = static_cast<double>(i) * step_seconds;
  const std::vector<std::uint64_t>& counts = result.tokens.ticks();
  for (std::size_t i = 0; i < counts.size(); ++i) {
    tokens[std::min(i / width, steps - 1)] += static_cast<double>(counts[i]) / step_seconds;
  }
  // A call counts in each step by the share of it that it ran.
  for (const CallOutcome& call : result.calls) {
    const double end = call.start + call.total;
    const auto first = static_cast<std::size_t>(call.start / step_seconds);
    for (std::size_t i = first; i < steps && seconds[i] < end; ++i) {
      const double from = std::max(call.start, seconds[i]);
      const double to = std::min(end, seconds[i] + step_seconds);
      running[i] += std::max(0.0, to - from) / step_seconds;
    }
  }
  return {{"seconds", seconds}, {"tokens_per_second", tokens}, {"running", running}};
}

// Which share of the values is at most so large.
PlotSeries Cumulative(std::string name, std::vector<double> values) {
  PlotSeries series{std::move(name), {}};
  std::sort(values.begin(), values.end());
  for (std::size_t i = 0; i < kPoints && !values.empty(); ++i) {
    const double q = static_cast<double>(i) / static_cast<double>(kPoints - 1);
    series.points.emplace_back(1e3 * At(values, q), 100 * q);
  }
  return series;
}

PlotSeries OverTime(const Json& timeline, const char* what) {
  PlotSeries series{what, {}};
  for (std::size_t i = 0; i < timeline["seconds"].size(); ++i) {
    series.points.emplace_back(timeline["seconds"][i], timeline[what][i]);
  }
  return series;
}

std::string QuantileRows(const Json& summary) {
  std::string rows;
  for (const char* name : kLatencies) {
    const Json& q = summary[name];
    if (q.is_null()) continue;
    absl::StrAppendFormat(&rows, "<tr><th>%s</th>", name);
    for (const char* column : {"mean", "p50", "p90", "p95", "p99", "max"}) {
      absl::StrAppendFormat(&rows, "<td>%.4f</td>", q[column].get<double>());
    }
    rows += "</tr>\n";
  }
  return rows;
}

std::string Row(const std::string& name, const std::string& value) {
  return absl::StrCat("<tr><th>", EscapeHtml(name), "</th><td>", EscapeHtml(value), "</td></tr>\n");
}

std::string FigureRows(const Json& summary) {
  std::string rows;
  for (const char* name : {"target", "trace", "prompt_tokens", "output_tokens"}) {
    const std::string value = summary[name];
    if (!value.empty()) rows += Row(name, value);
  }
  for (const char* name :
       {"concurrency", "rate", "requests", "seed", "seconds", "generated_tokens",
        "tokens_per_second", "goodput_tokens_per_second", "requests_per_second"}) {
    const Json& figure = summary[name];
    // Counts and seeds to the last digit.
    rows += Row(name, figure.is_number_integer() ? figure.dump()
                                                 : absl::StrFormat("%.6g", figure.get<double>()));
  }
  for (const auto& [code, count] : summary["statuses"].items()) {
    rows += Row(code, absl::StrCat(count.get<int>()));
  }
  return rows;
}

}  // namespace

Json SummariseLoad(const LoadgenOptions& options, const LoadResult& result) {
  std::map<std::string, int> statuses;
  std::vector<double> first, between, total, refused, late;
  std::uint64_t tokens = 0;
  std::uint64_t good_tokens = 0;
  for (const CallOutcome& call : result.calls) {
    ++statuses[call.code];
    tokens += call.tokens;
    if (call.first_token >= 0) first.push_back(call.first_token);
    if (options.open()) late.push_back(call.late);
    if (call.code == "RESOURCE_EXHAUSTED") refused.push_back(call.total);
    between.insert(between.end(), call.between.begin(), call.between.end());
    if (call.code != "OK") continue;
    good_tokens += call.tokens;
    total.push_back(call.total);
  }
  const double seconds = result.seconds;
  return {{"target", options.target},
          {"concurrency", options.concurrency},
          {"rate", options.rate},
          {"trace", options.trace},
          {"requests", result.calls.size()},
          {"seed", options.seed},
          {"prompt_tokens", options.trace.empty() ? options.prompt_tokens : ""},
          {"output_tokens", options.trace.empty() ? options.output_tokens : ""},
          {"seconds", seconds},
          {"statuses", statuses},
          {"generated_tokens", tokens},
          {"tokens_per_second", static_cast<double>(tokens) / seconds},
          {"goodput_tokens_per_second", static_cast<double>(good_tokens) / seconds},
          {"requests_per_second", static_cast<double>(total.size()) / seconds},
          {"tenants", SummariseTenants(result)},
          {"ttft_seconds", Quantiles(std::move(first))},
          {"itl_seconds", Quantiles(std::move(between))},
          {"e2e_seconds", Quantiles(std::move(total))},
          {"refusal_seconds", Quantiles(std::move(refused))},
          {"late_seconds", Quantiles(std::move(late))},
          {"timeline", Timeline(result)}};
}

void PrintLoad(const Json& summary) {
  std::printf("%.1f tok/s, %.2f requests/s, %.1f s\n", summary["tokens_per_second"].get<double>(),
              summary["requests_per_second"].get<double>(), summary["seconds"].get<double>());
  for (const char* name : kLatencies) {
    const Json& q = summary[name];
    if (q.is_null()) continue;
    std::printf("  %-28s p50 %.4f  p90 %.4f  p99 %.4f  max %.4f\n", name, q["p50"].get<double>(),
                q["p90"].get<double>(), q["p99"].get<double>(), q["max"].get<double>());
  }
  for (const auto& [name, tenant] : summary["tenants"].items()) {
    if (summary["tenants"].size() == 1) break;
    const Json& first = tenant["ttft_seconds"];
    std::printf(
        "  %-28s %d requests, %d tokens, %d of them while all had more to send, ttft p50 %.4f\n",
        name.c_str(), tenant["requests"].get<int>(), tenant["generated_tokens"].get<int>(),
        tenant["contended_tokens"].get<int>(), first.is_null() ? 0.0 : first["p50"].get<double>());
  }
  for (const auto& [code, count] : summary["statuses"].items()) {
    std::printf("  %-28s %d\n", code.c_str(), count.get<int>());
  }
}

std::string LoadPage(const Json& summary, const LoadResult& result) {
  std::vector<double> first, between, total;
  for (const CallOutcome& call : result.calls) {
    if (call.first_token >= 0) first.push_back(call.first_token);
    between.insert(between.end(), call.between.begin(), call.between.end());
    if (call.code == "OK") total.push_back(call.total);
  }
  const Json& timeline = summary["timeline"];
  const char* const kShare = "% of all";
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>millrace "
      "loadgen</title>\n<style>body{font-family:sans-serif;margin:2em}table{border-collapse:"
      "collapse;margin:1em 0}th,td{border:1px solid #ddd;padding:.2em .6em;text-align:right}"
      "th{text-align:left;font-weight:normal}svg{margin:.5em}</style>\n<h1>millrace loadgen</h1>\n",
      LinePlot({"Generated tokens", "seconds", "tok/s"}, {OverTime(timeline, "tokens_per_second")}),
      LinePlot({"Calls under way", "seconds", "calls"}, {OverTime(timeline, "running")}),
      LinePlot({"First token", "ms", kShare}, {Cumulative("ttft", std::move(first))}),
      LinePlot({"Between two tokens", "ms", kShare}, {Cumulative("itl", std::move(between))}),
      LinePlot({"Whole call", "ms", kShare}, {Cumulative("e2e", std::move(total))}),
      "<table>\n<tr><th>seconds</th><td>mean</td><td>p50</td><td>p90</td><td>p95</td><td>p99</td>"
      "<td>max</td></tr>\n",
      QuantileRows(summary), "</table>\n<table>\n", FigureRows(summary), "</table>\n</html>\n");
}

}  // namespace millrace::cli

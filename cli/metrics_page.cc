#include "cli/metrics_page.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"

namespace millrace::cli {
namespace {

// The value of a label within name{labels}; empty: it has none.
std::string_view Label(std::string_view series, std::string_view label) {
  const std::string before = std::string(label) + "=\"";
  const std::size_t at = series.find(before);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = series.substr(at + before.size());
  return rest.substr(0, rest.find('"'));
}

std::optional<double> ParseNumber(std::string_view text) {
  if (text == "+Inf") return std::numeric_limits<double>::infinity();
  double value = 0;
  if (!absl::SimpleAtod({text.data(), text.size()}, &value)) return std::nullopt;
  return value;
}

}  // namespace

MetricsPage MetricsPage::Parse(std::string_view text) {
  constexpr std::string_view kBucket = "_bucket{le=\"";
  MetricsPage page;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const std::size_t space = line.rfind(' ');
    if (line.empty() || line.front() == '#' || space == std::string_view::npos) continue;
    const std::optional<double> value = ParseNumber(line.substr(space + 1));
    if (!value) continue;
    const std::string_view series = line.substr(0, space);
    const std::size_t bucket = series.find(kBucket);
    if (bucket == std::string_view::npos) {
      page.series_[std::string(series)] = *value;
      continue;
    }
    const std::optional<double> bound = ParseNumber(Label(series, "le"));
    if (bound) page.buckets_[std::string(series.substr(0, bucket))][*bound] = *value;
  }
  return page;
}

double MetricsPage::Value(const std::string& series) const {
  const auto at = series_.find(series);
  return at == series_.end() ? 0 : at->second;
}

std::optional<double> MetricsPage::Quantile(const std::string& name, double q,
                                            const MetricsPage& earlier) const {
  const auto now = buckets_.find(name);
  if (now == buckets_.end()) return std::nullopt;
  const auto before = earlier.buckets_.find(name);
  const auto since = [&](double bound, double count) {
    if (before == earlier.buckets_.end()) return count;
    const auto at = before->second.find(bound);
    return at == before->second.end() ? count : count - at->second;
  };
  const auto& [last, all] = *now->second.rbegin();
  const double total = since(last, all);
  if (!(total > 0)) return std::nullopt;
  const double rank = q * total;
  double low = 0;
  double below = 0;
  for (const auto& [bound, cumulative] : now->second) {
    const double count = since(bound, cumulative);
    if (count >= rank) {
      if (std::isinf(bound)) return low;
      return count > below ? low + (bound - low) * (rank - below) / (count - below) : bound;
    }
    low = bound;
    below = count;
  }
  return low;
}

std::map<std::string, double> MetricsPage::ErrorsSince(const MetricsPage& earlier) const {
  constexpr std::string_view kTotal = "millrace_requests_total{";
  std::map<std::string, double> errors;
  for (auto at = series_.lower_bound(std::string(kTotal));
       at != series_.end() && at->first.starts_with(kTotal); ++at) {
    const std::string code(Label(at->first, "code"));
    const double grown = at->second - earlier.Value(at->first);
    if (Label(at->first, "method") == "Generate" && code != "OK" && grown > 0) {
      errors[code] += grown;
    }
  }
  return errors;
}

}  // namespace millrace::cli

// A page of /metrics, as far as a person looks at it: counters and gauges by name, histograms with
// their buckets. A value.
#ifndef MILLRACE_CLI_METRICS_PAGE_H_
#define MILLRACE_CLI_METRICS_PAGE_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace millrace::cli {

class MetricsPage {
 public:
  // Lines that are no samples are left out.
  static MetricsPage Parse(std::string_view text);

  // `q` from 0 to 1 of what a histogram without labels counted since `earlier`, by straight lines
  // within buckets, as Prometheus does; a value beyond the last bound is that bound. nullopt:
  // nothing was counted.
  std::optional<double> Quantile(const std::string& name, double q,
                                 const MetricsPage& earlier) const;

  // The growth since `earlier` of millrace_requests_total by code, over Generate; no zeros, no OK.
  std::map<std::string, double> ErrorsSince(const MetricsPage& earlier) const;

  // The value of name{labels}, as it stands on the page; 0 without it.
  double Value(const std::string& series) const;

 private:
  std::map<std::string, double> series_;                     // name{labels} as it stands there
  std::map<std::string, std::map<double, double>> buckets_;  // of histograms: by bound, cumulative
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLI_METRICS_PAGE_H_

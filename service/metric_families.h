// Builds the families of metrics that are collected at the scrape. Thread-safe (pure functions).
#ifndef MILLRACE_SERVICE_METRIC_FAMILIES_H_
#define MILLRACE_SERVICE_METRIC_FAMILIES_H_

#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

namespace millrace {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

inline prometheus::MetricFamily CounterFamily(std::string name, std::string help) {
  return {std::move(name), std::move(help), prometheus::MetricType::Counter, {}};
}
inline prometheus::MetricFamily GaugeFamily(std::string name, std::string help) {
  return {std::move(name), std::move(help), prometheus::MetricType::Gauge, {}};
}

inline prometheus::ClientMetric& AddMetric(prometheus::MetricFamily* family,
                                           const MetricLabels& labels) {
  prometheus::ClientMetric metric;
  for (const auto& [name, value] : labels) {
    metric.label.emplace_back();
    metric.label.back().name = name;
    metric.label.back().value = value;
  }
  family->metric.push_back(std::move(metric));
  return family->metric.back();
}
inline void AddCounter(prometheus::MetricFamily* family, const MetricLabels& labels, double value) {
  AddMetric(family, labels).counter.value = value;
}
inline void AddGauge(prometheus::MetricFamily* family, const MetricLabels& labels, double value) {
  AddMetric(family, labels).gauge.value = value;
}

}  // namespace millrace

#endif  // MILLRACE_SERVICE_METRIC_FAMILIES_H_

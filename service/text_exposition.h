// Writes families of metrics in the text exposition format of Prometheus, version 0.0.4. The
// library's own writer goes through a stream for every piece, which costs a scrape twice the time.
// Counters, gauges and histograms only: we have no summaries. Thread-safe (a pure function).
#ifndef MILLRACE_SERVICE_TEXT_EXPOSITION_H_
#define MILLRACE_SERVICE_TEXT_EXPOSITION_H_

#include <prometheus/metric_family.h>

#include <string>
#include <vector>

namespace millrace {

std::string TextExposition(const std::vector<prometheus::MetricFamily>& families);

}  // namespace millrace

#endif  // MILLRACE_SERVICE_TEXT_EXPOSITION_H_

#include "service/text_exposition.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace millrace {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// A page of ours has 20 KB: one allocation.
constexpr std::size_t kUsualBytes = 32 << 10;
// Whole numbers up to here are exact in a double, and written without an exponent.
constexpr double kLargestWhole = 1e15;

template <typename Number, typename... Format>
void AppendNumber(Number value, std::string* out, Format... format) {
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value, format...);
  out->append(text, end.ptr);
}

void AppendValue(double value, std::string* out) {
  if (std::isnan(value)) {
    *out += "NaN";
  } else if (std::isinf(value)) {
    *out += value > 0 ? "+Inf" : "-Inf";
  } else if (std::abs(value) < kLargestWhole && value == std::trunc(value)) {
    AppendNumber(static_cast<std::int64_t>(value), out);
  } else {
    AppendNumber(value, out, std::chars_format::general);
  }
}

void AppendEscaped(std::string_view text, bool quotes, std::string* out) {
  for (const char c : text) {
    if (c == '\n') {
      *out += "\\n";
    } else {
      if (c == '\\' || (quotes && c == '"')) *out += '\\';
      *out += c;
    }
  }
}

// name{label="value",le="bound"} and a space; `bound` is null where there is none.
void AppendSeries(const MetricFamily& family, const char* suffix, const ClientMetric& metric,
                  const double* bound, std::string* out) {
  *out += family.name;
  *out += suffix;
  char separator = '{';
  for (const ClientMetric::Label& label : metric.label) {
    *out += separator;
    *out += label.name;
    *out += "=\"";
    AppendEscaped(label.value, true, out);
    *out += '"';
    separator = ',';
  }
  if (bound != nullptr) {
    *out += separator;
    *out += "le=\"";
    AppendValue(*bound, out);
    *out += '"';
    separator = ',';
  }
  *out += separator == ',' ? "} " : " ";
}

void AppendHistogram(const MetricFamily& family, const ClientMetric& metric, std::string* out) {
  const ClientMetric::Histogram& histogram = metric.histogram;
  AppendSeries(family, "_count", metric, nullptr, out);
  AppendNumber(histogram.sample_count, out);
  *out += '\n';
  AppendSeries(family, "_sum", metric, nullptr, out);
  AppendValue(histogram.sample_sum, out);
  *out += '\n';
  for (const ClientMetric::Bucket& bucket : histogram.bucket) {
    AppendSeries(family, "_bucket", metric, &bucket.upper_bound, out);
    AppendNumber(bucket.cumulative_count, out);
    *out += '\n';
  }
}

std::string_view TypeName(MetricType type) {
  switch (type) {
    case MetricType::Counter:
      return "counter";
    case MetricType::Gauge:
      return "gauge";
    case MetricType::Histogram:
      return "histogram";
    default:
      return "untyped";
  }
}

void AppendFamily(const MetricFamily& family, std::string* out) {
  if (!family.help.empty()) {
    *out += "# HELP ";
    *out += family.name;
    *out += ' ';
    AppendEscaped(family.help, false, out);
    *out += '\n';
  }
  *out += "# TYPE ";
  *out += family.name;
  *out += ' ';
  *out += TypeName(family.type);
  *out += '\n';
  for (const ClientMetric& metric : family.metric) {
    if (family.type == MetricType::Histogram) {
      AppendHistogram(family, metric, out);
      continue;
    }
    AppendSeries(family, "", metric, nullptr, out);
    AppendValue(family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value,
                out);
    *out += '\n';
  }
}

}  // namespace

std::string TextExposition(const std::vector<MetricFamily>& families) {
  std::string out;
  out.reserve(kUsualBytes);
  for (const MetricFamily& family : families) AppendFamily(family, &out);
  return out;
}

}  // namespace millrace

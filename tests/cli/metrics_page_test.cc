#include "cli/metrics_page.h"

#include <gtest/gtest.h>

namespace millrace::cli {
namespace {

constexpr char kEarlier[] =
    "# TYPE h histogram\n"
    "h_bucket{le=\"1\"} 10\nh_bucket{le=\"2\"} 10\nh_bucket{le=\"+Inf\"} 10\nh_count 10\n"
    "millrace_requests_total{method=\"Generate\",code=\"ABORTED\"} 4\n";
constexpr char kNow[] =
    "h_bucket{le=\"1\"} 10\nh_bucket{le=\"2\"} 20\nh_bucket{le=\"+Inf\"} 30\nh_count 30\n"
    "millrace_requests_total{method=\"Generate\",code=\"ABORTED\"} 6\n"
    "millrace_requests_total{method=\"Generate\",code=\"OK\"} 9\n"
    "millrace_requests_total{method=\"Tokenize\",code=\"NOT_FOUND\"} 1\n"
    "no sample\n\nworth nothing\n";

TEST(MetricsPageTest, QuantilesAreOfWhatCameSinceTheEarlierPage) {
  const MetricsPage earlier = MetricsPage::Parse(kEarlier);
  const MetricsPage now = MetricsPage::Parse(kNow);
  // Ten between 1 and 2, ten beyond.
  EXPECT_DOUBLE_EQ(now.Quantile("h", 0.25, earlier).value(), 1.5);
  EXPECT_DOUBLE_EQ(now.Quantile("h", 0.5, earlier).value(), 2);
  EXPECT_DOUBLE_EQ(now.Quantile("h", 0.99, earlier).value(), 2);
  // Since ever: a third of each.
  EXPECT_DOUBLE_EQ(now.Quantile("h", 0.1, MetricsPage()).value(), 0.3);
}

TEST(MetricsPageTest, WhatWasNotCountedHasNoQuantile) {
  const MetricsPage now = MetricsPage::Parse(kNow);
  EXPECT_FALSE(now.Quantile("h", 0.5, now).has_value());
  EXPECT_FALSE(now.Quantile("other", 0.5, MetricsPage()).has_value());
  EXPECT_FALSE(MetricsPage::Parse("h_bucket{le=\"").Quantile("h", 0.5, now).has_value());
}

TEST(MetricsPageTest, ErrorsAreThoseOfGenerateThatCameSince) {
  const MetricsPage now = MetricsPage::Parse(kNow);
  EXPECT_EQ(now.ErrorsSince(MetricsPage::Parse(kEarlier)),
            (std::map<std::string, double>{{"ABORTED", 2}}));
  EXPECT_EQ(now.ErrorsSince(MetricsPage()), (std::map<std::string, double>{{"ABORTED", 6}}));
}

}  // namespace
}  // namespace millrace::cli

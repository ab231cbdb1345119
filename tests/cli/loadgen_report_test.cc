#include "cli/load_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace millrace::cli {
namespace {

using ::testing::HasSubstr;

// Calls that took 1, 2, ... `calls` seconds, the longest first.
LoadResult CallsOfSeconds(int calls) {
  LoadResult result;
  result.seconds = calls;
  for (int i = calls; i > 0; --i) {
    CallOutcome call;
    call.code = "OK";
    call.first_token = call.total = i;
    call.tokens = 1;
    result.calls.push_back(call);
  }
  return result;
}

TEST(LoadReportTest, AQuantileIsTheLeastValueThatSoManyAreNotAbove) {
  nlohmann::json e2e = SummariseLoad({}, CallsOfSeconds(100))["e2e_seconds"];
  EXPECT_EQ(e2e["p50"], 50);
  EXPECT_EQ(e2e["p90"], 90);
  EXPECT_EQ(e2e["p95"], 95);
  EXPECT_EQ(e2e["p99"], 99);
  EXPECT_EQ(e2e["max"], 100);
  e2e = SummariseLoad({}, CallsOfSeconds(3))["e2e_seconds"];
  EXPECT_EQ(e2e["p50"], 2);
  EXPECT_EQ(e2e["p90"], 3);
  e2e = SummariseLoad({}, CallsOfSeconds(1))["e2e_seconds"];
  EXPECT_EQ(e2e["p50"], 1);
}

TEST(LoadReportTest, WhatNeverCameHasNoQuantiles) {
  EXPECT_TRUE(SummariseLoad({}, CallsOfSeconds(1))["refusal_seconds"].is_null());
}

TEST(LoadReportTest, ThePageShowsCountsAndSeedsToTheLastDigit) {
  LoadgenOptions options;
  options.seed = 12345678901234567890ULL;
  LoadResult result = CallsOfSeconds(2);
  result.calls.front().tokens = 12345678;
  const std::string page = LoadPage(SummariseLoad(options, result), result);
  EXPECT_THAT(page, HasSubstr("<td>12345678901234567890</td>"));
  EXPECT_THAT(page, HasSubstr("<td>12345679</td>"));
}

TEST(LoadReportTest, ThePageHasNoMarkupOfOthers) {
  LoadgenOptions options;
  options.target = "<script>alert(1)</script>";
  const LoadResult result = CallsOfSeconds(2);
  const std::string page = LoadPage(SummariseLoad(options, result), result);
  EXPECT_EQ(page.find("<script>"), std::string::npos);
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(1)"));
}

}  // namespace
}  // namespace millrace::cli

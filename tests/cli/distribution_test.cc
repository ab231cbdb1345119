#include "cli/distribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace millrace::cli {
namespace {

std::vector<std::uint32_t> DrawMany(const std::string& text) {
  const auto distribution = Distribution::Parse(text);
  EXPECT_TRUE(distribution.ok()) << distribution.status();
  std::mt19937_64 rng(1);
  std::vector<std::uint32_t> values(10001);
  for (std::uint32_t& value : values) value = distribution->Draw(&rng);
  std::sort(values.begin(), values.end());
  return values;
}

TEST(Distribution, IsTheNumberItself) {
  const auto values = DrawMany("7");
  EXPECT_EQ(values.front(), 7U);
  EXPECT_EQ(values.back(), 7U);
}

TEST(Distribution, ReachesBothEndsOfAUniformRange) {
  const auto values = DrawMany("uniform:3:9");
  EXPECT_EQ(values.front(), 3U);
  EXPECT_EQ(values.back(), 9U);
}

TEST(Distribution, HasTheMedianOfALognormal) {
  // The sample median of n draws has a relative error of about 1.25 sigma / sqrt(n) = 1.3 %; five
  // of those.
  const auto values = DrawMany("lognormal:1000:1");
  EXPECT_NEAR(values[values.size() / 2], 1000, 65);
  EXPECT_GE(values.front(), 1U);
}

TEST(Distribution, SaysWhatItWants) {
  for (const char* text : {"", "0", "-1", "x", "nan", "uniform:9:3", "uniform:1", "normal:1:2",
                           "lognormal:10:-1", "lognormal:10:1:2", "uniform:1:99999999"}) {
    const auto distribution = Distribution::Parse(text);
    ASSERT_FALSE(distribution.ok()) << text;
    EXPECT_THAT(std::string(distribution.status().message()),
                ::testing::HasSubstr("lognormal:MEDIAN:SIGMA"));
  }
}

}  // namespace
}  // namespace millrace::cli

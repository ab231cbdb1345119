#include "cli/svg_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace millrace::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(RoundTicks, CoverTheGreatestValueWithFewRoundSteps) {
  for (double greatest = 1e-6; greatest < 1e9; greatest *= 1.37) {
    const std::vector<double> ticks = RoundTicks(greatest);
    EXPECT_EQ(ticks.front(), 0);
    EXPECT_GE(ticks.back(), greatest * (1 - 1e-9));
    EXPECT_LT(ticks[ticks.size() - 2], greatest);
    EXPECT_GE(ticks.size(), 4U) << greatest;
    EXPECT_LE(ticks.size(), 10U) << greatest;
  }
  EXPECT_THAT(RoundTicks(8), ::testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
}

TEST(RoundTicks, HaveSomethingToShowForNothing) {
  EXPECT_GE(RoundTicks(0).size(), 2U);
  EXPECT_GE(RoundTicks(std::numeric_limits<double>::quiet_NaN()).size(), 2U);
  EXPECT_GE(RoundTicks(std::numeric_limits<double>::infinity()).size(), 2U);
}

TEST(LinePlot, DrawsALineForEachSeriesWithPoints) {
  const std::string svg =
      LinePlot({"<title>", "s", "tok/s"}, {{"a", {{0, 0}, {8, 4}}}, {"none", {}}, {"b", {{1, 1}}}});
  std::size_t lines = 0;
  for (std::size_t at = svg.find("<polyline"); at != std::string::npos;
       at = svg.find("<polyline", at + 1)) {
    ++lines;
  }
  EXPECT_EQ(lines, 2U);
  EXPECT_THAT(svg, HasSubstr("points=\"70.0,235.0 620.0,30.0 \""));  // from corner to corner
  EXPECT_THAT(svg, Not(HasSubstr("<title><title>")));
}

TEST(EscapeHtml, LeavesNoMarkup) {
  EXPECT_EQ(EscapeHtml("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
}

}  // namespace
}  // namespace millrace::cli

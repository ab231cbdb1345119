#include "service/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace millrace {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c";
const std::string kParent = "b7ad6b7169203331";

TEST(TraceContext, ReadsTheTraceAndTheCallersSpan) {
  const auto context = ParseTraceparent("00-" + kTrace + "-" + kParent + "-01");
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_id, kTrace);
  EXPECT_EQ(context->parent_id, kParent);
}

TEST(TraceContext, IgnoresWhatIsNotWellFormed) {
  const std::string zeros(32, '0');
  for (const std::string& header : {
           std::string(),
           std::string("00"),
           "01-" + kTrace + "-" + kParent + "-01",
           "ff-" + kTrace + "-" + kParent + "-01",
           "0-" + kTrace + "-" + kParent + "-01",
           "00-" + zeros + "-" + kParent + "-01",
           "00-" + kTrace + "-" + zeros.substr(16) + "-01",
           "00-" + kTrace + "-" + kParent,
           "00-" + kTrace + "-" + kParent + "-0g",
           "00-" + kTrace + "-" + kParent + "-01-more",
           "00-" + kTrace + "-" + kParent + "-01 ",
           " 00-" + kTrace + "-" + kParent + "-01",
           "00-0AF7651916CD43DD8448EB211C80319C-" + kParent + "-01",
           "00-" + kTrace + "_" + kParent + "-01",
           "00-" + kTrace + "-" + kParent + "_01",
           "00-" + kTrace.substr(1) + "--" + kParent + "-01",
       }) {
    EXPECT_FALSE(ParseTraceparent(header).has_value()) << header;
  }
}

}  // namespace
}  // namespace millrace

#include "runtime/sampling/sampling_params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

namespace millrace {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::string field;
  std::function<void(SamplingParams*)> change;
};

TEST(SamplingParams, AcceptsTheEdgesOfEveryRange) {
  const Case cases[] = {
      {"defaults", [](SamplingParams*) {}},
      {"temperature", [](SamplingParams* p) { p->sampler.temperature = 0; }},
      {"top_p", [](SamplingParams* p) { p->sampler.top_p = 1e-30F; }},
      {"min_p", [](SamplingParams* p) { p->sampler.min_p = 1; }},
      {"presence", [](SamplingParams* p) { p->sampler.presence_penalty = -2; }},
      {"frequency", [](SamplingParams* p) { p->sampler.frequency_penalty = 2; }},
      {"top_k", [](SamplingParams* p) { p->sampler.top_k = UINT32_MAX; }},
      {"logit_bias",
       [](SamplingParams* p) {
         p->logit_bias = {{9, -100.0F}};
       }},
      {"logprobs", [](SamplingParams* p) { p->num_logprobs = 20; }},
  };
  for (const Case& c : cases) {
    SamplingParams params;
    c.change(&params);
    EXPECT_TRUE(ValidateSamplingParams(params, 10).ok()) << c.field;
  }
}

TEST(SamplingParams, NamesTheFieldThatIsOutOfRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Case cases[] = {
      {"sampling.temperature", [](SamplingParams* p) { p->sampler.temperature = -1e-6F; }},
      {"sampling.temperature", [nan](SamplingParams* p) { p->sampler.temperature = nan; }},
      {"sampling.top_p", [](SamplingParams* p) { p->sampler.top_p = 0; }},
      {"sampling.top_p", [](SamplingParams* p) { p->sampler.top_p = std::nextafter(1.0F, 2.0F); }},
      {"sampling.min_p", [](SamplingParams* p) { p->sampler.min_p = -0.1F; }},
      {"sampling.repetition_penalty", [](SamplingParams* p) { p->sampler.repetition_penalty = 0; }},
      {"sampling.presence_penalty", [](SamplingParams* p) { p->sampler.presence_penalty = 2.1F; }},
      {"sampling.frequency_penalty",
       [nan](SamplingParams* p) { p->sampler.frequency_penalty = nan; }},
      {"sampling.logit_bias",
       [](SamplingParams* p) {
         p->logit_bias = {{10, 1.0F}};
       }},
      {"sampling.logit_bias",
       [nan](SamplingParams* p) {
         p->logit_bias = {{1, nan}};
       }},
      {"sampling.allowed_token_ids", [](SamplingParams* p) { p->allowed_token_ids = {10}; }},
      {"output.logprobs", [](SamplingParams* p) { p->num_logprobs = 21; }},
  };
  for (const Case& c : cases) {
    SamplingParams params;
    c.change(&params);
    const absl::Status status = ValidateSamplingParams(params, 10);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.field));
  }
}

}  // namespace
}  // namespace millrace

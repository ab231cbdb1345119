// Every range of the interface has its refusal, named after its field; what passes becomes the
// request that was meant.
#include "service/request_validator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "tests/runtime/tokenizer/own_vocabulary.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr std::uint32_t kContext = 100;
constexpr char kTemplate[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

ServedModel MakeModel() {
  ServedModel model;
  model.tokenizer = Tokenizer::Create(OwnVocabulary("qwen2")).value();
  model.chat_template = ChatTemplate::Parse(kTemplate, "", "").value();
  model.info.set_name("tiny");
  model.info.set_vocab_size(model.tokenizer->vocab_size());
  model.info.set_context_length(kContext);
  return model;
}

v1::GenerateRequest WithPrompt(int tokens) {
  v1::GenerateRequest message;
  for (int i = 0; i < tokens; ++i) message.mutable_token_ids()->add_ids(3);
  return message;
}

class RequestValidator : public ::testing::Test {
 protected:
  absl::StatusOr<Request> Validate(const v1::GenerateRequest& message) const {
    return ValidateRequest(message, model_, TimePoint(Duration(5)), TimePoint(Duration(9)));
  }
  Request Accept(const v1::GenerateRequest& message) const {
    absl::StatusOr<Request> request = Validate(message);
    EXPECT_TRUE(request.ok()) << request.status();
    return request.ok() ? *std::move(request) : Request();
  }
  void ExpectRefused(const v1::GenerateRequest& message, absl::StatusCode code,
                     const std::string& field) const {
    const absl::StatusOr<Request> request = Validate(message);
    ASSERT_FALSE(request.ok()) << field;
    EXPECT_EQ(request.status().code(), code) << request.status();
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(field));
  }
  const ServedModel model_ = MakeModel();
};

TEST_F(RequestValidator, GivesAbsentFieldsTheirDocumentedDefaults) {
  const Request request = Accept(WithPrompt(10));
  EXPECT_THAT(request.prompt_tokens, SizeIs(10));
  EXPECT_EQ(request.sampling.sampler.temperature, 1.0F);
  EXPECT_EQ(request.sampling.sampler.top_k, 0U);
  EXPECT_EQ(request.sampling.sampler.top_p, 1.0F);
  EXPECT_EQ(request.sampling.sampler.min_p, 0.0F);
  EXPECT_FALSE(request.sampling.sampler.has_penalties());
  EXPECT_EQ(request.sampling.num_logprobs, -1);
  EXPECT_EQ(request.stopping.max_new_tokens, kContext - 10);  // up to the context
  EXPECT_FALSE(request.stopping.end_token_ids.empty());
  EXPECT_TRUE(request.skip_special_tokens);
  EXPECT_EQ(request.arrival, TimePoint(Duration(5)));
  EXPECT_EQ(request.deadline, TimePoint(Duration(9)));
}

TEST_F(RequestValidator, TakesAPresentZeroAsZero) {
  v1::GenerateRequest message = WithPrompt(10);
  message.mutable_sampling()->set_temperature(0);
  message.mutable_sampling()->set_seed(0);
  message.mutable_stopping()->set_max_new_tokens(0);
  message.mutable_output()->set_logprobs(0);
  message.mutable_output()->set_skip_special_tokens(false);
  const Request request = Accept(message);
  EXPECT_EQ(request.sampling.sampler.temperature, 0.0F);
  EXPECT_EQ(request.sampling.sampler.seed, 0U);
  EXPECT_EQ(request.stopping.max_new_tokens, 0U);
  EXPECT_EQ(request.sampling.num_logprobs, 0);
  EXPECT_FALSE(request.skip_special_tokens);
}

TEST_F(RequestValidator, DrawsAnotherSeedForEveryRequestThatHasNone) {
  EXPECT_NE(Accept(WithPrompt(1)).sampling.sampler.seed,
            Accept(WithPrompt(1)).sampling.sampler.seed);
}

TEST_F(RequestValidator, SortsListsAndKeepsEachIdOnce) {
  v1::GenerateRequest message = WithPrompt(1);
  (*message.mutable_sampling()->mutable_logit_bias())[7] = 1.5F;
  (*message.mutable_sampling()->mutable_logit_bias())[2] = -1.0F;
  for (const std::uint32_t id : {9U, 4U, 9U}) message.mutable_sampling()->add_allowed_token_ids(id);
  const Request request = Accept(message);
  EXPECT_THAT(request.sampling.logit_bias, ElementsAre(Pair(2, -1.0F), Pair(7, 1.5F)));
  EXPECT_THAT(request.sampling.allowed_token_ids, ElementsAre(4, 9));
}

TEST_F(RequestValidator, IgnoresTheEndTokensWithIgnoreEos) {
  v1::GenerateRequest message = WithPrompt(1);
  message.mutable_stopping()->set_ignore_eos(true);
  EXPECT_THAT(Accept(message).stopping.end_token_ids, IsEmpty());
}

TEST_F(RequestValidator, MakesControlTokensOfAChatFromItsTemplateAlone) {
  v1::GenerateRequest message;
  v1::ChatMessage* turn = message.mutable_chat()->add_messages();
  turn->set_role("user");
  turn->set_content("<|im_end|>");
  const std::uint32_t end = *model_.tokenizer->FindToken("<|im_end|>");
  EXPECT_THAT(Accept(message).prompt_tokens, ::testing::Contains(end).Times(1));
  v1::GenerateRequest text;
  text.set_text("<|im_end|>");
  EXPECT_THAT(Accept(text).prompt_tokens, ElementsAre(end));
  text.set_parse_special(false);
  EXPECT_THAT(Accept(text).prompt_tokens, ::testing::Not(::testing::Contains(end)));
}

struct BadField {
  std::string field;
  std::function<void(v1::GenerateRequest*)> change;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

template <typename F>
BadField Sampling(std::string field, F change,
                  absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  return {std::move(field), [change](v1::GenerateRequest* m) { change(m->mutable_sampling()); },
          code};
}
template <typename F>
BadField Stopping(std::string field, F change) {
  return {std::move(field), [change](v1::GenerateRequest* m) { change(m->mutable_stopping()); }};
}

TEST_F(RequestValidator, RefusesWhatIsOutOfRangeByTheNameOfItsField) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::uint32_t vocab = model_.info.vocab_size();
  using S = v1::SamplingParams;
  using T = v1::StoppingCriteria;
  const BadField cases[] = {
      Sampling("temperature", [](S* s) { s->set_temperature(-0.1F); }),
      Sampling("temperature", [nan](S* s) { s->set_temperature(nan); }),
      Sampling("temperature", [inf](S* s) { s->set_temperature(inf); }),
      Sampling("top_p", [](S* s) { s->set_top_p(0); }),
      Sampling("top_p", [](S* s) { s->set_top_p(1.001F); }),
      Sampling("min_p", [](S* s) { s->set_min_p(-0.001F); }),
      Sampling("min_p", [](S* s) { s->set_min_p(1.001F); }),
      Sampling("repetition_penalty", [](S* s) { s->set_repetition_penalty(0); }),
      Sampling("presence_penalty", [](S* s) { s->set_presence_penalty(2.01F); }),
      Sampling("frequency_penalty", [](S* s) { s->set_frequency_penalty(-2.01F); }),
      Sampling("logit_bias", [vocab](S* s) { (*s->mutable_logit_bias())[vocab] = 1; }),
      Sampling("logit_bias", [nan](S* s) { (*s->mutable_logit_bias())[0] = nan; }),
      Sampling("allowed_token_ids", [vocab](S* s) { s->add_allowed_token_ids(vocab); }),
      Sampling("num_sequences", [](S* s) { s->set_num_sequences(0); }),
      Sampling("num_sequences", [](S* s) { s->set_num_sequences(129); }),
      {"priority", [](v1::GenerateRequest* m) { m->set_priority(11); }},
      {"priority", [](v1::GenerateRequest* m) { m->set_priority(-11); }},
      Stopping("max_new_tokens", [](T* t) { t->set_max_new_tokens(kContext); }),
      Stopping("min_new_tokens",
               [](T* t) {
                 t->set_max_new_tokens(3);
                 t->set_min_new_tokens(4);
               }),
      Stopping("stop_token_ids", [vocab](T* t) { t->add_stop_token_ids(vocab); }),
      Stopping("stop_strings", [](T* t) { t->add_stop_strings(""); }),
      Stopping("stop_strings", [](T* t) { t->add_stop_strings(std::string(1025, 'a')); }),
      Stopping("stop_strings",
               [](T* t) {
                 for (int i = 0; i < 65; ++i) t->add_stop_strings("a");
               }),
      {"logprobs", [](v1::GenerateRequest* m) { m->mutable_output()->set_logprobs(21); }},
      {"logprobs", [](v1::GenerateRequest* m) { m->mutable_output()->set_logprobs(UINT32_MAX); }},
      {"context", [](v1::GenerateRequest* m) { *m = WithPrompt(kContext + 1); }},
      {"context", [](v1::GenerateRequest* m) { *m = WithPrompt(kContext); }},
      {"token_ids", [vocab](v1::GenerateRequest* m) { m->mutable_token_ids()->add_ids(vocab); }},
      {"prompt", [](v1::GenerateRequest* m) { m->mutable_token_ids()->clear_ids(); }},
      {"prompt", [](v1::GenerateRequest* m) { m->set_text(""); }},
      {"prompt", [](v1::GenerateRequest* m) { m->clear_prompt(); }},
      {"messages", [](v1::GenerateRequest* m) { m->mutable_chat(); }},
  };
  for (const BadField& bad : cases) {
    v1::GenerateRequest message = WithPrompt(10);
    bad.change(&message);
    SCOPED_TRACE(message.ShortDebugString());
    ExpectRefused(message, bad.code, bad.field);
  }
}

TEST_F(RequestValidator, NamesWhatIsNotBuiltYet) {
  using S = v1::SamplingParams;
  constexpr auto kLater = absl::StatusCode::kUnimplemented;
  const BadField cases[] = {
      Sampling(
          "json_schema", [](S* s) { s->set_json_schema("{}"); }, kLater),
      Sampling(
          "regex", [](S* s) { s->set_regex("a"); }, kLater),
      Sampling(
          "grammar", [](S* s) { s->set_grammar("a"); }, kLater),
      Sampling(
          "choice", [](S* s) { s->mutable_choice()->add_values("a"); }, kLater),
      {"prompt_logprobs",
       [](v1::GenerateRequest* m) { m->mutable_output()->set_prompt_logprobs(0); }, kLater},
  };
  for (const BadField& later : cases) {
    v1::GenerateRequest message = WithPrompt(10);
    later.change(&message);
    ExpectRefused(message, later.code, later.field);
  }
}

TEST_F(RequestValidator, KnowsTheModelByItsNameOnly) {
  v1::GenerateRequest message = WithPrompt(1);
  message.set_model("tiny");
  Accept(message);
  message.set_model("another");
  ExpectRefused(message, absl::StatusCode::kNotFound, "another");
}

TEST_F(RequestValidator, SaysWhyAChatCannotBeRendered) {
  v1::GenerateRequest message;
  message.mutable_chat()->add_messages()->set_role("user");
  message.mutable_chat()->set_tools_json("not json");
  ExpectRefused(message, absl::StatusCode::kInvalidArgument, "tools_json");
  ServedModel plain = MakeModel();
  plain.chat_template = nullptr;
  plain.chat_status = absl::UnimplementedError("line 3: {% import %}");
  const auto refused = ValidateRequest(message, plain, TimePoint(), kNoDeadline);
  EXPECT_EQ(refused.status(), plain.chat_status);
}

}  // namespace
}  // namespace millrace

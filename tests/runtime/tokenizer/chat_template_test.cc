#include "runtime/tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kChatMl[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

ChatInput OneUser(std::string content) {
  ChatInput input;
  input.messages.push_back({.role = "user", .content = std::move(content)});
  return input;
}

absl::StatusOr<RenderedChat> Render(std::string_view source, const ChatInput& input,
                                    ChatTemplateLimits limits = {}) {
  auto parsed = ChatTemplate::Parse(source, "<s>", "</s>", limits);
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(input);
}

std::string Text(std::string_view source, const ChatInput& input = OneUser("hi")) {
  const auto rendered = Render(source, input);
  EXPECT_TRUE(rendered.ok()) << rendered.status();
  return rendered.ok() ? rendered->text() : "";
}

// The bytes of the rendering that the template answers for.
std::string TrustedText(const RenderedChat& chat) {
  std::string out;
  for (const RenderedRun& run : chat.runs) out += run.trusted ? run.text : std::string();
  return out;
}

TEST(ChatTemplate, MarksWhatTheCallerWroteAsUntrusted) {
  const auto chat = Render(kChatMl, OneUser("<|im_end|>"));
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(chat->text(), "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(TrustedText(*chat), "<|im_start|>\n<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, KeepsTheOriginOfBytesThroughEveryOperation) {
  for (const char* expression : {"messages[0].content",
                                 "messages[0].content | trim",
                                 "messages[0].content.strip()",
                                 "messages[0].content[::-1]",
                                 "messages[0].content.split('|') | join('')",
                                 "messages[0].content | upper",
                                 "messages[0].content.replace('x', '')",
                                 "messages[0].content | tojson",
                                 "messages[0] | tojson",
                                 "messages[0].content | string",
                                 "[messages[0].content]",
                                 "{'k': messages[0].content}",
                                 "messages[0].content ~ ''",
                                 "'' + messages[0].content",
                                 "messages | map(attribute='content') | join",
                                 "messages[0]",
                                 "messages[0].content | default('d')",
                                 "messages[0].content | list | join",
                                 "'ab'.replace('ab', messages[0].content)",
                                 "messages[0].content[0:99]"}) {
    SCOPED_TRACE(expression);
    const auto chat = Render(std::string("{{ ") + expression + " }}", OneUser("<X|Q>"));
    ASSERT_TRUE(chat.ok()) << chat.status();
    EXPECT_THAT(TrustedText(*chat), ::testing::Not(HasSubstr("Q")));
    EXPECT_THAT(TrustedText(*chat), ::testing::Not(HasSubstr("X")));
    EXPECT_THAT(chat->text(), HasSubstr("Q"));
  }
}

TEST(ChatTemplate, NamesWhatItCannotRun) {
  for (const auto& [source, name] : std::initializer_list<std::pair<const char*, const char*>>{
           {"{% include 'x' %}", "'include'"},
           {"{% import 'os' as os %}", "'import'"},
           {"{% extends 'x' %}", "'extends'"},
           {"{{ 1 | batch(2) }}", "'batch'"},
           {"{{ 1 is sameas(1) }}", "'sameas'"},
           {"{{ 2 ** 3 }}", "'**'"},
           {"{{ messages.append(1) }}", "'append'"},
           {"{{ strftime_now('%Y') }}", "'strftime_now'"}}) {
    SCOPED_TRACE(source);
    const auto chat = Render(source, OneUser("hi"));
    EXPECT_EQ(chat.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(chat.status().message()), AllOf(HasSubstr(name), HasSubstr("line 1")));
  }
}

TEST(ChatTemplate, ReachesNothingBeyondItsValues) {
  for (const char* source :
       {"{{ ''.__class__ }}", "{{ messages.__init__.__globals__ }}", "{{ self }}",
        "{{ messages[0]['__class__'] }}", "{{ cycler.__init__ }}", "{{ ''|attr('__class__') }}",
        "{{ raise_exception.__globals__ }}", "{{ range.__self__ }}"}) {
    SCOPED_TRACE(source);
    const auto chat = Render(source, OneUser("hi"));
    if (chat.ok()) {
      EXPECT_EQ(chat->text(), "");
    }
  }
}

TEST(ChatTemplate, SaysWhereSyntaxIsWrong) {
  for (const char* source : {"{{ x", "{% if x %}", "{% endif %}", "{{ 'x }}", "{{ (1 }}", "{# x",
                             "{% for x %}", "{{ x | }}", "{{ 1 + }}", "{% break %}", "{{ ? }}",
                             "{{ 99999999999999999999 }}", "{% set 1 = 2 %}"}) {
    SCOPED_TRACE(source);
    const auto chat = Render(std::string("\n") + source, OneUser("hi"));
    EXPECT_EQ(chat.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(chat.status().message()), HasSubstr("chat template, line 2"));
    EXPECT_EQ(chat.status().message().find('\n'), std::string::npos);
  }
}

TEST(ChatTemplate, GivesTheTemplatesOwnRefusal) {
  const auto chat = Render("{{ raise_exception('roles must alternate') }}", OneUser("hi"));
  EXPECT_EQ(chat.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(chat.status().message()), HasSubstr("roles must alternate"));
}

TEST(ChatTemplate, EndsWhenALimitIsPassed) {
  const std::string loops =
      "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}"
      "{% endfor %}{% endfor %}";
  const std::string doubling =
      "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
      "endfor %}";
  const std::string output =
      "{% for i in range(99999) %}" + std::string(1000, 'y') + "{% endfor %}";
  const std::string recursion = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
  const std::string lists =
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
      "endfor %}";
  for (const std::string& source : {loops, doubling, output, recursion, lists}) {
    SCOPED_TRACE(source.substr(0, 60));
    const auto chat = Render(source, OneUser("hi"));
    EXPECT_EQ(chat.status().code(), absl::StatusCode::kResourceExhausted) << chat.status();
  }
}

TEST(ChatTemplate, BoundsNestingOfTemplatesAndOfValues) {
  const auto nested = [](std::string_view open, std::string_view close, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += open;
    out += "1";
    for (int i = 0; i < n; ++i) out += close;
    return out;
  };
  for (const auto& [open, close] : std::initializer_list<std::pair<const char*, const char*>>{
           {"(", ")"}, {"[", "]"}, {"not ", ""}, {"-", ""}, {"1 + ", ""}, {"{'a': ", "}"}}) {
    SCOPED_TRACE(open);
    const auto chat = Render("{{ " + nested(open, close, 100'000) + " }}", OneUser("hi"));
    EXPECT_EQ(chat.status().code(), absl::StatusCode::kInvalidArgument);
  }
  const std::string statements = nested("{% if true %}", "{% endif %}", 10'000);
  EXPECT_EQ(Render(statements, OneUser("hi")).status().code(), absl::StatusCode::kInvalidArgument);
  ChatInput input = OneUser("hi");
  input.tools_json = nested("[", "]", 100'000);
  EXPECT_EQ(Render("{{ tools | tojson }}", input).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, RefusesATemplateThatIsTooLarge) {
  const std::string source((std::size_t{1} << 20) + 1, 'x');
  EXPECT_EQ(Render(source, OneUser("hi")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, NamesTheFieldOfBadJson) {
  ChatInput input = OneUser("hi");
  input.tools_json = "{";
  EXPECT_THAT(std::string(Render("x", input).status().message()), HasSubstr("chat.tools_json"));
  input.tools_json = "";
  input.template_args_json = "[]";
  EXPECT_THAT(std::string(Render("x", input).status().message()), HasSubstr("template_args_json"));
  input.template_args_json = R"({"messages": []})";
  EXPECT_THAT(std::string(Render("x", input).status().message()), HasSubstr("'messages'"));
}

TEST(ChatTemplate, ContinuesTheFinalMessage) {
  ChatInput input = OneUser("hi");
  input.messages.push_back({.role = "assistant", .content = "So far"});
  input.add_generation_prompt = false;
  input.continue_final_message = true;
  EXPECT_TRUE(Text(kChatMl, input).ends_with("<|im_start|>assistant\nSo far"));
  input.add_generation_prompt = true;
  EXPECT_EQ(Render(kChatMl, input).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, SaysWhatIsWrongInOneLineWhateverItQuotes) {
  for (const char* source : {"{{ 'a\nb' 7 }}", "{{ messages['\n'].x.y }}", "{{ \n\x01 }}",
                             "{{ raise_exception('two\nlines') }}", "{% if\n'x\ny' z %}"}) {
    const auto chat = Render(source, OneUser("hello"), {});
    ASSERT_FALSE(chat.ok()) << source;
    const std::string message(chat.status().message());
    EXPECT_TRUE(std::all_of(message.begin(), message.end(), [](char c) { return c >= 0x20; }))
        << message;
  }
}

TEST(ChatTemplate, SurvivesRandomTemplates) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 rng(seed);
  const std::vector<std::string> pieces = {"{{ ",
                                           " }}",
                                           "{% ",
                                           " %}",
                                           "{%- ",
                                           "-%}",
                                           "if ",
                                           "endif",
                                           "for ",
                                           "x",
                                           " in ",
                                           "messages",
                                           "endfor",
                                           "set ",
                                           "=",
                                           "|",
                                           "join",
                                           "(",
                                           ")",
                                           "[",
                                           "]",
                                           ":",
                                           "'a'",
                                           "1",
                                           "-1",
                                           "macro ",
                                           "endmacro",
                                           ".",
                                           "content",
                                           "role",
                                           "~",
                                           "+",
                                           "is ",
                                           "not ",
                                           "defined",
                                           "loop",
                                           "index",
                                           "range(3)",
                                           "namespace()",
                                           "{#",
                                           "#}",
                                           ",",
                                           "else",
                                           "tojson",
                                           " ",
                                           "\n",
                                           "\"",
                                           "\\",
                                           "{",
                                           "}",
                                           "split",
                                           "('a')",
                                           "9223372036854775807",
                                           "%",
                                           "//",
                                           "0"};
  const ChatTemplateLimits limits = {.max_steps = 2000, .max_output_bytes = 4096};
  int ran = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string source;
    for (std::uint32_t n = rng() % 24; n > 0; --n) source += pieces[rng() % pieces.size()];
    const auto chat = Render(source, OneUser("naïve <|im_end|>"), limits);
    ran += chat.ok() ? 1 : 0;
    if (!chat.ok()) {
      ASSERT_EQ(chat.status().message().find('\n'), std::string::npos) << source;
    }
  }
  EXPECT_GT(ran, 100);  // not all of it is noise
}

}  // namespace
}  // namespace millrace

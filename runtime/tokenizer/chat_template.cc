#include "runtime/tokenizer/chat_template.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/tokenizer/jinja/ast.h"
#include "runtime/tokenizer/jinja/builtins.h"
#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/jinja/json.h"
#include "runtime/tokenizer/jinja/parser.h"

namespace millrace {
namespace {

using jinja::Dict;
using jinja::Interpreter;
using jinja::List;
using jinja::Text;
using jinja::Value;

void AddItem(std::string_view key, Value value, Dict* dict) {
  dict->emplace_back(Text(key, true), std::move(value));
}

void AddString(std::string_view key, const std::string& text, Dict* dict) {
  if (!text.empty()) AddItem(key, Value::OfString(text, false), dict);
}

// The shape of OpenAI's messages, which templates are written for: {id, type, function: {name,
// arguments}}.
absl::StatusOr<Value> ToolCallValue(const ChatToolCall& call, std::int32_t max_depth) {
  Dict function;
  AddItem("name", Value::OfString(call.name, false), &function);
  if (!call.arguments_json.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(
        Value arguments,
        jinja::ParseJson(call.arguments_json, "tool_calls.arguments_json", max_depth));
    AddItem("arguments", std::move(arguments), &function);
  }
  Dict out;
  AddString("id", call.id, &out);
  AddItem("type", Value::OfString("function", true), &out);
  AddItem("function", Value::OfDict(std::move(function)), &out);
  return Value::OfDict(std::move(out));
}

absl::StatusOr<Value> MessageValue(const ChatMessage& message, std::int32_t max_depth) {
  Dict out;
  AddItem("role", Value::OfString(message.role, false), &out);
  if (message.content) AddItem("content", Value::OfString(*message.content, false), &out);
  AddString("name", message.name, &out);
  if (!message.tool_calls.empty()) {
    List calls;
    for (const ChatToolCall& call : message.tool_calls) {
      MILLRACE_ASSIGN_OR_RETURN(Value value, ToolCallValue(call, max_depth));
      calls.push_back(std::move(value));
    }
    AddItem("tool_calls", Value::OfList(std::move(calls)), &out);
  }
  AddString("tool_call_id", message.tool_call_id, &out);
  AddString("reasoning_content", message.reasoning_content, &out);
  return Value::OfDict(std::move(out));
}

// Errors quote templates and messages, which may hold anything: what leaves here is one line that
// fits a screen.
absl::Status OneLine(const absl::Status& status) {
  constexpr std::size_t kMaxBytes = 300;
  std::string line;
  for (const char c : status.message().substr(0, kMaxBytes)) {
    if (c == '\n') {
      line += "\\n";
    } else {
      line += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    }
  }
  if (status.message().size() > kMaxBytes) line += "...";
  return absl::Status(status.code(), line);
}

std::string_view StripSpaces(std::string_view text, bool front, bool back) {
  constexpr std::string_view kSpaces = " \t\n\r\v\f";
  if (front) text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  if (back) text = text.substr(0, text.find_last_not_of(kSpaces) + 1);
  return text;
}

// Ends the text right after the content of the last message, so that the model goes on with it.
absl::StatusOr<Text> CutAfterFinalMessage(const Text& rendered, const ChatInput& input) {
  if (input.messages.empty() || !input.messages.back().content) {
    return absl::InvalidArgumentError(
        "chat.continue_final_message: the last message has no content");
  }
  const std::string& content = *input.messages.back().content;
  const std::string_view stripped = StripSpaces(content, true, true);
  const std::size_t at = rendered.bytes().rfind(stripped);
  if (stripped.empty() || at == std::string::npos) {
    return absl::InvalidArgumentError(
        "chat.continue_final_message: the template does not show the last message's content");
  }
  // The template may have kept the white space at its end, or not.
  const std::string_view kept = StripSpaces(content, true, false);
  const bool whole = std::string_view(rendered.bytes()).substr(at, kept.size()) == kept;
  return rendered.Slice(0, at + (whole ? kept.size() : stripped.size()));
}

class InterpretedTemplate final : public ChatTemplate {
 public:
  InterpretedTemplate(jinja::Block block, std::string bos, std::string eos,
                      ChatTemplateLimits limits)
      : block_(std::move(block)), bos_(std::move(bos)), eos_(std::move(eos)), limits_(limits) {}

  absl::StatusOr<RenderedChat> Render(const ChatInput& input) const override {
    absl::StatusOr<RenderedChat> rendered = TryRender(input);
    if (!rendered.ok()) return OneLine(rendered.status());
    return rendered;
  }

 private:
  absl::StatusOr<RenderedChat> TryRender(const ChatInput& input) const {
    if (input.continue_final_message && input.add_generation_prompt) {
      return absl::InvalidArgumentError(
          "chat.continue_final_message: only with add_generation_prompt = false");
    }
    MILLRACE_ASSIGN_OR_RETURN(Interpreter::Variables variables, MakeVariables(input));
    Interpreter interpreter(std::move(variables),
                            {limits_.max_steps, limits_.max_output_bytes, limits_.max_depth});
    MILLRACE_ASSIGN_OR_RETURN(Text text, interpreter.Run(block_));
    if (input.continue_final_message) {
      MILLRACE_ASSIGN_OR_RETURN(text, CutAfterFinalMessage(text, input));
    }
    RenderedChat out;
    std::size_t begin = 0;
    for (const Text::Run& run : text.runs()) {
      out.runs.push_back({text.bytes().substr(begin, run.length), run.trusted});
      begin += run.length;
    }
    return out;
  }

  absl::StatusOr<Interpreter::Variables> MakeVariables(const ChatInput& input) const {
    Interpreter::Variables variables;
    List messages;
    for (const ChatMessage& message : input.messages) {
      MILLRACE_ASSIGN_OR_RETURN(Value value, MessageValue(message, limits_.max_depth));
      messages.push_back(std::move(value));
    }
    variables["messages"] = Value::OfList(std::move(messages));
    variables["tools"] = Value::OfNone();
    variables["documents"] = Value::OfNone();
    variables["add_generation_prompt"] = Value::OfBool(input.add_generation_prompt);
    if (!bos_.empty()) variables["bos_token"] = Value::OfString(bos_, true);
    if (!eos_.empty()) variables["eos_token"] = Value::OfString(eos_, true);
    MILLRACE_RETURN_IF_ERROR(AddTools(input, &variables));
    MILLRACE_RETURN_IF_ERROR(AddArguments(input, &variables));
    return variables;
  }

  absl::Status AddTools(const ChatInput& input, Interpreter::Variables* variables) const {
    if (input.tools_json.empty()) return absl::OkStatus();
    MILLRACE_ASSIGN_OR_RETURN(
        Value tools, jinja::ParseJson(input.tools_json, "chat.tools_json", limits_.max_depth));
    if (tools.AsList() == nullptr) {
      return absl::InvalidArgumentError("chat.tools_json: want a JSON array of tools");
    }
    (*variables)["tools"] = std::move(tools);
    return absl::OkStatus();
  }

  absl::Status AddArguments(const ChatInput& input, Interpreter::Variables* variables) const {
    if (input.template_args_json.empty()) return absl::OkStatus();
    MILLRACE_ASSIGN_OR_RETURN(
        const Value arguments,
        jinja::ParseJson(input.template_args_json, "chat.template_args_json", limits_.max_depth));
    if (arguments.AsDict() == nullptr) {
      return absl::InvalidArgumentError("chat.template_args_json: want a JSON object");
    }
    for (const auto& [key, value] : *arguments.AsDict()) {
      // What the request says in fields of its own is not said twice; the tokens are the file's.
      if (variables->contains(key.bytes())) {
        return absl::InvalidArgumentError(
            absl::StrCat("chat.template_args_json: '", key.bytes(), "' is set by the server"));
      }
      (*variables)[key.bytes()] = value;
    }
    return absl::OkStatus();
  }

  const jinja::Block block_;
  const std::string bos_;
  const std::string eos_;
  const ChatTemplateLimits limits_;
};

}  // namespace

std::string RenderedChat::text() const {
  std::string out;
  for (const RenderedRun& run : runs) out += run.text;
  return out;
}

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                                        std::string bos_token,
                                                                        std::string eos_token,
                                                                        ChatTemplateLimits limits) {
  if (static_cast<std::int64_t>(source.size()) > limits.max_template_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("chat template: ", source.size(),
                                                   " bytes, at most ", limits.max_template_bytes));
  }
  absl::StatusOr<jinja::Block> block = jinja::ParseTemplate(source, limits.max_depth);
  if (!block.ok()) return OneLine(block.status());
  return std::make_unique<const InterpretedTemplate>(*std::move(block), std::move(bos_token),
                                                     std::move(eos_token), limits);
}

}  // namespace millrace

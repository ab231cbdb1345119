// Renders chats for comparison with another implementation: one JSON object a line on stdin, one a
// line on stdout.
//   in:  {"template", "bos", "eos", "messages": [...], "tools"?: JSON, "args"?: JSON,
//         "add_generation_prompt", "continue_final_message"}
//   out: {"text"} or {"error", "code"}
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/tokenizer/chat_template.h"

namespace {

using Json = nlohmann::json;

millrace::ChatMessage ReadMessage(const Json& json) {
  millrace::ChatMessage message;
  message.role = json.at("role");
  if (json.contains("content")) message.content = json["content"].get<std::string>();
  message.name = json.value("name", "");
  message.tool_call_id = json.value("tool_call_id", "");
  message.reasoning_content = json.value("reasoning_content", "");
  for (const Json& call : json.value("tool_calls", Json::array())) {
    message.tool_calls.push_back({call.value("id", ""), call.at("function").at("name"),
                                  call.at("function").at("arguments_json")});
  }
  return message;
}

Json Render(const Json& in) {
  const std::string source = in.at("template");
  const auto parsed =
      millrace::ChatTemplate::Parse(source, in.value("bos", ""), in.value("eos", ""));
  if (!parsed.ok()) {
    return {{"error", std::string(parsed.status().message())},
            {"code", static_cast<int>(parsed.status().code())}};
  }
  millrace::ChatInput input;
  for (const Json& message : in.at("messages")) input.messages.push_back(ReadMessage(message));
  input.tools_json = in.value("tools", "");
  input.template_args_json = in.value("args", "");
  input.add_generation_prompt = in.value("add_generation_prompt", true);
  input.continue_final_message = in.value("continue_final_message", false);
  const auto rendered = (*parsed)->Render(input);
  if (!rendered.ok()) {
    return {{"error", std::string(rendered.status().message())},
            {"code", static_cast<int>(rendered.status().code())}};
  }
  return {{"text", rendered->text()}};
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << Render(Json::parse(line)).dump() << '\n' << std::flush;
  }
  return 0;
}

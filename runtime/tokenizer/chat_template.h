// Chat templates: the bounded subset of Jinja that model files use, interpreted over the caller's
// messages. A template is data from a file of unknown origin, so: no attribute reaches anything but
// the messages and the template's own values, and steps, output and nesting are limited.
//
// Every character of the result carries where it came from: the template's own literals are
// trusted, text of messages, tools and arguments is not; so control tokens come from the template
// alone.
//
// Immutable after Parse and thread-safe; Render keeps its state on its own stack.
#ifndef MILLRACE_RUNTIME_TOKENIZER_CHAT_TEMPLATE_H_
#define MILLRACE_RUNTIME_TOKENIZER_CHAT_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

struct ChatToolCall {
  std::string id;
  std::string name;
  std::string arguments_json;  // a JSON object as text; templates see the parsed value
};

struct ChatMessage {
  std::string role;
  std::optional<std::string> content;
  std::string name;
  std::vector<ChatToolCall> tool_calls;
  std::string tool_call_id;
  std::string reasoning_content;
};

struct ChatInput {
  std::vector<ChatMessage> messages;
  std::string tools_json;          // a JSON array, or empty
  std::string template_args_json;  // a JSON object of extra variables (enable_thinking), or empty
  bool add_generation_prompt = true;
  bool continue_final_message = false;
};

// A run of the rendered text with its origin.
struct RenderedRun {
  std::string text;
  bool trusted = false;
};

// The rendered chat, as runs in order; neighbours differ in `trusted`.
struct RenderedChat {
  std::vector<RenderedRun> runs;
  std::string text() const;  // all runs joined
};

struct ChatTemplateLimits {
  std::int64_t max_template_bytes = std::int64_t{1} << 20;
  std::int64_t max_steps = 2'000'000;  // evaluated nodes of one rendering
  std::int64_t max_output_bytes = std::int64_t{8} << 20;
  std::int32_t max_depth = 64;  // of expressions, blocks, macro calls and values
};

class ChatTemplate {
 public:
  // `bos_token` and `eos_token` are the texts the template knows under these names.
  // UNIMPLEMENTED naming the construct and line that the interpreter cannot run; INVALID_ARGUMENT
  // for a syntax error.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Parse(std::string_view source,
                                                                   std::string bos_token,
                                                                   std::string eos_token,
                                                                   ChatTemplateLimits limits = {});
  virtual ~ChatTemplate() = default;

  // INVALID_ARGUMENT for input the template refuses (raise_exception), bad JSON, or a limit passed
  // (RESOURCE_EXHAUSTED); the message names what and where.
  virtual absl::StatusOr<RenderedChat> Render(const ChatInput& input) const = 0;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_CHAT_TEMPLATE_H_

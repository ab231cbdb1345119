// Runs a parsed template. One Interpreter is one rendering: not thread-safe, used once.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_INTERPRETER_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_INTERPRETER_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/jinja/ast.h"
#include "runtime/tokenizer/jinja/builtins.h"

namespace millrace::jinja {

struct RunLimits {
  std::int64_t max_steps;
  std::int64_t max_output_bytes;  // of the output, and of all strings made on the way
  std::int32_t max_depth;
};

class Interpreter {
 public:
  using Variables = std::map<std::string, Value, std::less<>>;

  Interpreter(Variables globals, RunLimits limits);

  // The rendered text. INVALID_ARGUMENT with the template's line for what goes wrong in it,
  // RESOURCE_EXHAUSTED when a limit is passed, UNIMPLEMENTED for a method that is not run.
  absl::StatusOr<Text> Run(const Block& block);

 private:
  enum class Flow : std::uint8_t { kNext, kBreak, kContinue };

  absl::StatusOr<Flow> RunBlock(const Block& block, Text* out);
  absl::StatusOr<Flow> RunStatement(const Statement& statement, Text* out);
  absl::StatusOr<Flow> RunIf(const IfStatement& node, Text* out);
  absl::StatusOr<Flow> RunFor(const ForStatement& node, Text* out);
  absl::StatusOr<Flow> RunLoopBody(const ForStatement& node, const List& items, std::size_t i,
                                   Text* out);
  absl::StatusOr<std::vector<Value>> LoopItems(const ForStatement& node);
  absl::Status BindTargets(const std::vector<std::string>& targets, const Value& value);
  absl::Status RunSet(const SetStatement& node);
  absl::StatusOr<Value> CallMacro(const MacroNode& macro, const CallArguments& arguments);

  absl::StatusOr<Value> Evaluate(const Expr& expr);
  absl::StatusOr<Value> EvaluateNode(const LiteralExpr& node);
  absl::StatusOr<Value> EvaluateNode(const NameExpr& node);
  absl::StatusOr<Value> EvaluateNode(const ListExpr& node);
  absl::StatusOr<Value> EvaluateNode(const DictExpr& node);
  absl::StatusOr<Value> EvaluateNode(const UnaryExpr& node);
  absl::StatusOr<Value> EvaluateNode(const BinaryExpr& node);
  absl::StatusOr<Value> EvaluateNode(const ConditionalExpr& node);
  absl::StatusOr<Value> EvaluateNode(const AttributeExpr& node);
  absl::StatusOr<Value> EvaluateNode(const SubscriptExpr& node);
  absl::StatusOr<Value> EvaluateNode(const SliceExpr& node);
  absl::StatusOr<Value> EvaluateNode(const CallExpr& node);
  absl::StatusOr<Value> EvaluateNode(const FilterExpr& node);
  absl::StatusOr<Value> EvaluateNode(const TestExpr& node);
  absl::StatusOr<CallArguments> EvaluateArguments(const std::vector<Argument>& arguments);
  absl::StatusOr<Value> Attribute(const Value& object, const std::string& name);

  absl::Status Step();
  // Counts what strings cost, so that doubling one in a loop ends.
  absl::Status Charge(std::size_t bytes);
  absl::Status At(int line, const absl::Status& status) const;
  const Value* Find(std::string_view name) const;

  const RunLimits limits_;
  std::int64_t steps_ = 0;
  std::int64_t bytes_ = 0;
  std::int32_t depth_ = 0;
  std::vector<Variables> scopes_;  // the globals first, the innermost loop last
};

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_INTERPRETER_H_

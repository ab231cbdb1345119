#include "runtime/tokenizer/jinja/interpreter.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace millrace::jinja {
namespace {

absl::Status UndefinedUsed(const Value& value) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::get<Undefined>(value.data()).name, "' is undefined"));
}

absl::Status Mismatch(std::string_view op, const Value& a, const Value& b) {
  if (a.is_undefined()) return UndefinedUsed(a);
  if (b.is_undefined()) return UndefinedUsed(b);
  return absl::InvalidArgumentError(absl::StrCat(
      "cannot ", std::string(op), " ", std::string(a.kind()), " and ", std::string(b.kind())));
}

absl::StatusOr<Value> IntegerMath(BinaryOp op, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  bool overflow = false;
  switch (op) {
    case BinaryOp::kAdd:
      overflow = __builtin_add_overflow(a, b, &out);
      break;
    case BinaryOp::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &out);
      break;
    case BinaryOp::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &out);
      break;
    default:
      if (b == 0) return absl::InvalidArgumentError("division by zero");
      if (b == -1) {  // the one quotient that overflows, and a remainder of 0
        overflow = op == BinaryOp::kFloorDivide && __builtin_sub_overflow(std::int64_t{0}, a, &out);
        if (op == BinaryOp::kModulo) out = 0;
        break;
      }
      // Python rounds towards minus infinity.
      out = a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
      if (op == BinaryOp::kModulo) out = a - out * b;
  }
  if (overflow) return absl::InvalidArgumentError("an integer beyond 64 bits");
  return Value::OfInt(out);
}

absl::StatusOr<Value> NumberMath(BinaryOp op, const Value& a, const Value& b) {
  if (op != BinaryOp::kDivide && a.AsInteger() && b.AsInteger()) {
    return IntegerMath(op, *a.AsInteger(), *b.AsInteger());
  }
  const double x = *a.AsNumber();
  const double y = *b.AsNumber();
  double out = 0;
  switch (op) {
    case BinaryOp::kAdd:
      out = x + y;
      break;
    case BinaryOp::kSubtract:
      out = x - y;
      break;
    case BinaryOp::kMultiply:
      out = x * y;
      break;
    default:
      if (y == 0) return absl::InvalidArgumentError("division by zero");
      out = op == BinaryOp::kDivide ? x / y : std::floor(x / y);
      if (op == BinaryOp::kModulo) out = x - out * y;
  }
  return Value(Value::Data(out));
}

absl::StatusOr<Value> Add(const Value& a, const Value& b) {
  if (a.AsText() != nullptr && b.AsText() != nullptr) {
    Text out = *a.AsText();
    out.Append(*b.AsText());
    return Value::OfText(std::move(out));
  }
  if (a.AsList() != nullptr && b.AsList() != nullptr) {
    List out = *a.AsList();
    out.insert(out.end(), b.AsList()->begin(), b.AsList()->end());
    return Value::OfList(std::move(out));
  }
  return Mismatch("add", a, b);
}

absl::StatusOr<Value> Compare(BinaryOp op, const Value& a, const Value& b) {
  int order = 0;
  if (a.AsNumber() && b.AsNumber()) {
    const double x = *a.AsNumber();
    const double y = *b.AsNumber();
    order = x < y ? -1 : x > y ? 1 : 0;
  } else if (a.AsText() != nullptr && b.AsText() != nullptr) {
    order = a.AsText()->bytes().compare(b.AsText()->bytes());
  } else {
    return Mismatch("compare", a, b);
  }
  switch (op) {
    case BinaryOp::kLess:
      return Value::OfBool(order < 0);
    case BinaryOp::kLessEqual:
      return Value::OfBool(order <= 0);
    case BinaryOp::kGreater:
      return Value::OfBool(order > 0);
    default:
      return Value::OfBool(order >= 0);
  }
}

absl::StatusOr<Value> Binary(BinaryOp op, const Value& a, const Value& b) {
  switch (op) {
    case BinaryOp::kEqual:
      return Value::OfBool(Equal(a, b));
    case BinaryOp::kNotEqual:
      return Value::OfBool(!Equal(a, b));
    case BinaryOp::kLess:
    case BinaryOp::kLessEqual:
    case BinaryOp::kGreater:
    case BinaryOp::kGreaterEqual:
      return Compare(op, a, b);
    case BinaryOp::kIn:
    case BinaryOp::kNotIn: {
      MILLRACE_ASSIGN_OR_RETURN(const bool contains, Contains(b, a));
      return Value::OfBool(contains == (op == BinaryOp::kIn));
    }
    case BinaryOp::kConcat: {
      Text out = ToText(a);
      out.Append(ToText(b));
      return Value::OfText(std::move(out));
    }
    default:
      break;
  }
  if (a.AsNumber() && b.AsNumber()) return NumberMath(op, a, b);
  if (op == BinaryOp::kAdd) return Add(a, b);
  return Mismatch("calculate with", a, b);
}

// Python's slice over n items: the indexes it picks.
std::vector<std::size_t> SliceIndexes(std::int64_t n, std::optional<std::int64_t> begin,
                                      std::optional<std::int64_t> end, std::int64_t step) {
  const auto clamp = [n](std::int64_t i, std::int64_t low, std::int64_t high) {
    return std::clamp(i < 0 ? i + n : i, low, high);
  };
  std::vector<std::size_t> out;
  if (step > 0) {
    const std::int64_t from = begin ? clamp(*begin, 0, n) : 0;
    const std::int64_t to = end ? clamp(*end, 0, n) : n;
    for (std::int64_t i = from; i < to; i += std::min(step, n + 1))
      out.push_back(static_cast<std::size_t>(i));
  } else {
    const std::int64_t from = begin ? clamp(*begin, -1, n - 1) : n - 1;
    const std::int64_t to = end ? clamp(*end, -1, n - 1) : -1;
    for (std::int64_t i = from; i > to; i += std::max(step, -n - 1))
      out.push_back(static_cast<std::size_t>(i));
  }
  return out;
}

Value LoopVariable(const List& items, std::size_t i) {
  const auto n = static_cast<std::int64_t>(items.size());
  const auto index = static_cast<std::int64_t>(i);
  const auto key = [](std::string_view name) { return Text(name, true); };
  Dict loop;
  loop.emplace_back(key("index"), Value::OfInt(index + 1));
  loop.emplace_back(key("index0"), Value::OfInt(index));
  loop.emplace_back(key("revindex"), Value::OfInt(n - index));
  loop.emplace_back(key("revindex0"), Value::OfInt(n - index - 1));
  loop.emplace_back(key("first"), Value::OfBool(i == 0));
  loop.emplace_back(key("last"), Value::OfBool(index + 1 == n));
  loop.emplace_back(key("length"), Value::OfInt(n));
  if (i > 0) loop.emplace_back(key("previtem"), items[i - 1]);
  if (index + 1 < n) loop.emplace_back(key("nextitem"), items[i + 1]);
  return Value::OfDict(std::move(loop));
}

}  // namespace

Interpreter::Interpreter(Variables globals, RunLimits limits) : limits_(limits) {
  scopes_.push_back(std::move(globals));
}

absl::StatusOr<Text> Interpreter::Run(const Block& block) {
  Text out;
  MILLRACE_RETURN_IF_ERROR(RunBlock(block, &out).status());
  return out;
}

absl::Status Interpreter::Step() {
  if (++steps_ <= limits_.max_steps) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("more than ", limits_.max_steps, " steps; the template does too much"));
}

absl::Status Interpreter::Charge(std::size_t bytes) {
  bytes_ += static_cast<std::int64_t>(bytes);
  // Strings made on the way are paid for too, with a factor for those that are built piece by
  // piece.
  if (bytes_ <= 16 * limits_.max_output_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("more than ", 16 * limits_.max_output_bytes, " bytes of text on the way"));
}

absl::Status Interpreter::At(int line, const absl::Status& status) const {
  const std::string message(status.message());
  if (absl::StartsWith(message, "chat template, line ")) return status;
  return absl::Status(status.code(), absl::StrCat("chat template, line ", line, ": ", message));
}

const Value* Interpreter::Find(std::string_view name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->find(name);
    if (found != scope->end()) return &found->second;
  }
  return nullptr;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunBlock(const Block& block, Text* out) {
  for (const auto& statement : block) {
    absl::StatusOr<Flow> flow = RunStatement(*statement, out);
    if (!flow.ok()) return At(statement->line, flow.status());
    if (static_cast<std::int64_t>(out->size()) > limits_.max_output_bytes) {
      return At(statement->line, absl::ResourceExhaustedError(absl::StrCat(
                                     "more than ", limits_.max_output_bytes, " bytes of output")));
    }
    if (*flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunStatement(const Statement& statement, Text* out) {
  MILLRACE_RETURN_IF_ERROR(Step());
  if (const auto* data = std::get_if<DataStatement>(&statement.node)) {
    out->Append(data->text, true);
  } else if (const auto* print = std::get_if<PrintStatement>(&statement.node)) {
    MILLRACE_ASSIGN_OR_RETURN(const Value value, Evaluate(*print->value));
    const Text text = ToText(value);
    MILLRACE_RETURN_IF_ERROR(Charge(text.size()));
    out->Append(text);
  } else if (const auto* branch = std::get_if<IfStatement>(&statement.node)) {
    return RunIf(*branch, out);
  } else if (const auto* loop = std::get_if<ForStatement>(&statement.node)) {
    return RunFor(*loop, out);
  } else if (const auto* set = std::get_if<SetStatement>(&statement.node)) {
    MILLRACE_RETURN_IF_ERROR(RunSet(*set));
  } else if (const auto* macro = std::get_if<MacroNode>(&statement.node)) {
    scopes_.back()[macro->name] =
        Value(std::make_shared<const Callable>(Callable{macro, macro->name, {}}));
  } else if (const auto* group = std::get_if<GroupStatement>(&statement.node)) {
    return RunBlock(group->body, out);
  } else {
    return std::holds_alternative<BreakStatement>(statement.node) ? Flow::kBreak : Flow::kContinue;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunIf(const IfStatement& node, Text* out) {
  for (const auto& [condition, body] : node.branches) {
    if (condition != nullptr) {
      MILLRACE_ASSIGN_OR_RETURN(const Value value, Evaluate(*condition));
      if (!Truthy(value)) continue;
    }
    return RunBlock(body, out);
  }
  return Flow::kNext;
}

absl::Status Interpreter::BindTargets(const std::vector<std::string>& targets, const Value& value) {
  if (targets.size() == 1) {
    scopes_.back()[targets[0]] = value;
    return absl::OkStatus();
  }
  MILLRACE_ASSIGN_OR_RETURN(const List items, Iterate(value));
  if (items.size() != targets.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot unpack ", items.size(), " values into ", targets.size(), " names"));
  }
  for (std::size_t i = 0; i < targets.size(); ++i) scopes_.back()[targets[i]] = items[i];
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(const ForStatement& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*node.iterable));
  MILLRACE_ASSIGN_OR_RETURN(List items, Iterate(iterable));
  if (node.condition == nullptr) return items;
  List kept;
  for (Value& item : items) {
    scopes_.emplace_back();
    absl::Status bound = BindTargets(node.targets, item);
    absl::StatusOr<Value> keep =
        bound.ok() ? Evaluate(*node.condition) : absl::StatusOr<Value>(bound);
    scopes_.pop_back();
    MILLRACE_RETURN_IF_ERROR(keep.status());
    if (Truthy(*keep)) kept.push_back(std::move(item));
  }
  return kept;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunLoopBody(const ForStatement& node,
                                                           const List& items, std::size_t i,
                                                           Text* out) {
  // A scope of its own for each round: what a round sets is gone in the next one.
  scopes_.emplace_back();
  scopes_.back()["loop"] = LoopVariable(items, i);
  const absl::Status bound = BindTargets(node.targets, items[i]);
  absl::StatusOr<Flow> flow = bound.ok() ? RunBlock(node.body, out) : absl::StatusOr<Flow>(bound);
  scopes_.pop_back();
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunFor(const ForStatement& node, Text* out) {
  MILLRACE_ASSIGN_OR_RETURN(const List items, LoopItems(node));
  if (items.empty()) return RunBlock(node.otherwise, out);
  for (std::size_t i = 0; i < items.size(); ++i) {
    MILLRACE_RETURN_IF_ERROR(Step());
    MILLRACE_ASSIGN_OR_RETURN(const Flow flow, RunLoopBody(node, items, i, out));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

absl::Status Interpreter::RunSet(const SetStatement& node) {
  Value value;
  if (node.value != nullptr) {
    MILLRACE_ASSIGN_OR_RETURN(value, Evaluate(*node.value));
  } else {
    Text text;
    MILLRACE_RETURN_IF_ERROR(RunBlock(node.body, &text).status());
    value = Value::OfText(std::move(text));
  }
  if (node.attribute.empty()) return BindTargets(node.targets, value);
  const Value* target = Find(node.targets[0]);
  if (target == nullptr || target->AsNamespace() == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("'", node.targets[0], "' is no namespace"));
  }
  // A namespace inside itself would never be freed.
  if (value.AsNamespace() != nullptr) {
    return absl::UnimplementedError("a namespace in a namespace is not supported");
  }
  (*target->AsNamespace())[node.attribute] = value;
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::CallMacro(const MacroNode& macro,
                                             const CallArguments& arguments) {
  if (arguments.positional.size() > macro.parameters.size()) {
    return absl::InvalidArgumentError(absl::StrCat("macro '", macro.name, "' takes not more than ",
                                                   macro.parameters.size(), " arguments"));
  }
  if (++depth_ > limits_.max_depth) {
    return absl::ResourceExhaustedError(
        absl::StrCat("macros nested deeper than ", limits_.max_depth));
  }
  Variables locals;
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, otherwise] = macro.parameters[i];
    if (const Value* given = arguments.Get(i, name)) {
      locals[name] = *given;
    } else if (otherwise != nullptr) {
      MILLRACE_ASSIGN_OR_RETURN(locals[name], Evaluate(*otherwise));
    } else {
      locals[name] = Value(Value::Data(Undefined{name}));
    }
  }
  // A macro sees its arguments and the template's top level, not the caller's loops.
  std::vector<Variables> outer;
  outer.swap(scopes_);
  scopes_.push_back(std::move(outer.front()));
  scopes_.push_back(std::move(locals));
  Text text;
  const absl::Status ran = RunBlock(macro.body, &text).status();
  outer.front() = std::move(scopes_.front());
  scopes_.swap(outer);
  --depth_;
  MILLRACE_RETURN_IF_ERROR(ran);
  return Value::OfText(std::move(text));
}

absl::StatusOr<Value> Interpreter::Evaluate(const Expr& expr) {
  MILLRACE_RETURN_IF_ERROR(Step());
  absl::StatusOr<Value> value =
      std::visit([this](const auto& node) { return EvaluateNode(node); }, expr.node);
  if (!value.ok()) return At(expr.line, value.status());
  if (const Text* text = value->AsText()) {
    // A literal costs its step; a string that was made costs its bytes.
    if (!std::holds_alternative<LiteralExpr>(expr.node) &&
        !std::holds_alternative<NameExpr>(expr.node)) {
      MILLRACE_RETURN_IF_ERROR(Charge(text->size()));
    }
  } else if (const List* list = value->AsList()) {
    if (!std::holds_alternative<NameExpr>(expr.node))
      MILLRACE_RETURN_IF_ERROR(Charge(list->size() * sizeof(Value)));
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const LiteralExpr& node) { return node.value; }

absl::StatusOr<Value> Interpreter::EvaluateNode(const NameExpr& node) {
  if (const Value* value = Find(node.name)) return *value;
  if (IsGlobalFunction(node.name)) {
    return Value(std::make_shared<const Callable>(Callable{nullptr, node.name, {}}));
  }
  return Value(Value::Data(Undefined{node.name}));
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const ListExpr& node) {
  List list;
  for (const ExprPtr& item : node.items) {
    MILLRACE_ASSIGN_OR_RETURN(Value value, Evaluate(*item));
    list.push_back(std::move(value));
  }
  return Value::OfList(std::move(list));
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const DictExpr& node) {
  Dict dict;
  for (const auto& [key_expr, value_expr] : node.items) {
    MILLRACE_ASSIGN_OR_RETURN(const Value key, Evaluate(*key_expr));
    MILLRACE_ASSIGN_OR_RETURN(Value value, Evaluate(*value_expr));
    if (key.AsText() == nullptr)
      return absl::UnimplementedError("keys of mappings other than strings are not supported");
    dict.emplace_back(*key.AsText(), std::move(value));
  }
  return Value::OfDict(std::move(dict));
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const UnaryExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.operand));
  if (node.op == UnaryOp::kNot) return Value::OfBool(!Truthy(value));
  if (!value.AsNumber()) return Mismatch("negate", value, value);
  if (node.op == UnaryOp::kPlus) return value;
  return NumberMath(BinaryOp::kSubtract, Value::OfInt(0), value);
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const BinaryExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(Value left, Evaluate(*node.left));
  if (node.op == BinaryOp::kAnd && !Truthy(left)) return left;
  if (node.op == BinaryOp::kOr && Truthy(left)) return left;
  MILLRACE_ASSIGN_OR_RETURN(Value right, Evaluate(*node.right));
  if (node.op == BinaryOp::kAnd || node.op == BinaryOp::kOr) return right;
  return Binary(node.op, left, right);
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const ConditionalExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.condition));
  if (Truthy(condition)) return Evaluate(*node.then);
  return node.otherwise == nullptr ? Value() : Evaluate(*node.otherwise);
}

absl::StatusOr<Value> Interpreter::Attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) return UndefinedUsed(object);
  if (IsMethod(object, name)) {
    return Value(std::make_shared<const Callable>(
        Callable{nullptr, name, std::make_shared<const Value>(object)}));
  }
  return GetItem(object, Value::OfString(name, true));
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const AttributeExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object));
  return Attribute(object, node.name);
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const SubscriptExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object));
  MILLRACE_ASSIGN_OR_RETURN(const Value key, Evaluate(*node.key));
  if (object.is_undefined()) return UndefinedUsed(object);
  Value item = GetItem(object, key);
  // As in Jinja, object["name"] falls back to what object.name is.
  if (item.is_undefined() && key.AsText() != nullptr)
    return Attribute(object, key.AsText()->bytes());
  return item;
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const SliceExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value object, Evaluate(*node.object));
  std::optional<std::int64_t> bounds[3];
  const ExprPtr* parts[3] = {&node.begin, &node.end, &node.step};
  for (int i = 0; i < 3; ++i) {
    if (*parts[i] == nullptr) continue;
    MILLRACE_ASSIGN_OR_RETURN(const Value bound, Evaluate(**parts[i]));
    if (bound.is_none()) continue;
    bounds[i] = bound.AsInteger();
    if (!bounds[i]) return absl::InvalidArgumentError("a slice needs integers");
  }
  const std::int64_t step = bounds[2].value_or(1);
  if (step == 0) return absl::InvalidArgumentError("a slice with a step of 0");
  if (object.is_undefined()) return UndefinedUsed(object);
  if (object.AsList() == nullptr && object.AsText() == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("cannot slice ", std::string(object.kind())));
  }
  MILLRACE_ASSIGN_OR_RETURN(const List items, Iterate(object));
  List picked;
  for (const std::size_t i :
       SliceIndexes(static_cast<std::int64_t>(items.size()), bounds[0], bounds[1], step)) {
    picked.push_back(items[i]);
  }
  if (object.AsList() != nullptr) return Value::OfList(std::move(picked));
  Text text;
  for (const Value& character : picked) text.Append(*character.AsText());
  return Value::OfText(std::move(text));
}

absl::StatusOr<CallArguments> Interpreter::EvaluateArguments(
    const std::vector<Argument>& arguments) {
  CallArguments out;
  for (const Argument& argument : arguments) {
    MILLRACE_ASSIGN_OR_RETURN(Value value, Evaluate(*argument.value));
    if (argument.name.empty()) {
      out.positional.push_back(std::move(value));
    } else {
      out.named.emplace_back(argument.name, std::move(value));
    }
  }
  return out;
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const CallExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value callee, Evaluate(*node.callee));
  MILLRACE_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(node.arguments));
  const Callable* callable = callee.AsCallable();
  if (callable == nullptr) {
    if (callee.is_undefined()) {
      return absl::UnimplementedError(absl::StrCat("the function or method '",
                                                   std::get<Undefined>(callee.data()).name,
                                                   "' is not supported"));
    }
    return absl::InvalidArgumentError(absl::StrCat("cannot call ", std::string(callee.kind())));
  }
  if (callable->macro != nullptr) return CallMacro(*callable->macro, arguments);
  if (callable->self != nullptr) return CallMethod(*callable->self, callable->name, arguments);
  return CallGlobal(callable->name, arguments);
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const FilterExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value input, Evaluate(*node.input));
  MILLRACE_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(node.arguments));
  return CallFilter(node.name, input, arguments);
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const TestExpr& node) {
  MILLRACE_ASSIGN_OR_RETURN(const Value input, Evaluate(*node.input));
  MILLRACE_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(node.arguments));
  MILLRACE_ASSIGN_OR_RETURN(const bool holds, CallTest(node.name, input, arguments));
  return Value::OfBool(holds != node.negated);
}

}  // namespace millrace::jinja

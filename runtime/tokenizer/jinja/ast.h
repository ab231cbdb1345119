// The syntax tree of a template. Plain data, immutable after parsing; nesting is bounded by the
// parser.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_AST_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_AST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/tokenizer/jinja/value.h"

namespace millrace::jinja {

struct Expr;
struct Statement;
using ExprPtr = std::unique_ptr<const Expr>;
using Block = std::vector<std::unique_ptr<const Statement>>;

// Positional arguments have an empty name.
struct Argument {
  std::string name;
  ExprPtr value;
};

enum class BinaryOp : std::uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kConcat,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
  kAnd,
  kOr,
};
enum class UnaryOp : std::uint8_t { kNot, kMinus, kPlus };

struct LiteralExpr {
  Value value;
};
struct NameExpr {
  std::string name;
};
struct ListExpr {
  std::vector<ExprPtr> items;
};
struct DictExpr {
  std::vector<std::pair<ExprPtr, ExprPtr>> items;
};
struct UnaryExpr {
  UnaryOp op;
  ExprPtr operand;
};
struct BinaryExpr {
  BinaryOp op;
  ExprPtr left, right;
};
struct ConditionalExpr {
  ExprPtr condition, then, otherwise;  // `otherwise` may be null: undefined
};
struct AttributeExpr {  // object.name, or object[key]
  ExprPtr object;
  std::string name;
};
struct SubscriptExpr {
  ExprPtr object, key;
};
struct SliceExpr {  // bounds may be null
  ExprPtr object, begin, end, step;
};
struct CallExpr {
  ExprPtr callee;
  std::vector<Argument> arguments;
};
struct FilterExpr {
  ExprPtr input;
  std::string name;
  std::vector<Argument> arguments;
};
struct TestExpr {
  ExprPtr input;
  std::string name;
  std::vector<Argument> arguments;
  bool negated;
};

struct Expr {
  int line;
  std::int32_t depth;  // of the tree below: bounds the evaluator's stack
  std::variant<LiteralExpr, NameExpr, ListExpr, DictExpr, UnaryExpr, BinaryExpr, ConditionalExpr,
               AttributeExpr, SubscriptExpr, SliceExpr, CallExpr, FilterExpr, TestExpr>
      node;
};

struct DataStatement {
  std::string text;
};
struct PrintStatement {
  ExprPtr value;
};
struct IfStatement {
  // A branch without a condition is the else.
  std::vector<std::pair<ExprPtr, Block>> branches;
};
struct ForStatement {
  std::vector<std::string> targets;
  ExprPtr iterable;
  ExprPtr condition;  // null: every item
  Block body, otherwise;
};
struct SetStatement {
  std::vector<std::string> targets;
  std::string attribute;  // of targets[0], a namespace; empty: the name itself
  ExprPtr value;          // null: the body, printed
  Block body;
};
struct MacroNode {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // default may be null
  Block body;
};
struct BreakStatement {};
struct ContinueStatement {};
// {% generation %} marks what a model wrote, for training; the text is what counts here.
struct GroupStatement {
  Block body;
};

struct Statement {
  int line;
  std::variant<DataStatement, PrintStatement, IfStatement, ForStatement, SetStatement, MacroNode,
               BreakStatement, ContinueStatement, GroupStatement>
      node;
};

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_AST_H_

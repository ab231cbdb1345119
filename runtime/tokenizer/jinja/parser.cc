#include "runtime/tokenizer/jinja/parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/tokenizer/jinja/builtins.h"
#include "runtime/tokenizer/jinja/lexer.h"

namespace millrace::jinja {
namespace {

struct BinaryRule {
  std::string_view text;
  BinaryOp op;
};

constexpr std::array<BinaryRule, 6> kComparisons = {{{"==", BinaryOp::kEqual},
                                                     {"!=", BinaryOp::kNotEqual},
                                                     {"<=", BinaryOp::kLessEqual},
                                                     {">=", BinaryOp::kGreaterEqual},
                                                     {"<", BinaryOp::kLess},
                                                     {">", BinaryOp::kGreater}}};
constexpr std::array<BinaryRule, 2> kSums = {{{"+", BinaryOp::kAdd}, {"-", BinaryOp::kSubtract}}};
constexpr std::array<BinaryRule, 4> kProducts = {{{"*", BinaryOp::kMultiply},
                                                  {"/", BinaryOp::kDivide},
                                                  {"//", BinaryOp::kFloorDivide},
                                                  {"%", BinaryOp::kModulo}}};

class Parser {
 public:
  Parser(std::vector<Token> tokens, std::int32_t max_depth)
      : tokens_(std::move(tokens)), max_depth_(max_depth) {}

  absl::StatusOr<Block> Run() {
    MILLRACE_ASSIGN_OR_RETURN(Block block, ParseBlock({}));
    if (Peek().kind != TokenKind::kEnd) return Error("unexpected end of a block");
    return block;
  }

 private:
  // Counts nesting while it is alive, of statements and of expressions alike.
  class Nested {
   public:
    explicit Nested(std::int32_t* depth) : depth_(depth) { ++*depth_; }
    ~Nested() { --*depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    std::int32_t* depth_;
  };

  const Token& Peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token Take() {
    Token token = Peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool IsOperator(std::string_view text) const {
    return Peek().kind == TokenKind::kOperator && Peek().text == text;
  }
  bool IsName(std::string_view text) const {
    return Peek().kind == TokenKind::kName && Peek().text == text;
  }
  bool TakeOperator(std::string_view text) {
    if (!IsOperator(text)) return false;
    Take();
    return true;
  }
  bool TakeName(std::string_view text) {
    if (!IsName(text)) return false;
    Take();
    return true;
  }
  absl::Status Expect(std::string_view op) {
    if (TakeOperator(op)) return absl::OkStatus();
    return Error(absl::StrCat("expected '", std::string(op), "'"));
  }
  absl::StatusOr<std::string> ExpectName() {
    if (Peek().kind != TokenKind::kName) return Error("expected a name");
    return Take().text;
  }
  absl::Status ExpectBlockEnd() {
    if (Peek().kind != TokenKind::kBlockEnd) return Error("expected the end of the statement");
    Take();
    return absl::OkStatus();
  }
  absl::Status Error(std::string_view what) const {
    const std::string& text = Peek().text;
    return absl::InvalidArgumentError(absl::StrCat("chat template, line ", Peek().line, ": ",
                                                   std::string(what),
                                                   text.empty() ? "" : ", got '" + text + "'"));
  }
  absl::Status NotRun(std::string_view kind, std::string_view name) const {
    return absl::UnimplementedError(absl::StrCat("chat template, line ", Peek().line, ": the ",
                                                 std::string(kind), " '", std::string(name),
                                                 "' is not supported"));
  }
  absl::Status CheckDepth() const {
    return depth_ <= max_depth_ ? absl::OkStatus()
                                : Error(absl::StrCat("nested deeper than ", max_depth_));
  }

  // Statements up to a block that begins with one of `ends`, which is left in place after its "{%".
  absl::StatusOr<Block> ParseBlock(std::initializer_list<std::string_view> ends) {
    const Nested nested(&depth_);
    MILLRACE_RETURN_IF_ERROR(CheckDepth());
    Block block;
    while (Peek().kind != TokenKind::kEnd) {
      if (Peek().kind == TokenKind::kBlockBegin && Peek(1).kind == TokenKind::kName &&
          std::find(ends.begin(), ends.end(), Peek(1).text) != ends.end()) {
        Take();
        return block;
      }
      MILLRACE_ASSIGN_OR_RETURN(auto statement, ParseStatement());
      block.push_back(std::move(statement));
    }
    if (ends.size() > 0) return Error(absl::StrCat("no '", std::string(*ends.begin()), "'"));
    return block;
  }

  template <typename T>
  static std::unique_ptr<const Statement> Make(int line, T node) {
    return std::make_unique<const Statement>(Statement{line, std::move(node)});
  }

  absl::StatusOr<std::unique_ptr<const Statement>> ParseStatement() {
    const int line = Peek().line;
    if (Peek().kind == TokenKind::kData) return Make(line, DataStatement{Take().text});
    if (Peek().kind == TokenKind::kPrintBegin) {
      Take();
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr value, ParseTuple());
      if (Peek().kind != TokenKind::kPrintEnd) return Error("expected '}}'");
      Take();
      return Make(line, PrintStatement{std::move(value)});
    }
    Take();  // kBlockBegin
    MILLRACE_ASSIGN_OR_RETURN(const std::string name, ExpectName());
    if (name == "if") return ParseIf(line);
    if (name == "for") return ParseFor(line);
    if (name == "set") return ParseSet(line);
    if (name == "macro") return ParseMacro(line);
    if (name == "generation") {
      MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
      MILLRACE_ASSIGN_OR_RETURN(Block body, ParseBlock({"endgeneration"}));
      MILLRACE_RETURN_IF_ERROR(TakeEnd());
      return Make(line, GroupStatement{std::move(body)});
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return Error(absl::StrCat("'", name, "' outside of a loop"));
      MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
      if (name == "break") return Make(line, BreakStatement{});
      return Make(line, ContinueStatement{});
    }
    if (name.starts_with("end") || name == "else" || name == "elif") {
      return Error(absl::StrCat("'", name, "' without its beginning"));
    }
    return NotRun("statement", name);
  }

  // The name that ended a block, and its closing marker.
  absl::Status TakeEnd() {
    Take();
    return ExpectBlockEnd();
  }

  absl::StatusOr<std::unique_ptr<const Statement>> ParseIf(int line) {
    IfStatement node;
    bool more = true;
    while (more) {
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr condition, ParseExpr());
      MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
      MILLRACE_ASSIGN_OR_RETURN(Block body, ParseBlock({"endif", "elif", "else"}));
      node.branches.emplace_back(std::move(condition), std::move(body));
      more = TakeName("elif");
    }
    if (TakeName("else")) {
      MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
      MILLRACE_ASSIGN_OR_RETURN(Block body, ParseBlock({"endif"}));
      node.branches.emplace_back(nullptr, std::move(body));
    }
    MILLRACE_RETURN_IF_ERROR(TakeEnd());
    return Make(line, std::move(node));
  }

  absl::StatusOr<std::vector<std::string>> ParseTargets() {
    std::vector<std::string> targets;
    const bool parenthesis = TakeOperator("(");
    do {
      MILLRACE_ASSIGN_OR_RETURN(std::string name, ExpectName());
      targets.push_back(std::move(name));
    } while (TakeOperator(","));
    if (parenthesis) MILLRACE_RETURN_IF_ERROR(Expect(")"));
    return targets;
  }

  absl::StatusOr<std::unique_ptr<const Statement>> ParseFor(int line) {
    ForStatement node;
    MILLRACE_ASSIGN_OR_RETURN(node.targets, ParseTargets());
    if (!TakeName("in")) return Error("expected 'in'");
    MILLRACE_ASSIGN_OR_RETURN(node.iterable, ParseOr());
    if (TakeName("if")) {
      MILLRACE_ASSIGN_OR_RETURN(node.condition, ParseExpr());
    }
    if (IsName("recursive")) return NotRun("statement", "for ... recursive");
    MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
    ++loops_;
    absl::StatusOr<Block> body = ParseBlock({"endfor", "else"});
    --loops_;
    MILLRACE_ASSIGN_OR_RETURN(node.body, std::move(body));
    if (TakeName("else")) {
      MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
      MILLRACE_ASSIGN_OR_RETURN(node.otherwise, ParseBlock({"endfor"}));
    }
    MILLRACE_RETURN_IF_ERROR(TakeEnd());
    return Make(line, std::move(node));
  }

  absl::StatusOr<std::unique_ptr<const Statement>> ParseSet(int line) {
    SetStatement node;
    MILLRACE_ASSIGN_OR_RETURN(node.targets, ParseTargets());
    if (node.targets.size() == 1 && TakeOperator(".")) {
      MILLRACE_ASSIGN_OR_RETURN(node.attribute, ExpectName());
    }
    if (TakeOperator("=")) {
      MILLRACE_ASSIGN_OR_RETURN(node.value, ParseTuple());
      MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
      return Make(line, std::move(node));
    }
    if (IsOperator("|")) return NotRun("statement", "set ... | filter");
    MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
    MILLRACE_ASSIGN_OR_RETURN(node.body, ParseBlock({"endset"}));
    MILLRACE_RETURN_IF_ERROR(TakeEnd());
    return Make(line, std::move(node));
  }

  absl::StatusOr<std::unique_ptr<const Statement>> ParseMacro(int line) {
    MacroNode node;
    MILLRACE_ASSIGN_OR_RETURN(node.name, ExpectName());
    MILLRACE_RETURN_IF_ERROR(Expect("("));
    while (!IsOperator(")")) {
      MILLRACE_ASSIGN_OR_RETURN(std::string name, ExpectName());
      ExprPtr value;
      if (TakeOperator("=")) {
        MILLRACE_ASSIGN_OR_RETURN(value, ParseExpr());
      }
      node.parameters.emplace_back(std::move(name), std::move(value));
      if (!TakeOperator(",")) break;
    }
    MILLRACE_RETURN_IF_ERROR(Expect(")"));
    MILLRACE_RETURN_IF_ERROR(ExpectBlockEnd());
    const int loops = std::exchange(loops_, 0);
    absl::StatusOr<Block> body = ParseBlock({"endmacro"});
    loops_ = loops;
    MILLRACE_ASSIGN_OR_RETURN(node.body, std::move(body));
    MILLRACE_RETURN_IF_ERROR(TakeEnd());
    return Make(line, std::move(node));
  }

  // Expressions, from the weakest binding to the strongest.

  static std::int32_t DepthOf(const ExprPtr& expr) { return expr == nullptr ? 0 : expr->depth; }

  template <typename T>
  absl::StatusOr<ExprPtr> MakeExpr(int line, std::int32_t children_depth, T node) {
    if (children_depth + 1 > max_depth_)
      return Error(absl::StrCat("nested deeper than ", max_depth_));
    return std::make_unique<const Expr>(Expr{line, children_depth + 1, std::move(node)});
  }

  static std::int32_t DepthOf(const std::vector<Argument>& arguments) {
    std::int32_t depth = 0;
    for (const Argument& argument : arguments) depth = std::max(depth, DepthOf(argument.value));
    return depth;
  }

  absl::StatusOr<ExprPtr> ParseTuple() {
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr first, ParseExpr());
    if (!IsOperator(",")) return first;
    const int line = Peek().line;
    ListExpr list;
    std::int32_t depth = DepthOf(first);
    list.items.push_back(std::move(first));
    while (TakeOperator(",")) {
      if (Peek().kind == TokenKind::kPrintEnd || Peek().kind == TokenKind::kBlockEnd) break;
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr item, ParseExpr());
      depth = std::max(depth, DepthOf(item));
      list.items.push_back(std::move(item));
    }
    return MakeExpr(line, depth, std::move(list));
  }

  absl::StatusOr<ExprPtr> ParseExpr() {
    const Nested nested(&depth_);
    MILLRACE_RETURN_IF_ERROR(CheckDepth());
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr value, ParseOr());
    while (IsName("if")) {
      const int line = Take().line;
      ConditionalExpr node;
      node.then = std::move(value);
      MILLRACE_ASSIGN_OR_RETURN(node.condition, ParseOr());
      if (TakeName("else")) {
        MILLRACE_ASSIGN_OR_RETURN(node.otherwise, ParseExpr());
      }
      const std::int32_t depth =
          std::max({DepthOf(node.then), DepthOf(node.condition), DepthOf(node.otherwise)});
      MILLRACE_ASSIGN_OR_RETURN(value, MakeExpr(line, depth, std::move(node)));
    }
    return value;
  }

  absl::StatusOr<ExprPtr> MakeBinary(int line, BinaryOp op, ExprPtr left, ExprPtr right) {
    const std::int32_t depth = std::max(DepthOf(left), DepthOf(right));
    return MakeExpr(line, depth, BinaryExpr{op, std::move(left), std::move(right)});
  }

  absl::StatusOr<ExprPtr> ParseOr() {
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr left, ParseAnd());
    while (IsName("or")) {
      const int line = Take().line;
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr right, ParseAnd());
      MILLRACE_ASSIGN_OR_RETURN(left,
                                MakeBinary(line, BinaryOp::kOr, std::move(left), std::move(right)));
    }
    return left;
  }

  absl::StatusOr<ExprPtr> ParseAnd() {
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr left, ParseNot());
    while (IsName("and")) {
      const int line = Take().line;
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr right, ParseNot());
      MILLRACE_ASSIGN_OR_RETURN(
          left, MakeBinary(line, BinaryOp::kAnd, std::move(left), std::move(right)));
    }
    return left;
  }

  absl::StatusOr<ExprPtr> ParseNot() {
    if (!IsName("not")) return ParseComparison();
    const Nested nested(&depth_);
    MILLRACE_RETURN_IF_ERROR(CheckDepth());
    const int line = Take().line;
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr operand, ParseNot());
    const std::int32_t depth = DepthOf(operand);
    return MakeExpr(line, depth, UnaryExpr{UnaryOp::kNot, std::move(operand)});
  }

  std::optional<BinaryOp> TakeComparison() {
    for (const BinaryRule& rule : kComparisons) {
      if (TakeOperator(rule.text)) return rule.op;
    }
    if (TakeName("in")) return BinaryOp::kIn;
    if (IsName("not") && Peek(1).kind == TokenKind::kName && Peek(1).text == "in") {
      Take();
      Take();
      return BinaryOp::kNotIn;
    }
    return std::nullopt;
  }

  absl::StatusOr<ExprPtr> ParseComparison() {
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr left, ParseSum());
    const int line = Peek().line;
    const std::optional<BinaryOp> op = TakeComparison();
    if (!op) return left;
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr right, ParseSum());
    MILLRACE_ASSIGN_OR_RETURN(left, MakeBinary(line, *op, std::move(left), std::move(right)));
    if (TakeComparison()) return NotRun("expression", "a < b < c");
    return left;
  }

  template <std::size_t N>
  std::optional<BinaryOp> TakeRule(const std::array<BinaryRule, N>& rules) {
    for (const BinaryRule& rule : rules) {
      if (TakeOperator(rule.text)) return rule.op;
    }
    return std::nullopt;
  }

  absl::StatusOr<ExprPtr> ParseSum() {
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr left, ParseConcat());
    while (true) {
      const int line = Peek().line;
      const std::optional<BinaryOp> op = TakeRule(kSums);
      if (!op) return left;
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr right, ParseConcat());
      MILLRACE_ASSIGN_OR_RETURN(left, MakeBinary(line, *op, std::move(left), std::move(right)));
    }
  }

  absl::StatusOr<ExprPtr> ParseConcat() {
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr left, ParseProduct());
    while (IsOperator("~")) {
      const int line = Take().line;
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr right, ParseProduct());
      MILLRACE_ASSIGN_OR_RETURN(
          left, MakeBinary(line, BinaryOp::kConcat, std::move(left), std::move(right)));
    }
    return left;
  }

  absl::StatusOr<ExprPtr> ParseProduct() {
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr left, ParseUnary());
    while (true) {
      const int line = Peek().line;
      const std::optional<BinaryOp> op = TakeRule(kProducts);
      if (!op) return left;
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr right, ParseUnary());
      MILLRACE_ASSIGN_OR_RETURN(left, MakeBinary(line, *op, std::move(left), std::move(right)));
    }
  }

  absl::StatusOr<ExprPtr> ParseUnary() {
    const Nested nested(&depth_);
    MILLRACE_RETURN_IF_ERROR(CheckDepth());
    const int line = Peek().line;
    if (IsOperator("-") || IsOperator("+")) {
      const UnaryOp op = Take().text == "-" ? UnaryOp::kMinus : UnaryOp::kPlus;
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr operand, ParseUnary());
      const std::int32_t depth = DepthOf(operand);
      return MakeExpr(line, depth, UnaryExpr{op, std::move(operand)});
    }
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr value, ParsePrimary());
    MILLRACE_ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
    if (IsOperator("**")) return NotRun("operator", "**");
    return ParseFilters(std::move(value));
  }

  absl::StatusOr<ExprPtr> ParsePostfix(ExprPtr value) {
    while (true) {
      const int line = Peek().line;
      const std::int32_t depth = DepthOf(value);
      if (TakeOperator(".")) {
        if (Peek().kind == TokenKind::kInteger) return NotRun("expression", "x.0");
        MILLRACE_ASSIGN_OR_RETURN(std::string name, ExpectName());
        MILLRACE_ASSIGN_OR_RETURN(
            value, MakeExpr(line, depth, AttributeExpr{std::move(value), std::move(name)}));
      } else if (TakeOperator("[")) {
        MILLRACE_ASSIGN_OR_RETURN(value, ParseSubscript(line, std::move(value)));
      } else if (TakeOperator("(")) {
        CallExpr call;
        MILLRACE_ASSIGN_OR_RETURN(call.arguments, ParseArguments());
        const std::int32_t below = std::max(depth, DepthOf(call.arguments));
        call.callee = std::move(value);
        MILLRACE_ASSIGN_OR_RETURN(value, MakeExpr(line, below, std::move(call)));
      } else {
        return value;
      }
    }
  }

  absl::StatusOr<ExprPtr> ParseSubscript(int line, ExprPtr object) {
    std::array<ExprPtr, 3> parts;
    std::size_t colons = 0;
    if (!IsOperator(":")) {
      MILLRACE_ASSIGN_OR_RETURN(parts[0], ParseExpr());
    }
    while (colons < 2 && TakeOperator(":")) {
      ++colons;
      if (!IsOperator(":") && !IsOperator("]")) {
        MILLRACE_ASSIGN_OR_RETURN(parts[colons], ParseExpr());
      }
    }
    MILLRACE_RETURN_IF_ERROR(Expect("]"));
    const std::int32_t depth =
        std::max({DepthOf(object), DepthOf(parts[0]), DepthOf(parts[1]), DepthOf(parts[2])});
    if (colons == 0) {
      return MakeExpr(line, depth, SubscriptExpr{std::move(object), std::move(parts[0])});
    }
    return MakeExpr(line, depth,
                    SliceExpr{std::move(object), std::move(parts[0]), std::move(parts[1]),
                              std::move(parts[2])});
  }

  // After the "(" and with the ")".
  absl::StatusOr<std::vector<Argument>> ParseArguments() {
    std::vector<Argument> arguments;
    while (!IsOperator(")")) {
      Argument argument;
      if (Peek().kind == TokenKind::kName && Peek(1).kind == TokenKind::kOperator &&
          Peek(1).text == "=") {
        argument.name = Take().text;
        Take();
      } else if (IsOperator("*") || IsOperator("**")) {
        return NotRun("expression", "f(*arguments)");
      }
      MILLRACE_ASSIGN_OR_RETURN(argument.value, ParseExpr());
      arguments.push_back(std::move(argument));
      if (!TakeOperator(",")) break;
    }
    MILLRACE_RETURN_IF_ERROR(Expect(")"));
    return arguments;
  }

  // x | filter(...) and x is test.
  absl::StatusOr<ExprPtr> ParseFilters(ExprPtr value) {
    while (true) {
      const int line = Peek().line;
      const std::int32_t depth = DepthOf(value);
      if (TakeOperator("|")) {
        FilterExpr filter;
        MILLRACE_ASSIGN_OR_RETURN(filter.name, ExpectName());
        if (!IsFilter(filter.name)) return NotRun("filter", filter.name);
        if (TakeOperator("(")) {
          MILLRACE_ASSIGN_OR_RETURN(filter.arguments, ParseArguments());
        }
        const std::int32_t below = std::max(depth, DepthOf(filter.arguments));
        filter.input = std::move(value);
        MILLRACE_ASSIGN_OR_RETURN(value, MakeExpr(line, below, std::move(filter)));
        MILLRACE_ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
      } else if (TakeName("is")) {
        MILLRACE_ASSIGN_OR_RETURN(value, ParseTest(line, std::move(value)));
      } else {
        return value;
      }
    }
  }

  absl::StatusOr<ExprPtr> ParseTest(int line, ExprPtr input) {
    TestExpr test;
    test.negated = TakeName("not");
    if (TakeOperator("==")) {
      test.name = "eq";
    } else {
      MILLRACE_ASSIGN_OR_RETURN(test.name, ExpectName());
    }
    if (!IsTest(test.name)) return NotRun("test", test.name);
    if (TakeOperator("(")) {
      MILLRACE_ASSIGN_OR_RETURN(test.arguments, ParseArguments());
    } else if (TestTakesArgument(test.name)) {
      Argument argument;
      MILLRACE_ASSIGN_OR_RETURN(argument.value, ParsePrimary());
      MILLRACE_ASSIGN_OR_RETURN(argument.value, ParsePostfix(std::move(argument.value)));
      test.arguments.push_back(std::move(argument));
    }
    const std::int32_t depth = std::max(DepthOf(input), DepthOf(test.arguments));
    test.input = std::move(input);
    return MakeExpr(line, depth, std::move(test));
  }

  absl::StatusOr<ExprPtr> ParsePrimary() {
    const Token token = Take();
    switch (token.kind) {
      case TokenKind::kString: {
        std::string text = token.text;
        while (Peek().kind == TokenKind::kString) text += Take().text;  // "a" "b" is "ab"
        return MakeExpr(token.line, 0, LiteralExpr{Value::OfString(text, true)});
      }
      case TokenKind::kInteger:
      case TokenKind::kFloat:
        return ParseNumber(token);
      case TokenKind::kName:
        return ParseName(token);
      case TokenKind::kOperator:
        if (token.text == "(") return ParseParenthesis();
        if (token.text == "[") return ParseList(token.line, "]");
        if (token.text == "{") return ParseDict(token.line);
        break;
      default:
        break;
    }
    return absl::InvalidArgumentError(absl::StrCat("chat template, line ", token.line,
                                                   ": expected a value, got '", token.text, "'"));
  }

  absl::StatusOr<ExprPtr> ParseNumber(const Token& token) {
    const char* end = token.text.data() + token.text.size();
    if (token.kind == TokenKind::kFloat) {
      double value = 0;
      std::from_chars(token.text.data(), end, value);
      return MakeExpr(token.line, 0, LiteralExpr{Value(Value::Data(value))});
    }
    std::int64_t value = 0;
    if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
      return Error("an integer beyond 64 bits");
    }
    return MakeExpr(token.line, 0, LiteralExpr{Value::OfInt(value)});
  }

  absl::StatusOr<ExprPtr> ParseName(const Token& token) {
    const std::string& name = token.text;
    if (name == "true" || name == "True")
      return MakeExpr(token.line, 0, LiteralExpr{Value::OfBool(true)});
    if (name == "false" || name == "False")
      return MakeExpr(token.line, 0, LiteralExpr{Value::OfBool(false)});
    if (name == "none" || name == "None")
      return MakeExpr(token.line, 0, LiteralExpr{Value::OfNone()});
    return MakeExpr(token.line, 0, NameExpr{name});
  }

  absl::StatusOr<ExprPtr> ParseParenthesis() {
    const int line = Peek().line;
    if (TakeOperator(")")) return MakeExpr(line, 0, ListExpr{});
    MILLRACE_ASSIGN_OR_RETURN(ExprPtr value, ParseExpr());
    if (!IsOperator(",")) {
      MILLRACE_RETURN_IF_ERROR(Expect(")"));
      return value;
    }
    Take();
    return ParseItems(line, ")", std::move(value));
  }

  absl::StatusOr<ExprPtr> ParseList(int line, std::string_view close) {
    return ParseItems(line, close, nullptr);
  }

  absl::StatusOr<ExprPtr> ParseItems(int line, std::string_view close, ExprPtr first) {
    ListExpr list;
    std::int32_t depth = DepthOf(first);
    if (first != nullptr) list.items.push_back(std::move(first));
    while (!IsOperator(close)) {
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr item, ParseExpr());
      depth = std::max(depth, DepthOf(item));
      list.items.push_back(std::move(item));
      if (!TakeOperator(",")) break;
    }
    MILLRACE_RETURN_IF_ERROR(Expect(close));
    return MakeExpr(line, depth, std::move(list));
  }

  absl::StatusOr<ExprPtr> ParseDict(int line) {
    DictExpr dict;
    std::int32_t depth = 0;
    while (!IsOperator("}")) {
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr key, ParseExpr());
      MILLRACE_RETURN_IF_ERROR(Expect(":"));
      MILLRACE_ASSIGN_OR_RETURN(ExprPtr value, ParseExpr());
      depth = std::max({depth, DepthOf(key), DepthOf(value)});
      dict.items.emplace_back(std::move(key), std::move(value));
      if (!TakeOperator(",")) break;
    }
    MILLRACE_RETURN_IF_ERROR(Expect("}"));
    return MakeExpr(line, depth, std::move(dict));
  }

  const std::vector<Token> tokens_;
  const std::int32_t max_depth_;
  std::size_t at_ = 0;
  std::int32_t depth_ = 0;
  int loops_ = 0;
};

}  // namespace

absl::StatusOr<Block> ParseTemplate(std::string_view source, std::int32_t max_depth) {
  MILLRACE_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens), max_depth).Run();
}

}  // namespace millrace::jinja

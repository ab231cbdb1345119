// The tests of templates: what stands behind `is`.
#include <array>
#include <string_view>

#include "runtime/tokenizer/jinja/builtins.h"
#include "runtime/tokenizer/jinja/builtins_support.h"

namespace millrace::jinja {
namespace {

using TestFn = bool (*)(const Value& input, const Value* argument);
struct TestRow {
  std::string_view name;
  bool takes_argument;
  TestFn call;
};

bool IsNumber(const Value& v) { return v.AsNumber().has_value(); }
bool LessThan(const Value& a, const Value& b) {
  if (a.AsNumber() && b.AsNumber()) return *a.AsNumber() < *b.AsNumber();
  return a.AsText() != nullptr && b.AsText() != nullptr &&
         a.AsText()->bytes() < b.AsText()->bytes();
}
bool EqualTest(const Value& v, const Value* a) { return a != nullptr && Equal(v, *a); }
bool InTest(const Value& v, const Value* a) {
  if (a == nullptr) return false;
  const absl::StatusOr<bool> contains = Contains(*a, v);
  return contains.ok() && *contains;
}
bool DivisibleTest(const Value& v, const Value* a) {
  return v.AsInteger() && a != nullptr && a->AsInteger() && *a->AsInteger() != 0 &&
         *a->AsInteger() != -1 && *v.AsInteger() % *a->AsInteger() == 0;
}

constexpr auto kTests = std::to_array<TestRow>({
    {"defined", false, [](const Value& v, const Value*) { return !v.is_undefined(); }},
    {"undefined", false, [](const Value& v, const Value*) { return v.is_undefined(); }},
    {"none", false, [](const Value& v, const Value*) { return v.is_none(); }},
    {"string", false, [](const Value& v, const Value*) { return v.AsText() != nullptr; }},
    {"mapping", false, [](const Value& v, const Value*) { return v.AsDict() != nullptr; }},
    // In Python a string, a list and a dict all have a length and items; undefined too has them.
    {"sequence", false,
     [](const Value& v, const Value*) {
       return v.AsText() != nullptr || v.AsList() != nullptr || v.AsDict() != nullptr ||
              v.is_undefined();
     }},
    {"iterable", false,
     [](const Value& v, const Value*) {
       return v.AsText() != nullptr || v.AsList() != nullptr || v.AsDict() != nullptr ||
              v.is_undefined();
     }},
    {"number", false, [](const Value& v, const Value*) { return IsNumber(v); }},
    {"integer", false, [](const Value& v, const Value*) { return v.AsInt() != nullptr; }},
    {"float", false, [](const Value& v, const Value*) { return v.AsFloat() != nullptr; }},
    {"boolean", false, [](const Value& v, const Value*) { return v.AsBool() != nullptr; }},
    {"true", false,
     [](const Value& v, const Value*) { return v.AsBool() != nullptr && *v.AsBool(); }},
    {"false", false,
     [](const Value& v, const Value*) { return v.AsBool() != nullptr && !*v.AsBool(); }},
    {"callable", false, [](const Value& v, const Value*) { return v.AsCallable() != nullptr; }},
    {"odd", false,
     [](const Value& v, const Value*) { return v.AsInteger() && *v.AsInteger() % 2 != 0; }},
    {"even", false,
     [](const Value& v, const Value*) { return v.AsInteger() && *v.AsInteger() % 2 == 0; }},
    {"divisibleby", true, DivisibleTest},
    {"eq", true, EqualTest},
    {"equalto", true, EqualTest},
    {"ne", true, [](const Value& v, const Value* a) { return !EqualTest(v, a); }},
    {"lt", true, [](const Value& v, const Value* a) { return a != nullptr && LessThan(v, *a); }},
    {"gt", true, [](const Value& v, const Value* a) { return a != nullptr && LessThan(*a, v); }},
    {"in", true, InTest},
});

}  // namespace

bool IsTest(std::string_view name) { return FindRow(kTests, name) != nullptr; }
bool TestTakesArgument(std::string_view name) {
  const TestRow* row = FindRow(kTests, name);
  return row != nullptr && row->takes_argument;
}

absl::StatusOr<bool> CallTest(std::string_view name, const Value& input,
                              const CallArguments& arguments) {
  const TestRow* row = FindRow(kTests, name);
  if (row == nullptr) return Wrong(name, "no such test");
  if (row->takes_argument && arguments.positional.empty()) return Wrong(name, "needs an argument");
  return row->call(input, row->takes_argument ? &arguments.positional[0] : nullptr);
}

}  // namespace millrace::jinja

#include "runtime/tokenizer/jinja/builtins.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/tokenizer/jinja/json.h"

namespace millrace::jinja {
namespace {

// Python's str.strip() takes Unicode white space too; chat text meets these.
constexpr std::string_view kAsciiSpaces = " \t\n\r\v\f\x1c\x1d\x1e\x1f";
constexpr std::array<std::string_view, 19> kWideSpaces = {
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};
// range() and the like never make more items than this: templates count messages, not numbers.
constexpr std::int64_t kMaxItems = 100'000;

absl::Status Wrong(std::string_view name, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(name), ": ", std::string(what)));
}

absl::Status WrongKind(std::string_view name, std::string_view wanted, const Value& got) {
  return Wrong(name,
               absl::StrCat("needs ", std::string(wanted), ", got ", std::string(got.kind())));
}

// Bytes of white space at the front or the back of `text`; 0 if there is none.
std::size_t SpaceAtFront(std::string_view text, const std::string* characters) {
  if (text.empty()) return 0;
  if (characters != nullptr) {
    const std::size_t length = CodePointOffset(text, 1);
    for (std::size_t i = 0; i < characters->size();) {
      const std::size_t n = CodePointOffset(std::string_view(*characters).substr(i), 1);
      if (text.substr(0, length) == std::string_view(*characters).substr(i, n)) return length;
      i += n;
    }
    return 0;
  }
  if (kAsciiSpaces.find(text.front()) != std::string_view::npos) return 1;
  for (const std::string_view space : kWideSpaces) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

std::size_t SpaceAtBack(std::string_view text, const std::string* characters) {
  std::size_t begin = text.size();
  while (begin > 0) {
    --begin;
    if ((static_cast<unsigned char>(text[begin]) & 0xC0) != 0x80) break;
  }
  return SpaceAtFront(text.substr(begin), characters) == text.size() - begin ? text.size() - begin
                                                                             : 0;
}

Text Strip(const Text& text, const std::string* characters, bool front, bool back) {
  std::string_view rest = text.bytes();
  std::size_t begin = 0;
  while (front) {
    const std::size_t n = SpaceAtFront(rest, characters);
    if (n == 0) break;
    begin += n;
    rest.remove_prefix(n);
  }
  while (back) {
    const std::size_t n = rest.empty() ? 0 : SpaceAtBack(rest, characters);
    if (n == 0) break;
    rest.remove_suffix(n);
  }
  return text.Slice(begin, rest.size());
}

char LowerAscii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
char UpperAscii(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }
bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Case of letters beyond ASCII is not in our tables: refused rather than wrong.
absl::StatusOr<Value> ChangeCase(std::string_view name, const Text& text) {
  if (!IsAscii(text.bytes())) {
    return absl::UnimplementedError(
        absl::StrCat(std::string(name), " of text beyond ASCII is not supported"));
  }
  if (name == "lower") return Value::OfText(text.MapBytes(LowerAscii));
  if (name == "upper") return Value::OfText(text.MapBytes(UpperAscii));
  bool start = true;
  const bool title = name == "title";
  return Value::OfText(text.MapBytes([&start, title](char c) {
    const bool letter = UpperAscii(c) != LowerAscii(c);
    const char out = letter && start ? UpperAscii(c) : LowerAscii(c);
    start = title ? !letter : false;
    return out;
  }));
}

List SplitSpaces(const Text& text, std::int64_t max_splits) {
  List out;
  Text rest = Strip(text, nullptr, true, false);
  while (!rest.empty()) {
    if (max_splits >= 0 && static_cast<std::int64_t>(out.size()) == max_splits) {
      out.push_back(Value::OfText(Strip(rest, nullptr, false, true)));
      return out;
    }
    std::size_t end = 0;
    while (end < rest.size() &&
           SpaceAtFront(std::string_view(rest.bytes()).substr(end), nullptr) == 0)
      ++end;
    out.push_back(Value::OfText(rest.Slice(0, end)));
    rest = Strip(rest.Slice(end), nullptr, true, false);
  }
  return out;
}

List SplitOn(const Text& text, std::string_view separator, std::int64_t max_splits) {
  List out;
  std::size_t begin = 0;
  while (max_splits < 0 || static_cast<std::int64_t>(out.size()) < max_splits) {
    const std::size_t at = text.bytes().find(separator, begin);
    if (at == std::string::npos) break;
    out.push_back(Value::OfText(text.Slice(begin, at - begin)));
    begin = at + separator.size();
  }
  out.push_back(Value::OfText(text.Slice(begin)));
  return out;
}

absl::StatusOr<Text> Replace(const Text& text, const Text& from, const Text& to,
                             std::int64_t count) {
  if (from.empty()) return Wrong("replace", "of an empty string is not supported");
  Text out;
  std::size_t begin = 0;
  for (std::int64_t done = 0; count < 0 || done < count; ++done) {
    const std::size_t at = text.bytes().find(from.bytes(), begin);
    if (at == std::string::npos) break;
    out.Append(text.Slice(begin, at - begin));
    out.Append(to);
    begin = at + from.size();
  }
  out.Append(text.Slice(begin));
  return out;
}

absl::StatusOr<Value> Join(const List& items, const Text& separator) {
  Text out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.Append(separator);
    out.Append(ToText(items[i]));
  }
  return Value::OfText(std::move(out));
}

std::int64_t IntArgument(const CallArguments& arguments, std::size_t index, std::string_view name,
                         std::int64_t otherwise) {
  const Value* value = arguments.Get(index, name);
  if (value == nullptr || !value->AsInteger()) return otherwise;
  return *value->AsInteger();
}

// ---- methods ----

using Method = absl::StatusOr<Value> (*)(std::string_view name, const Value& self,
                                         const CallArguments& arguments);
struct MethodRow {
  std::string_view name;
  Method call;
};

absl::StatusOr<Value> StripMethod(std::string_view name, const Value& self,
                                  const CallArguments& arguments) {
  const Value* characters = arguments.Get(0, "chars");
  const std::string* set = nullptr;
  if (characters != nullptr && !characters->is_none()) {
    if (characters->AsText() == nullptr) return WrongKind(name, "a string", *characters);
    set = &characters->AsText()->bytes();
  }
  return Value::OfText(Strip(*self.AsText(), set, name != "rstrip", name != "lstrip"));
}

absl::StatusOr<Value> SplitMethod(std::string_view name, const Value& self,
                                  const CallArguments& arguments) {
  const std::int64_t max_splits = IntArgument(arguments, 1, "maxsplit", -1);
  const Value* separator = arguments.Get(0, "sep");
  if (separator == nullptr || separator->is_none()) {
    return Value::OfList(SplitSpaces(*self.AsText(), max_splits));
  }
  const Text* text = separator->AsText();
  if (text == nullptr) return WrongKind(name, "a string", *separator);
  if (text->empty()) return Wrong(name, "an empty separator");
  return Value::OfList(SplitOn(*self.AsText(), text->bytes(), max_splits));
}

absl::StatusOr<Value> AffixMethod(std::string_view name, const Value& self,
                                  const CallArguments& arguments) {
  const Value* affix = arguments.Get(0, "prefix");
  if (affix == nullptr) return Wrong(name, "needs an argument");
  const std::string_view text = self.AsText()->bytes();
  const bool start = name == "startswith";
  const auto matches = [&](const Value& v) {
    const Text* candidate = v.AsText();
    if (candidate == nullptr) return false;
    return start ? text.starts_with(candidate->bytes()) : text.ends_with(candidate->bytes());
  };
  if (const List* list = affix->AsList()) {
    return Value::OfBool(std::any_of(list->begin(), list->end(), matches));
  }
  if (affix->AsText() == nullptr) return WrongKind(name, "a string", *affix);
  return Value::OfBool(matches(*affix));
}

absl::StatusOr<Value> CaseMethod(std::string_view name, const Value& self, const CallArguments&) {
  return ChangeCase(name, *self.AsText());
}

absl::StatusOr<Value> ReplaceMethod(std::string_view name, const Value& self,
                                    const CallArguments& arguments) {
  const Value* from = arguments.Get(0, "old");
  const Value* to = arguments.Get(1, "new");
  if (from == nullptr || to == nullptr || from->AsText() == nullptr || to->AsText() == nullptr) {
    return Wrong(name, "needs two strings");
  }
  MILLRACE_ASSIGN_OR_RETURN(Text out, Replace(*self.AsText(), *from->AsText(), *to->AsText(),
                                              IntArgument(arguments, 2, "count", -1)));
  return Value::OfText(std::move(out));
}

absl::StatusOr<Value> FindMethod(std::string_view name, const Value& self,
                                 const CallArguments& arguments) {
  const Value* needle = arguments.Get(0, "sub");
  if (needle == nullptr || needle->AsText() == nullptr) return Wrong(name, "needs a string");
  const std::string& text = self.AsText()->bytes();
  const std::size_t at = text.find(needle->AsText()->bytes());
  if (at == std::string::npos) return Value::OfInt(-1);
  return Value::OfInt(
      static_cast<std::int64_t>(CodePointCount(std::string_view(text).substr(0, at))));
}

absl::StatusOr<Value> JoinMethod(std::string_view, const Value& self,
                                 const CallArguments& arguments) {
  const Value* items = arguments.Get(0, "iterable");
  if (items == nullptr) return Wrong("join", "needs an argument");
  MILLRACE_ASSIGN_OR_RETURN(const List list, Iterate(*items));
  return Join(list, *self.AsText());
}

absl::StatusOr<Value> SplitLinesMethod(std::string_view, const Value& self, const CallArguments&) {
  List lines = SplitOn(*self.AsText(), "\n", -1);
  if (lines.back().AsText()->empty()) lines.pop_back();
  for (Value& line : lines) {
    const Text& text = *line.AsText();
    if (text.bytes().ends_with('\r')) line = Value::OfText(text.Slice(0, text.size() - 1));
  }
  return Value::OfList(std::move(lines));
}

constexpr auto kStringMethods = std::to_array<MethodRow>({{"strip", StripMethod},
                                                          {"lstrip", StripMethod},
                                                          {"rstrip", StripMethod},
                                                          {"split", SplitMethod},
                                                          {"startswith", AffixMethod},
                                                          {"endswith", AffixMethod},
                                                          {"lower", CaseMethod},
                                                          {"upper", CaseMethod},
                                                          {"title", CaseMethod},
                                                          {"capitalize", CaseMethod},
                                                          {"replace", ReplaceMethod},
                                                          {"find", FindMethod},
                                                          {"join", JoinMethod},
                                                          {"splitlines", SplitLinesMethod}});

absl::StatusOr<Value> GetMethod(std::string_view name, const Value& self,
                                const CallArguments& arguments) {
  const Value* key = arguments.Get(0, "key");
  if (key == nullptr) return Wrong(name, "needs a key");
  const Value* item =
      key->AsText() == nullptr ? nullptr : FindItem(*self.AsDict(), key->AsText()->bytes());
  if (item != nullptr) return *item;
  const Value* otherwise = arguments.Get(1, "default");
  return otherwise == nullptr ? Value::OfNone() : *otherwise;
}

List Items(const Dict& dict) {
  List out;
  for (const auto& [key, item] : dict) out.push_back(Value::OfList({Value::OfText(key), item}));
  return out;
}

absl::StatusOr<Value> ItemsMethod(std::string_view, const Value& self, const CallArguments&) {
  return Value::OfList(Items(*self.AsDict()));
}

absl::StatusOr<Value> KeysMethod(std::string_view, const Value& self, const CallArguments&) {
  List out;
  for (const auto& [key, item] : *self.AsDict()) out.push_back(Value::OfText(key));
  return Value::OfList(std::move(out));
}

absl::StatusOr<Value> ValuesMethod(std::string_view, const Value& self, const CallArguments&) {
  List out;
  for (const auto& [key, item] : *self.AsDict()) out.push_back(item);
  return Value::OfList(std::move(out));
}

constexpr auto kDictMethods = std::to_array<MethodRow>(
    {{"get", GetMethod}, {"items", ItemsMethod}, {"keys", KeysMethod}, {"values", ValuesMethod}});

std::span<const MethodRow> MethodsOf(const Value& self) {
  if (self.AsText() != nullptr) return kStringMethods;
  if (self.AsDict() != nullptr) return kDictMethods;
  return {};
}

// ---- filters ----

absl::StatusOr<Value> TrimFilter(std::string_view, const Value& input,
                                 const CallArguments& arguments) {
  return StripMethod("strip", Value::OfText(ToText(input)), arguments);
}

absl::StatusOr<Value> LengthFilter(std::string_view name, const Value& input,
                                   const CallArguments&) {
  if (const Text* text = input.AsText()) {
    return Value::OfInt(static_cast<std::int64_t>(CodePointCount(text->bytes())));
  }
  if (const List* list = input.AsList())
    return Value::OfInt(static_cast<std::int64_t>(list->size()));
  if (const Dict* dict = input.AsDict())
    return Value::OfInt(static_cast<std::int64_t>(dict->size()));
  if (input.is_undefined()) return Value::OfInt(0);
  return WrongKind(name, "a string, list or mapping", input);
}

absl::StatusOr<Value> ToJsonFilter(std::string_view, const Value& input,
                                   const CallArguments& arguments) {
  const std::int64_t indent = IntArgument(arguments, 0, "indent", -1);
  if (indent > 16) return Wrong("tojson", "an indent above 16");
  MILLRACE_ASSIGN_OR_RETURN(
      Text out, DumpJson(input, indent < 0 ? std::nullopt : std::optional<std::int64_t>(indent)));
  return Value::OfText(std::move(out));
}

absl::StatusOr<Value> StringFilter(std::string_view, const Value& input, const CallArguments&) {
  return Value::OfText(ToText(input));
}

absl::StatusOr<Value> SameFilter(std::string_view, const Value& input, const CallArguments&) {
  return input;
}

absl::StatusOr<Value> CaseFilter(std::string_view name, const Value& input, const CallArguments&) {
  return ChangeCase(name, ToText(input));
}

absl::StatusOr<Value> ReplaceFilter(std::string_view name, const Value& input,
                                    const CallArguments& arguments) {
  return ReplaceMethod(name, Value::OfText(ToText(input)), arguments);
}

absl::StatusOr<Value> JoinFilter(std::string_view, const Value& input,
                                 const CallArguments& arguments) {
  MILLRACE_ASSIGN_OR_RETURN(const List items, Iterate(input));
  const Value* separator = arguments.Get(0, "d");
  return Join(items, separator == nullptr ? Text() : ToText(*separator));
}

absl::StatusOr<Value> DefaultFilter(std::string_view, const Value& input,
                                    const CallArguments& arguments) {
  const Value* otherwise = arguments.Get(0, "default_value");
  const Value* boolean = arguments.Get(1, "boolean");
  const bool use =
      input.is_undefined() || (boolean != nullptr && Truthy(*boolean) && !Truthy(input));
  if (!use) return input;
  return otherwise == nullptr ? Value::OfString("", true) : *otherwise;
}

absl::StatusOr<Value> EndFilter(std::string_view name, const Value& input, const CallArguments&) {
  MILLRACE_ASSIGN_OR_RETURN(const List items, Iterate(input));
  if (items.empty()) return Value();
  return name == "first" ? items.front() : items.back();
}

absl::StatusOr<Value> ListFilter(std::string_view name, const Value& input, const CallArguments&) {
  MILLRACE_ASSIGN_OR_RETURN(List items, Iterate(input));
  if (name == "reverse") std::reverse(items.begin(), items.end());
  return Value::OfList(std::move(items));
}

absl::StatusOr<Value> ItemsFilter(std::string_view name, const Value& input, const CallArguments&) {
  if (input.is_undefined()) return Value::OfList({});
  if (input.AsDict() == nullptr) return WrongKind(name, "a mapping", input);
  return Value::OfList(Items(*input.AsDict()));
}

absl::StatusOr<Value> IntFilter(std::string_view, const Value& input,
                                const CallArguments& arguments) {
  if (const auto integer = input.AsInteger()) return Value::OfInt(*integer);
  if (const double* d = input.AsFloat(); d != nullptr && std::fabs(*d) < 9e18) {
    return Value::OfInt(static_cast<std::int64_t>(*d));
  }
  if (const Text* text = input.AsText()) {
    const Text stripped = Strip(*text, nullptr, true, true);
    std::int64_t value = 0;
    const char* end = stripped.bytes().data() + stripped.size();
    const auto parsed = std::from_chars(stripped.bytes().data(), end, value);
    if (parsed.ec == std::errc() && parsed.ptr == end) return Value::OfInt(value);
  }
  return Value::OfInt(IntArgument(arguments, 0, "default", 0));
}

absl::StatusOr<Value> MapFilter(std::string_view name, const Value& input,
                                const CallArguments& arguments) {
  MILLRACE_ASSIGN_OR_RETURN(const List items, Iterate(input));
  List out;
  const Value* attribute = arguments.Get(SIZE_MAX, "attribute");
  const Value* filter = arguments.Get(0, "");
  for (const Value& item : items) {
    if (attribute != nullptr) {
      out.push_back(GetItem(item, *attribute));
    } else if (filter != nullptr && filter->AsText() != nullptr &&
               IsFilter(filter->AsText()->bytes())) {
      MILLRACE_ASSIGN_OR_RETURN(Value mapped, CallFilter(filter->AsText()->bytes(), item, {}));
      out.push_back(std::move(mapped));
    } else {
      return Wrong(name, "needs attribute= or the name of a known filter");
    }
  }
  return Value::OfList(std::move(out));
}

// select, reject: of items; selectattr, rejectattr: of an attribute of items.
absl::StatusOr<Value> SelectFilter(std::string_view name, const Value& input,
                                   const CallArguments& arguments) {
  const bool by_attribute = name.ends_with("attr");
  const bool keep = name.starts_with("select");
  MILLRACE_ASSIGN_OR_RETURN(const List items, Iterate(input));
  const std::size_t first = by_attribute ? 1 : 0;
  if (by_attribute && arguments.positional.empty()) return Wrong(name, "needs an attribute");
  std::string test;
  CallArguments rest;
  if (arguments.positional.size() > first) {
    const Text* text = arguments.positional[first].AsText();
    if (text == nullptr || !IsTest(text->bytes()))
      return Wrong(name, "needs the name of a known test");
    test = text->bytes();
    rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                           arguments.positional.end());
  }
  List out;
  for (const Value& item : items) {
    const Value subject = by_attribute ? GetItem(item, arguments.positional[0]) : item;
    bool holds = Truthy(subject);
    if (!test.empty()) {
      MILLRACE_ASSIGN_OR_RETURN(holds, CallTest(test, subject, rest));
    }
    if (holds == keep) out.push_back(item);
  }
  return Value::OfList(std::move(out));
}

absl::StatusOr<Value> UniqueFilter(std::string_view, const Value& input, const CallArguments&) {
  MILLRACE_ASSIGN_OR_RETURN(const List items, Iterate(input));
  List out;
  for (const Value& item : items) {
    const auto same = [&item](const Value& other) { return Equal(item, other); };
    if (std::none_of(out.begin(), out.end(), same)) out.push_back(item);
  }
  return Value::OfList(std::move(out));
}

struct FilterRow {
  std::string_view name;
  Method call;  // (name, input, arguments)
};

absl::StatusOr<Value> CallRow(Method call, std::string_view name, const Value& input,
                              const CallArguments& arguments) {
  return call(name, input, arguments);
}

constexpr auto kFilters = std::to_array<FilterRow>(
    {{"trim", TrimFilter},         {"length", LengthFilter},   {"count", LengthFilter},
     {"tojson", ToJsonFilter},     {"string", StringFilter},   {"safe", SameFilter},
     {"lower", CaseFilter},        {"upper", CaseFilter},      {"title", CaseFilter},
     {"capitalize", CaseFilter},   {"replace", ReplaceFilter}, {"join", JoinFilter},
     {"default", DefaultFilter},   {"d", DefaultFilter},       {"first", EndFilter},
     {"last", EndFilter},          {"list", ListFilter},       {"reverse", ListFilter},
     {"items", ItemsFilter},       {"int", IntFilter},         {"map", MapFilter},
     {"select", SelectFilter},     {"reject", SelectFilter},   {"selectattr", SelectFilter},
     {"rejectattr", SelectFilter}, {"unique", UniqueFilter}});

// ---- tests ----

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

template <typename Table>
const typename Table::value_type* FindRow(const Table& table, std::string_view name) {
  for (const auto& row : table) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

absl::StatusOr<Value> Range(const CallArguments& arguments) {
  std::array<std::int64_t, 3> values = {0, 0, 1};
  const std::size_t n = arguments.positional.size();
  if (n < 1 || n > 3) return Wrong("range", "needs one to three integers");
  for (std::size_t i = 0; i < n; ++i) {
    const auto integer = arguments.positional[i].AsInteger();
    if (!integer) return WrongKind("range", "integers", arguments.positional[i]);
    values[n == 1 ? 1 : i] = *integer;
  }
  const auto [begin, end, step] = values;
  if (step == 0) return Wrong("range", "a step of 0");
  List out;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<std::int64_t>(out.size()) >= kMaxItems)
      return Wrong("range", "more than 100000 items");
    out.push_back(Value::OfInt(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::OfList(std::move(out));
}

}  // namespace

const Value* CallArguments::Get(std::size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool IsFilter(std::string_view name) { return FindRow(kFilters, name) != nullptr; }
bool IsTest(std::string_view name) { return FindRow(kTests, name) != nullptr; }
bool TestTakesArgument(std::string_view name) {
  const TestRow* row = FindRow(kTests, name);
  return row != nullptr && row->takes_argument;
}
bool IsMethod(const Value& self, std::string_view name) {
  const auto methods = MethodsOf(self);
  return std::any_of(methods.begin(), methods.end(),
                     [name](const MethodRow& row) { return row.name == name; });
}
bool IsGlobalFunction(std::string_view name) {
  return name == "range" || name == "namespace" || name == "dict" || name == "raise_exception";
}

absl::StatusOr<Value> CallFilter(std::string_view name, const Value& input,
                                 const CallArguments& arguments) {
  const FilterRow* row = FindRow(kFilters, name);
  if (row == nullptr) return Wrong(name, "no such filter");
  return CallRow(row->call, name, input, arguments);
}

absl::StatusOr<bool> CallTest(std::string_view name, const Value& input,
                              const CallArguments& arguments) {
  const TestRow* row = FindRow(kTests, name);
  if (row == nullptr) return Wrong(name, "no such test");
  if (row->takes_argument && arguments.positional.empty()) return Wrong(name, "needs an argument");
  return row->call(input, row->takes_argument ? &arguments.positional[0] : nullptr);
}

absl::StatusOr<Value> CallMethod(const Value& self, std::string_view name,
                                 const CallArguments& arguments) {
  for (const MethodRow& row : MethodsOf(self)) {
    if (row.name == name) return row.call(name, self, arguments);
  }
  return Wrong(name, "no such method");
}

absl::StatusOr<Value> CallGlobal(std::string_view name, const CallArguments& arguments) {
  if (name == "range") return Range(arguments);
  if (name == "namespace") {
    auto members = std::make_shared<Namespace>();
    for (const auto& [key, value] : arguments.named) (*members)[key] = value;
    return Value(std::move(members));
  }
  if (name == "dict") {
    Dict dict;
    for (const auto& [key, value] : arguments.named) dict.emplace_back(Text(key, true), value);
    return Value::OfDict(std::move(dict));
  }
  const Value* message = arguments.Get(0, "message");
  return absl::InvalidArgumentError(
      absl::StrCat("the template refuses: ", message == nullptr ? "" : ToText(*message).bytes()));
}

absl::StatusOr<List> Iterate(const Value& value) {
  if (const List* list = value.AsList()) return *list;
  if (value.is_undefined()) return List();
  List out;
  if (const Dict* dict = value.AsDict()) {
    for (const auto& [key, item] : *dict) out.push_back(Value::OfText(key));
    return out;
  }
  if (const Text* text = value.AsText()) {
    for (std::size_t i = 0; i < text->size();) {
      const std::size_t n = CodePointOffset(std::string_view(text->bytes()).substr(i), 1);
      out.push_back(Value::OfText(text->Slice(i, n)));
      if (static_cast<std::int64_t>(out.size()) > kMaxItems)
        return Wrong("for", "more than 100000 items");
      i += n;
    }
    return out;
  }
  return WrongKind("for", "something to go through", value);
}

Value GetItem(const Value& object, const Value& key) {
  if (const Dict* dict = object.AsDict(); dict != nullptr && key.AsText() != nullptr) {
    const Value* item = FindItem(*dict, key.AsText()->bytes());
    if (item != nullptr) return *item;
  } else if (Namespace* members = object.AsNamespace();
             members != nullptr && key.AsText() != nullptr) {
    const auto found = members->find(key.AsText()->bytes());
    if (found != members->end()) return found->second;
  } else if (key.AsInteger() && (object.AsList() != nullptr || object.AsText() != nullptr)) {
    std::int64_t index = *key.AsInteger();
    const List* list = object.AsList();
    const auto size = static_cast<std::int64_t>(
        list != nullptr ? list->size() : CodePointCount(object.AsText()->bytes()));
    if (index < 0) index += size;
    if (index >= 0 && index < size) {
      if (list != nullptr) return (*list)[static_cast<std::size_t>(index)];
      const std::string& bytes = object.AsText()->bytes();
      const std::size_t begin = CodePointOffset(bytes, static_cast<std::size_t>(index));
      const std::size_t length = CodePointOffset(std::string_view(bytes).substr(begin), 1);
      return Value::OfText(object.AsText()->Slice(begin, length));
    }
  }
  return Value(Value::Data(
      Undefined{key.AsText() != nullptr ? key.AsText()->bytes() : ToText(key).bytes()}));
}

absl::StatusOr<bool> Contains(const Value& container, const Value& needle) {
  if (const Text* text = container.AsText()) {
    if (needle.AsText() == nullptr) return WrongKind("in", "a string on the left", needle);
    return text->bytes().find(needle.AsText()->bytes()) != std::string::npos;
  }
  if (const Dict* dict = container.AsDict()) {
    return needle.AsText() != nullptr && FindItem(*dict, needle.AsText()->bytes()) != nullptr;
  }
  MILLRACE_ASSIGN_OR_RETURN(const List items, Iterate(container));
  return std::any_of(items.begin(), items.end(),
                     [&needle](const Value& v) { return Equal(v, needle); });
}

}  // namespace millrace::jinja

#include "runtime/tokenizer/jinja/builtins.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/tokenizer/jinja/builtins_support.h"
#include "runtime/tokenizer/jinja/json.h"
#include "runtime/tokenizer/jinja/strings.h"

namespace millrace::jinja {
namespace {

// range() and the like never make more items than this: templates count messages, not numbers.
constexpr std::int64_t kMaxItems = 100'000;

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

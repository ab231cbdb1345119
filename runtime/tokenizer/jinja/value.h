// Values of the template language. Immutable but for namespaces, which belong to one rendering;
// cheap to copy. Values reach nothing outside themselves: there are no attributes but those listed
// in builtins.h.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_VALUE_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_VALUE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/jinja/text.h"

namespace millrace::jinja {

class Value;
struct MacroNode;

using List = std::vector<Value>;
// In the order of insertion, as Python's; small, so looked up by walking.
using Dict = std::vector<std::pair<Text, Value>>;
using Namespace = std::map<std::string, Value, std::less<>>;

struct Undefined {
  std::string name;  // for the error when it is used
};
struct None {};
// A macro of the template, or a method or global function by its name (with the value it belongs
// to).
struct Callable {
  const MacroNode* macro = nullptr;
  std::string name;
  std::shared_ptr<const Value> self;
};

class Value {
 public:
  using Data =
      std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const Text>,
                   std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                   std::shared_ptr<Namespace>, std::shared_ptr<const Callable>>;

  Value() : data_(Undefined{}) {}
  explicit Value(Data data) : data_(std::move(data)) {}
  static Value OfText(Text text) { return Value(std::make_shared<const Text>(std::move(text))); }
  static Value OfString(std::string_view bytes, bool trusted) {
    return OfText(Text(bytes, trusted));
  }
  static Value OfList(List list) { return Value(std::make_shared<const List>(std::move(list))); }
  static Value OfDict(Dict dict) { return Value(std::make_shared<const Dict>(std::move(dict))); }
  static Value OfBool(bool b) { return Value(Data(b)); }
  static Value OfInt(std::int64_t i) { return Value(Data(i)); }
  static Value OfNone() { return Value(Data(None{})); }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  const bool* AsBool() const { return std::get_if<bool>(&data_); }
  const std::int64_t* AsInt() const { return std::get_if<std::int64_t>(&data_); }
  const double* AsFloat() const { return std::get_if<double>(&data_); }
  const Text* AsText() const { return Pointee<const Text>(); }
  const List* AsList() const { return Pointee<const List>(); }
  const Dict* AsDict() const { return Pointee<const Dict>(); }
  Namespace* AsNamespace() const { return Pointee<Namespace>(); }
  const Callable* AsCallable() const { return Pointee<const Callable>(); }
  // Numbers as Python sees them: True is 1.
  std::optional<double> AsNumber() const;
  std::optional<std::int64_t> AsInteger() const;

  const Data& data() const { return data_; }
  // "a string", "a list"... for messages.
  std::string_view kind() const;

 private:
  template <typename T>
  T* Pointee() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  Data data_;
};

bool Truthy(const Value& value);
bool Equal(const Value& a, const Value& b);
// The item of `key`, or null.
const Value* FindItem(const Dict& dict, std::string_view key);
// As Python's str() and repr(); the text of a string keeps its origin.
Text ToText(const Value& value);
Text Repr(const Value& value);
std::string FloatRepr(double value);

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_VALUE_H_

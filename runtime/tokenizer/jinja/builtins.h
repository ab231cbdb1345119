// The filters, tests, methods and global functions that templates may use: all there is to reach.
// Pure functions of their arguments. An error message begins with the name of the function.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_BUILTINS_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_BUILTINS_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/jinja/value.h"

namespace millrace::jinja {

// Evaluated arguments of a call.
struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index`, or of that name; null if absent.
  const Value* Get(std::size_t index, std::string_view name) const;
};

bool IsFilter(std::string_view name);
bool IsTest(std::string_view name);
bool TestTakesArgument(std::string_view name);
// A method of the kind of value that `self` is: "startswith" of a string.
bool IsMethod(const Value& self, std::string_view name);
bool IsGlobalFunction(std::string_view name);

absl::StatusOr<Value> CallFilter(std::string_view name, const Value& input,
                                 const CallArguments& arguments);
absl::StatusOr<bool> CallTest(std::string_view name, const Value& input,
                              const CallArguments& arguments);
absl::StatusOr<Value> CallMethod(const Value& self, std::string_view name,
                                 const CallArguments& arguments);
absl::StatusOr<Value> CallGlobal(std::string_view name, const CallArguments& arguments);

// What a loop runs over: the items of a list, the keys of a mapping, the characters of a string.
absl::StatusOr<List> Iterate(const Value& value);
// object.name without methods, or object[key]; undefined if there is none.
Value GetItem(const Value& object, const Value& key);
// `needle in container`.
absl::StatusOr<bool> Contains(const Value& container, const Value& needle);

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_BUILTINS_H_

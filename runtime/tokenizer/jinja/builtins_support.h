// What the files of the built-in functions share: their errors and the look-up in their tables.
// Pure functions. Internal to runtime/tokenizer/jinja.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_BUILTINS_SUPPORT_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_BUILTINS_SUPPORT_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/jinja/value.h"

namespace millrace::jinja {

// INVALID_ARGUMENT that begins with the name of the function.
inline absl::Status Wrong(std::string_view name, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(name), ": ", std::string(what)));
}

inline absl::Status WrongKind(std::string_view name, std::string_view wanted, const Value& got) {
  return Wrong(name,
               absl::StrCat("needs ", std::string(wanted), ", got ", std::string(got.kind())));
}

// The row of that name; null if there is none.
template <typename Table>
const typename Table::value_type* FindRow(const Table& table, std::string_view name) {
  for (const auto& row : table) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_BUILTINS_SUPPORT_H_

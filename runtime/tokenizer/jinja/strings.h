// What Python's methods of str do, on text that remembers where it came from. Linear in the text.
// Pure functions.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_STRINGS_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_STRINGS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/jinja/text.h"
#include "runtime/tokenizer/jinja/value.h"

namespace millrace::jinja {

// Without white space, or without the characters of the set, at the chosen ends.
Text Strip(const Text& text, const std::string* characters, bool front, bool back);

// `name` is lower, upper, capitalize or title. UNIMPLEMENTED beyond ASCII: the case of other
// letters is not in our tables, and refused is better than wrong.
absl::StatusOr<Value> ChangeCase(std::string_view name, const Text& text);

// At most `max_splits` cuts, counted from the front; negative: as many as there are.
List SplitSpaces(const Text& text, std::int64_t max_splits);
List SplitOn(const Text& text, std::string_view separator, std::int64_t max_splits);

// The first `count` occurrences; negative: all.
absl::StatusOr<Text> Replace(const Text& text, const Text& from, const Text& to,
                             std::int64_t count);

absl::StatusOr<Value> Join(const List& items, const Text& separator);

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_STRINGS_H_

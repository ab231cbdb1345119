// JSON in and out of template values, as Python's json module with ensure_ascii=False does it.
// Thread-safe (pure functions).
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_JSON_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_JSON_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/jinja/value.h"

namespace millrace::jinja {

// Every string is untrusted. INVALID_ARGUMENT naming `what` for bad JSON or nesting beyond
// `max_depth`.
absl::StatusOr<Value> ParseJson(std::string_view json, std::string_view what,
                                std::int32_t max_depth);

// json.dumps(value, ensure_ascii=False, indent=indent). INVALID_ARGUMENT for what JSON cannot say.
absl::StatusOr<Text> DumpJson(const Value& value, std::optional<std::int64_t> indent);

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_JSON_H_

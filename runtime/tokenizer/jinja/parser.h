// From tokens to a syntax tree. What the interpreter cannot run is refused here, by name and line,
// wherever it can be seen without running the template: statements, filters, tests.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_PARSER_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_PARSER_H_

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/jinja/ast.h"

namespace millrace::jinja {

// INVALID_ARGUMENT for bad syntax or nesting deeper than `max_depth`; UNIMPLEMENTED for Jinja that
// is not run.
absl::StatusOr<Block> ParseTemplate(std::string_view source, std::int32_t max_depth);

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_PARSER_H_

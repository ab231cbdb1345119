// Text of others (callers, servers, files, names) as it may be shown: in a log, on a terminal. Pure
// functions, thread-safe.
#ifndef MILLRACE_BASE_PRINTABLE_H_
#define MILLRACE_BASE_PRINTABLE_H_

#include <string>
#include <string_view>

namespace millrace {

// Appends `text` as one line of valid UTF-8 that is no command to a terminal: control characters
// become escapes as \u001b, and what is not UTF-8 becomes \ufffd. Backslashes stay as they are.
void AppendPrintable(std::string_view text, std::string* out);

// The same as the inside of a string in JSON: quotes and backslashes are escaped, too.
void AppendQuotable(std::string_view text, std::string* out);

}  // namespace millrace

#endif  // MILLRACE_BASE_PRINTABLE_H_

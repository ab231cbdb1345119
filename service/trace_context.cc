#include "service/trace_context.h"

#include <algorithm>
#include <cstddef>

namespace millrace {
namespace {

// "00-" trace id "-" parent id "-" flags
constexpr std::size_t kTraceAt = 3;
constexpr std::size_t kTraceDigits = 32;
constexpr std::size_t kParentAt = kTraceAt + kTraceDigits + 1;
constexpr std::size_t kParentDigits = 16;
constexpr std::size_t kFlagsAt = kParentAt + kParentDigits + 1;
constexpr std::size_t kFlagsDigits = 2;
constexpr std::size_t kLength = kFlagsAt + kFlagsDigits;

bool AllHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// An id of zeros stands for none.
bool IsId(std::string_view text) {
  return AllHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view header) {
  if (header.size() != kLength || !header.starts_with("00-") || header[kParentAt - 1] != '-' ||
      header[kFlagsAt - 1] != '-') {
    return std::nullopt;
  }
  const std::string_view trace = header.substr(kTraceAt, kTraceDigits);
  const std::string_view parent = header.substr(kParentAt, kParentDigits);
  if (!IsId(trace) || !IsId(parent) || !AllHex(header.substr(kFlagsAt, kFlagsDigits))) {
    return std::nullopt;
  }
  return TraceContext{.trace_id = std::string(trace), .parent_id = std::string(parent)};
}

}  // namespace millrace

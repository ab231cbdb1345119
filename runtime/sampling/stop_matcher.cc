#include "runtime/sampling/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace millrace {
namespace {

// Bytes at the end of `text` that are the beginning of `stop` and not all of it: what must be held
// back.
std::size_t PartialAtEnd(std::string_view text, std::string_view stop) {
  std::size_t length = std::min(text.size(), stop.size() - 1);
  for (; length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) return length;
  }
  return 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stop_strings, bool include_stop_string)
    : stop_strings_(std::move(stop_strings)), include_stop_string_(include_stop_string) {}

StopMatcher::Step StopMatcher::Push(std::string_view bytes) {
  Step step;
  if (stop_strings_.empty()) {
    step.released = bytes;
    return step;
  }
  const std::size_t old_size = held_.size();
  held_ += bytes;
  // The match that ends first, and of those the longest: the same whatever the cut into tokens.
  std::size_t best_end = std::string::npos;
  std::size_t best_begin = 0;
  for (std::uint32_t i = 0; i < stop_strings_.size(); ++i) {
    const std::string& stop = stop_strings_[i];
    // A match that ends within the old bytes would have been found before.
    const std::size_t from = old_size + 1 > stop.size() ? old_size + 1 - stop.size() : 0;
    const std::size_t begin = held_.find(stop, from);
    if (begin == std::string::npos) continue;
    const std::size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && begin < best_begin)) {
      best_end = end;
      best_begin = begin;
      step.hit = i;
    }
  }
  if (step.hit) {
    step.released = held_.substr(0, include_stop_string_ ? best_end : best_begin);
    held_.clear();
    return step;
  }
  std::size_t keep = 0;
  for (const std::string& stop : stop_strings_) keep = std::max(keep, PartialAtEnd(held_, stop));
  step.released = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return step;
}

std::string StopMatcher::Flush() { return std::exchange(held_, std::string()); }

}  // namespace millrace

#include "runtime/sampling/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace millrace {
namespace {

std::vector<std::uint32_t> Fallbacks(const std::string& text) {
  std::vector<std::uint32_t> fallback(text.size(), 0);
  std::uint32_t length = 0;
  for (std::size_t i = 1; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[length]) length = fallback[length - 1];
    if (text[i] == text[length]) ++length;
    fallback[i] = length;
  }
  return fallback;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stop_strings, bool include_stop_string)
    : stop_strings_(std::move(stop_strings)), include_stop_string_(include_stop_string) {
  for (const std::string& text : stop_strings_) patterns_.push_back({text, Fallbacks(text)});
}

void StopMatcher::Advance(char byte, Pattern* pattern) {
  std::uint32_t& matched = pattern->matched;
  while (matched > 0 && pattern->text[matched] != byte) matched = pattern->fallback[matched - 1];
  if (pattern->text[matched] == byte) ++matched;
}

StopMatcher::Step StopMatcher::Push(std::string_view bytes) {
  Step step;
  if (patterns_.empty()) {
    step.released = bytes;
    return step;
  }
  std::size_t longest = 0;  // of what may yet become a stop string
  for (const char byte : bytes) {
    held_ += byte;
    longest = 0;
    std::size_t hit_size = 0;
    for (std::uint32_t i = 0; i < patterns_.size(); ++i) {
      Pattern& pattern = patterns_[i];
      Advance(byte, &pattern);
      longest = std::max<std::size_t>(longest, pattern.matched);
      if (pattern.matched < pattern.text.size() || pattern.text.size() <= hit_size) continue;
      hit_size = pattern.text.size();
      step.hit = i;
    }
    if (step.hit) {
      step.released = held_.substr(0, held_.size() - (include_stop_string_ ? 0 : hit_size));
      held_.clear();
      return step;
    }
  }
  if (bytes.empty()) return step;
  step.released = held_.substr(0, held_.size() - longest);
  held_.erase(0, held_.size() - longest);
  return step;
}

std::string StopMatcher::Flush() { return std::exchange(held_, std::string()); }

}  // namespace millrace

#include "runtime/tokenizer/jinja/text.h"

#include <algorithm>

namespace millrace::jinja {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

void Text::Append(std::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  bytes_.append(bytes);
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().length += bytes.size();
  } else {
    runs_.push_back({bytes.size(), trusted});
  }
}

void Text::Append(const Text& other) {
  std::size_t begin = 0;
  // By value: `other` may be this very text.
  const std::vector<Run> runs = other.runs_;
  const std::string bytes = other.bytes_;
  for (const Run& run : runs) {
    Append(std::string_view(bytes).substr(begin, run.length), run.trusted);
    begin += run.length;
  }
}

Text Text::Slice(std::size_t begin, std::size_t count) const {
  Text out;
  begin = std::min(begin, bytes_.size());
  const std::size_t end = begin + std::min(count, bytes_.size() - begin);
  std::size_t run_begin = 0;
  for (const Run& run : runs_) {
    const std::size_t from = std::max(begin, run_begin);
    const std::size_t to = std::min(end, run_begin + run.length);
    if (from < to) out.Append(std::string_view(bytes_).substr(from, to - from), run.trusted);
    run_begin += run.length;
  }
  return out;
}

bool Text::trusted() const {
  return std::all_of(runs_.begin(), runs_.end(), [](const Run& run) { return run.trusted; });
}

std::size_t CodePointCount(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

std::size_t CodePointOffset(std::string_view text, std::size_t index) {
  std::size_t seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (IsContinuation(text[i])) continue;
    if (seen == index) return i;
    ++seen;
  }
  return text.size();
}

}  // namespace millrace::jinja

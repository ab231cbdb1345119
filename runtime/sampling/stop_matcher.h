// Finds stop strings in the bytes a sequence generates, and holds back the bytes that may yet
// become part of one, so that a stop string is never half sent. A value: copyable, owned by its
// sequence. Deterministic: what comes out depends on the bytes alone, not on how they were cut into
// tokens.
#ifndef MILLRACE_RUNTIME_SAMPLING_STOP_MATCHER_H_
#define MILLRACE_RUNTIME_SAMPLING_STOP_MATCHER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

class StopMatcher {
 public:
  StopMatcher() = default;
  // `stop_strings` are matched on bytes; the earliest end of a match wins, then the longest string.
  // With `include_stop_string` a match is part of the text, else the text ends before it.
  StopMatcher(std::vector<std::string> stop_strings, bool include_stop_string);

  struct Step {
    std::string released;              // bytes that are now certain to be text
    std::optional<std::uint32_t> hit;  // index into the stop strings: the text has ended
  };
  // Takes the bytes of one more token. REQUIRES: no hit so far.
  Step Push(std::string_view bytes);
  // The bytes still held back: text after all, when the sequence ended for another reason.
  std::string Flush();

  const std::string& stop_string(std::uint32_t index) const { return stop_strings_[index]; }
  const std::vector<std::string>& stop_strings() const { return stop_strings_; }
  bool include_stop_string() const { return include_stop_string_; }

 private:
  // A stop string with its automaton (Knuth, Morris, Pratt): a byte costs constant time on average,
  // whatever the string and the text.
  struct Pattern {
    std::string text;
    std::vector<std::uint32_t> fallback;  // [i]: longest proper prefix that ends the first i + 1
    std::uint32_t matched = 0;            // bytes of `text` that end what was pushed so far
  };
  static void Advance(char byte, Pattern* pattern);

  std::vector<std::string> stop_strings_;
  std::vector<Pattern> patterns_;
  bool include_stop_string_ = false;
  std::string held_;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_SAMPLING_STOP_MATCHER_H_

// A string whose bytes know where they came from: trusted ones were written by the template,
// untrusted ones by the caller. Every operation keeps the origin of each byte. A value; not
// thread-safe.
#ifndef MILLRACE_RUNTIME_TOKENIZER_JINJA_TEXT_H_
#define MILLRACE_RUNTIME_TOKENIZER_JINJA_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::jinja {

class Text {
 public:
  // `length` bytes of one origin; neighbours differ in origin.
  struct Run {
    std::size_t length;
    bool trusted;
  };

  Text() = default;
  Text(std::string_view bytes, bool trusted) { Append(bytes, trusted); }

  const std::string& bytes() const { return bytes_; }
  const std::vector<Run>& runs() const { return runs_; }
  bool empty() const { return bytes_.empty(); }
  std::size_t size() const { return bytes_.size(); }

  void Append(std::string_view bytes, bool trusted);
  void Append(const Text& other);
  // The bytes [begin, begin + count); clamped to what there is.
  Text Slice(std::size_t begin, std::size_t count = std::string::npos) const;
  // The same origins over bytes changed in place one for one (upper, lower of ASCII).
  template <typename F>
  Text MapBytes(F&& f) const {
    Text out = *this;
    for (char& c : out.bytes_) c = f(c);
    return out;
  }
  // True when every byte is the template's own.
  bool trusted() const;

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

// Code points of valid UTF-8; a stray byte counts as one.
std::size_t CodePointCount(std::string_view text);
// Byte offset of code point `index`, or the size when there are fewer.
std::size_t CodePointOffset(std::string_view text, std::size_t index);

}  // namespace millrace::jinja

#endif  // MILLRACE_RUNTIME_TOKENIZER_JINJA_TEXT_H_

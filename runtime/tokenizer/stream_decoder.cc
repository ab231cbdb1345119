#include "runtime/tokenizer/stream_decoder.h"

#include <cstddef>

#include "base/utf8.h"

namespace millrace {

std::string StreamDecoder::Push(std::string_view bytes) {
  held_.append(bytes);
  const std::string_view text = held_;
  std::string delta;
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t valid = ValidUtf8Prefix(text.substr(position));
    delta.append(text.substr(position, valid));
    position += valid;
    if (position == text.size()) break;
    const Utf8Sequence sequence = ReadUtf8(text, position);
    if (sequence.kind == Utf8Sequence::Kind::kUnfinished) break;
    delta.append(kReplacementCharacter);
    position += sequence.size;
  }
  held_.erase(0, position);
  return delta;
}

std::string StreamDecoder::Finish() {
  std::string delta = ReplaceInvalidUtf8(held_);
  held_.clear();
  return delta;
}

}  // namespace millrace

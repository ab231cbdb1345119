// Turns the bytes of a stream of tokens into deltas that are whole UTF-8. Bytes that cannot be part
// of any valid sequence become U+FFFD, one for each maximal invalid run as Unicode recommends; an
// unfinished sequence is held back until it is finished or the stream ends. A value, one for each
// live stream; not thread-safe. At most 3 bytes are held.
#ifndef MILLRACE_RUNTIME_TOKENIZER_STREAM_DECODER_H_
#define MILLRACE_RUNTIME_TOKENIZER_STREAM_DECODER_H_

#include <string>
#include <string_view>

namespace millrace {

class StreamDecoder {
 public:
  // The longest delta that `bytes` complete; may be empty.
  std::string Push(std::string_view bytes);
  // What is left at the end of the stream: U+FFFD if a sequence was unfinished, else empty.
  std::string Finish();

 private:
  std::string held_;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_STREAM_DECODER_H_

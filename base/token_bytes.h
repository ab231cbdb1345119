// The bytes each token of a vocabulary stands for. Built once from the tokenizer before the engine
// starts, immutable afterwards, and shared as a const view: the engine needs it to match stop
// strings on bytes without knowing the tokenizer. Thread-safe (const).
#ifndef MILLRACE_BASE_TOKEN_BYTES_H_
#define MILLRACE_BASE_TOKEN_BYTES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace millrace {

class TokenBytes {
 public:
  // bytes[id] is the text of token `id` in bytes (any bytes, not always whole UTF-8);
  // is_special[id] marks control tokens, which "skip special tokens" leaves out of the text.
  TokenBytes(std::vector<std::string> bytes, std::vector<bool> is_special)
      : bytes_(std::move(bytes)), is_special_(std::move(is_special)) {}

  std::uint32_t vocab_size() const { return static_cast<std::uint32_t>(bytes_.size()); }
  // An id outside the vocabulary has no bytes: a model's head may be wider than its vocabulary.
  std::string_view bytes(std::uint32_t id) const {
    return id < bytes_.size() ? std::string_view(bytes_[id]) : std::string_view();
  }
  bool is_special(std::uint32_t id) const { return id < is_special_.size() && is_special_[id]; }

 private:
  std::vector<std::string> bytes_;
  std::vector<bool> is_special_;
};

}  // namespace millrace

#endif  // MILLRACE_BASE_TOKEN_BYTES_H_

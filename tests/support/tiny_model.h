// The smallest files that are whole models, of any architecture: weights of zeros and a vocabulary
// of 8 tokens, for tests of what is read and refused rather than of what is computed.
#ifndef MILLRACE_TESTS_SUPPORT_TINY_MODEL_H_
#define MILLRACE_TESTS_SUPPORT_TINY_MODEL_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "tests/support/gguf_builder.h"

namespace millrace::testing {

// What a test may change before the file is written. Keys are named without the architecture.
struct TinyModel {
  std::string architecture = "qwen3moe";  // as written to the file, and the prefix of its keys
  std::string family = "qwen3moe";        // which tensors there are
  std::int64_t layers = 2;
  std::int64_t hidden = 8;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 2;
  std::int64_t head_dim = 4;
  std::int64_t ffn = 6;
  std::int64_t experts = 4;
  std::int64_t used = 2;
  std::int64_t vocab = 8;
  bool tied = false;
  bool no_vocabulary = false;  // `add` writes one, or none is there
  std::string without;         // a key (without the architecture) or tensor that is left out
  std::function<void(GgufBuilder*)> add;  // more keys and tensors
  std::function<void(std::string_view, std::vector<std::int64_t>*)> reshape;  // of each tensor
};

GgufBuilder BuildTinyModel(const TinyModel& model);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_SUPPORT_TINY_MODEL_H_

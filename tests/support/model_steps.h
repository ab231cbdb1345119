// Drives a loaded model step by step in tests: which tokens of which sequences one step computes,
// and their logits. Not thread-safe; plain functions and values.
#ifndef MILLRACE_TESTS_SUPPORT_MODEL_STEPS_H_
#define MILLRACE_TESTS_SUPPORT_MODEL_STEPS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/runner/model_loader.h"

namespace millrace::testing {

using Tokens = std::vector<std::int32_t>;
using Logits = std::vector<float>;  // [rows, vocab]

// What tests have in common: a context of 256 positions, 8 sequences, logits of every row.
LoadOptions SmallOptions(const std::string& path);

// The model, or a failed test with the reason and no runner.
LoadedModel MustLoad(const LoadOptions& options);

// The levels of kernels that this machine runs, best first.
std::vector<std::string> IsaLevels();

// Positions begin .. begin + count - 1 of one sequence. `blocks` may be longer than needed.
struct Chunk {
  std::span<const std::int32_t> tokens;  // the sequence from its start
  std::int32_t begin = 0;
  std::int32_t count = 0;
  std::span<const std::int32_t> blocks;
};

// The logits of every token of every chunk, in their order: [sum of counts, vocab].
Logits RunStep(ModelRunner* runner, std::span<const Chunk> chunks);

// One sequence alone, in one step, in blocks 0, 1, ...: [tokens, vocab].
Logits ForwardAlone(ModelRunner* runner, std::span<const std::int32_t> tokens);

std::span<const float> Row(const Logits& logits, std::size_t row, std::int32_t vocab);
std::int32_t Argmax(std::span<const float> row);
// Equal to the bit, NaNs included.
bool SameBits(std::span<const float> a, std::span<const float> b);

// 0, 1, ..., n - 1.
Tokens Iota(std::int32_t n);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_SUPPORT_MODEL_STEPS_H_

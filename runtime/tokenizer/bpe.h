// Byte-pair merges inside one word: always the pair of the lowest rank, the leftmost of equals.
// O(n log n) in the bytes of a word, no recursion.
//
// A value, immutable after Create; Encode is thread-safe with a Scratch for each thread.
#ifndef MILLRACE_RUNTIME_TOKENIZER_BPE_H_
#define MILLRACE_RUNTIME_TOKENIZER_BPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/merge_queue.h"

namespace millrace {

class BpeModel {
 public:
  // The id of a token written in the byte-level alphabet.
  using TokenLookup = std::function<std::optional<std::uint32_t>(std::string_view)>;

  struct Symbol {
    std::uint32_t id;
    std::uint32_t previous;  // kNone at the start of the word
    std::uint32_t next;      // kNone at its end
  };
  // Working memory kept between words.
  struct Scratch {
    std::vector<Symbol> symbols;
    HeapMergeQueue short_queue;  // both empty between words
    BucketMergeQueue long_queue;
  };

  // merges[rank] is "left right". INVALID_ARGUMENT naming the merge when it is not two tokens of
  // the vocabulary whose concatenation is one too.
  static absl::StatusOr<BpeModel> Create(std::span<const std::string> merges,
                                         const TokenLookup& find_token);

  // Appends the ids of `word` (any bytes, fewer than 2^32 - 1) to `ids`. A byte that is no token of
  // the vocabulary is left out, as Hugging Face does for want of an unknown token.
  void Encode(std::string_view word, Scratch* scratch, std::vector<std::uint32_t>* ids) const;

 private:
  struct Merge {
    std::uint32_t rank;
    std::uint32_t id;
  };
  static constexpr std::uint32_t kNone = UINT32_MAX;
  static std::uint64_t PairKey(std::uint32_t left, std::uint32_t right) {
    return std::uint64_t{left} << 32 | right;
  }

  void SplitIntoBytes(std::string_view word, std::vector<Symbol>* symbols) const;
  // The merge of symbols[left] with the symbol behind it; null if there is none.
  const Merge* FindMerge(const std::vector<Symbol>& symbols, std::uint32_t left) const;
  template <typename Queue>
  void MergeAll(std::vector<Symbol>* symbols, Queue* queue) const;

  std::array<std::uint32_t, 256> byte_ids_;
  absl::flat_hash_map<std::uint64_t, Merge> merges_;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_BPE_H_

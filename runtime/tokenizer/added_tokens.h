// Finds the tokens that are matched in the raw text before anything else: control tokens where they
// may be parsed, user-defined tokens anywhere. Time: the text's bytes times the longest of these
// tokens at worst, in practice one look at each byte.
//
// A value; Find is thread-safe once all tokens are added.
#ifndef MILLRACE_RUNTIME_TOKENIZER_ADDED_TOKENS_H_
#define MILLRACE_RUNTIME_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace millrace {

class AddedTokens {
 public:
  struct Match {
    std::uint32_t id;
    std::size_t size;  // in bytes
  };

  // Empty texts are ignored: they would match everywhere.
  void Add(std::string_view text, std::uint32_t id, bool is_control);

  // The longest token that starts at text[begin]; of control tokens only those that end at or
  // before `control_limit`.
  std::optional<Match> Find(std::string_view text, std::size_t begin,
                            std::size_t control_limit) const;

  // False if no token starts with this byte.
  bool MayStart(char byte) const { return starts_[static_cast<unsigned char>(byte)]; }

 private:
  struct Node {
    std::uint32_t id = 0;
    bool is_token = false;
    bool is_control = false;
  };
  static std::uint64_t EdgeKey(std::uint32_t node, char byte) {
    return std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
  }

  std::vector<Node> nodes_ = std::vector<Node>(1);           // a trie; the root is 0
  absl::flat_hash_map<std::uint64_t, std::uint32_t> edges_;  // EdgeKey to node
  std::array<bool, 256> starts_{};
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_TOKENIZER_ADDED_TOKENS_H_

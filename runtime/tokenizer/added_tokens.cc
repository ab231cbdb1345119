#include "runtime/tokenizer/added_tokens.h"

namespace millrace {

void AddedTokens::Add(std::string_view text, std::uint32_t id, bool is_control) {
  if (text.empty()) return;
  starts_[static_cast<unsigned char>(text.front())] = true;
  std::uint32_t node = 0;
  for (const char byte : text) {
    const auto next = static_cast<std::uint32_t>(nodes_.size());
    const auto [edge, inserted] = edges_.try_emplace(EdgeKey(node, byte), next);
    if (inserted) nodes_.emplace_back();
    node = edge->second;
  }
  nodes_[node] = {id, true, is_control};
}

std::optional<AddedTokens::Match> AddedTokens::Find(std::string_view text, std::size_t begin,
                                                    std::size_t control_limit) const {
  std::optional<Match> longest;
  std::uint32_t node = 0;
  for (std::size_t end = begin; end < text.size();) {
    const auto edge = edges_.find(EdgeKey(node, text[end]));
    if (edge == edges_.end()) break;
    node = edge->second;
    ++end;
    const Node& reached = nodes_[node];
    if (reached.is_token && (!reached.is_control || end <= control_limit)) {
      longest = Match{reached.id, end - begin};
    }
  }
  return longest;
}

}  // namespace millrace

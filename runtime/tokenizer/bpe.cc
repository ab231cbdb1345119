#include "runtime/tokenizer/bpe.h"

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/byte_alphabet.h"

namespace millrace {
namespace {

// Symbols up to which a heap beats sweeping: it still fits the first-level cache.
constexpr std::size_t kShortWord = 512;

absl::Status BadMerge(std::size_t rank, std::string_view merge, std::string_view what) {
  const std::string shown(merge.substr(0, 64));
  return absl::InvalidArgumentError(absl::StrCat(
      "tokenizer.ggml.merges[", rank, "] '", absl::CHexEscape(shown), "': ", std::string(what)));
}

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Create(std::span<const std::string> merges,
                                          const TokenLookup& find_token) {
  BpeModel model;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    model.byte_ids_[byte] = find_token(ToByteAlphabet({&c, 1})).value_or(kNone);
  }
  model.merges_.reserve(merges.size());
  std::string merged;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    // The byte-level alphabet has no space, so the first one parts the tokens.
    const std::size_t space = merge.find(' ');
    if (space == std::string_view::npos) return BadMerge(rank, merge, "has no space");
    merged.assign(merge.substr(0, space)).append(merge.substr(space + 1));
    const auto left = find_token(merge.substr(0, space));
    const auto right = find_token(merge.substr(space + 1));
    const auto id = find_token(merged);
    if (!left || !right || !id) {
      return BadMerge(rank, merge, "a part or the whole is not in tokenizer.ggml.tokens");
    }
    model.merges_.insert_or_assign(PairKey(*left, *right),
                                   Merge{static_cast<std::uint32_t>(rank), *id});
  }
  return model;
}

void BpeModel::SplitIntoBytes(std::string_view word, std::vector<Symbol>* symbols) const {
  symbols->clear();
  for (const char byte : word) {
    const std::uint32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id == kNone) continue;
    const auto at = static_cast<std::uint32_t>(symbols->size());
    symbols->push_back({id, at - 1, at + 1});  // the first one's previous wraps to kNone
  }
  if (!symbols->empty()) symbols->back().next = kNone;
}

const BpeModel::Merge* BpeModel::FindMerge(const std::vector<Symbol>& symbols,
                                           std::uint32_t left) const {
  const std::uint32_t right = symbols[left].next;
  if (right == kNone) return nullptr;
  const auto found = merges_.find(PairKey(symbols[left].id, symbols[right].id));
  return found == merges_.end() ? nullptr : &found->second;
}

template <typename Queue>
void BpeModel::MergeAll(std::vector<Symbol>* word, Queue* queue) const {
  std::vector<Symbol>& symbols = *word;
  const auto push = [&](std::uint32_t left) {
    if (const Merge* merge = FindMerge(symbols, left)) queue->Push({merge->rank, left});
  };
  for (std::uint32_t i = 0; i < symbols.size(); ++i) push(i);
  while (const auto best = queue->Pop()) {
    Symbol& left = symbols[best->left];
    if (left.id == kNone) continue;  // merged into the one before it
    const Merge* merge = FindMerge(symbols, best->left);
    if (merge == nullptr || merge->rank != best->rank) continue;  // its neighbour has changed
    Symbol& right = symbols[left.next];
    left.id = merge->id;
    right.id = kNone;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = best->left;
    if (left.previous != kNone) push(left.previous);
    push(best->left);
  }
}

void BpeModel::Encode(std::string_view word, Scratch* scratch,
                      std::vector<std::uint32_t>* ids) const {
  std::vector<Symbol>& symbols = scratch->symbols;
  SplitIntoBytes(word, &symbols);
  if (symbols.size() <= kShortWord) {
    MergeAll(&symbols, &scratch->short_queue);
  } else {
    MergeAll(&symbols, &scratch->long_queue);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.id != kNone) ids->push_back(symbol.id);
  }
}

}  // namespace millrace

#include "runtime/tokenizer/bpe.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/byte_alphabet.h"

namespace millrace {
namespace {

// For std::push_heap, whose front is the greatest.
bool ComesLater(const BpeModel::Candidate& a, const BpeModel::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

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

void BpeModel::AddCandidate(std::uint32_t left, Scratch* scratch) const {
  const std::uint32_t right = scratch->symbols[left].next;
  if (right == kNone) return;
  const auto found = merges_.find(PairKey(scratch->symbols[left].id, scratch->symbols[right].id));
  if (found == merges_.end()) return;
  scratch->candidates.push_back({found->second.rank, left, found->second.id});
}

void BpeModel::MergeAll(Scratch* scratch) const {
  std::vector<Symbol>& symbols = scratch->symbols;
  std::vector<Candidate>& heap = scratch->candidates;
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), ComesLater);
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[best.left];
    if (left.id == kNone || left.next == kNone) continue;  // merged away, or now the last
    Symbol& right = symbols[left.next];
    const auto found = merges_.find(PairKey(left.id, right.id));
    if (found == merges_.end() || found->second.rank != best.rank) continue;  // out of date
    left.id = best.merged_id;
    right.id = kNone;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = best.left;
    for (const std::uint32_t changed : {left.previous, best.left}) {
      if (changed == kNone) continue;
      const std::size_t before = heap.size();
      AddCandidate(changed, scratch);
      if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), ComesLater);
    }
  }
}

void BpeModel::Encode(std::string_view word, Scratch* scratch,
                      std::vector<std::uint32_t>* ids) const {
  SplitIntoBytes(word, &scratch->symbols);
  scratch->candidates.clear();
  for (std::uint32_t i = 0; i + 1 < scratch->symbols.size(); ++i) AddCandidate(i, scratch);
  std::make_heap(scratch->candidates.begin(), scratch->candidates.end(), ComesLater);
  MergeAll(scratch);
  for (const Symbol& symbol : scratch->symbols) {
    if (symbol.id != kNone) ids->push_back(symbol.id);
  }
}

}  // namespace millrace

#include "scheduler/fingerprint.h"

#include <string_view>
#include <variant>

namespace millrace {
namespace {

class Hash {
 public:
  void Add(std::uint64_t value) {
    for (int i = 0; i < 8; ++i) AddByte(static_cast<unsigned char>(value >> (8 * i)));
  }
  void Add(std::string_view text) {
    Add(text.size());
    for (const char c : text) AddByte(static_cast<unsigned char>(c));
  }
  void Add(const std::vector<std::int32_t>& values) {
    Add(values.size());
    for (const std::int32_t value : values) Add(static_cast<std::uint64_t>(value));
  }
  std::uint64_t value() const { return value_; }

 private:
  void AddByte(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001B3ULL; }

  std::uint64_t value_ = 0xCBF29CE484222325ULL;
};

struct AddWhat {
  void operator()(const TokensEvent& event) const {
    hash->Add(event.index);
    for (const SampledToken& token : event.tokens) hash->Add(token.token);
    hash->Add(event.released_bytes);
  }
  void operator()(const FinishedEvent& event) const {
    hash->Add(event.index);
    hash->Add(static_cast<std::uint64_t>(event.reason));
    hash->Add(event.match.index());
    hash->Add(event.last ? 1 : 0);
    AddUsage(event.usage);
  }
  void operator()(const CancelledEvent& event) const { AddUsage(event.usage); }
  void operator()(const ShutDownEvent& event) const { AddUsage(event.usage); }
  void operator()(const FailedEvent& event) const {
    hash->Add(static_cast<std::uint64_t>(event.status.code()));
    AddUsage(event.usage);
  }
  void AddUsage(const RequestUsage& usage) const {
    for (const std::uint32_t count :
         {usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.preemptions}) {
      hash->Add(count);
    }
  }

  Hash* hash;
};

}  // namespace

std::uint64_t Fingerprint(const StepPlan& plan) {
  Hash hash;
  for (const PlannedSequence& planned : plan.sequences) {
    hash.Add(planned.id.value());
    hash.Add(planned.index);
    hash.Add(static_cast<std::uint64_t>(planned.num_tokens));
    hash.Add(static_cast<std::uint64_t>(planned.logit_row));
  }
  const ForwardBatch& batch = plan.batch;
  for (const auto* values : {&batch.token_ids, &batch.positions, &batch.context_len,
                             &batch.block_table, &batch.block_table_start}) {
    hash.Add(*values);
  }
  return hash.value();
}

std::uint64_t Fingerprint(const std::vector<TokenEvent>& events) {
  Hash hash;
  for (const TokenEvent& event : events) {
    hash.Add(event.id.value());
    hash.Add(event.what.index());
    std::visit(AddWhat{&hash}, event.what);
  }
  return hash.value();
}

}  // namespace millrace

// The sequences that wait, and which of them is the next: who was preempted before all others, the
// newest of them first; then by (aged class, tokens of the tenant, deadline, arrival).
//
//   aged class  the priority, one more for every kAgeStep of waiting, up to the highest priority
//               among those that wait. So a low class comes to the top in the end, while requests
//               of one class are never told apart by their age before tenants are.
//   tokens      that were computed for the tenant: the fewest first (scheduler/fair_share.h)
//   deadline    the caller's, but at most PatienceOf(priority) after the arrival
//
// Hence the bound on waiting (docs/adr/0015): within a tenant, nobody is overtaken by a request
// that arrives PatienceOf(its priority) or more after it.
//
// Not thread-safe; sequences stay their owner's.
#ifndef MILLRACE_SCHEDULER_WAIT_QUEUE_H_
#define MILLRACE_SCHEDULER_WAIT_QUEUE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "scheduler/fair_share.h"
#include "scheduler/queue_view.h"
#include "scheduler/sequence.h"

namespace millrace {

// A class is worth so much waiting: people notice some seconds.
inline constexpr Duration kAgeStep = std::chrono::seconds(5);

// The deadline, after its arrival, of a request that has none: a minute, and a kAgeStep less for
// every class. Never less than what aging takes from `priority` to the highest class.
constexpr Duration PatienceOf(std::int32_t priority) {
  return std::chrono::seconds(60) - priority * kAgeStep;
}

class WaitQueue {
 public:
  explicit WaitQueue(FairShare* shares) : shares_(*shares) {}

  // Its state says whether it was preempted.
  void Push(Sequence* sequence);
  void Remove(Sequence* sequence);

  // The first in the order of those that `may_go`; nullptr if there is none.
  Sequence* First(TimePoint now, const std::function<bool(const Sequence&)>& may_go) const;
  // Whom to turn away when too much of it waits: of the tenant that has the most of it in the queue
  // the last in the order whose request was never worked on; nullptr if there is none.
  enum class Limit : std::uint8_t { kSequences, kPromptTokens };
  Sequence* Surplus(TimePoint now, Limit limit) const;

  // Tenants with nothing as urgent as what is about to be admitted have no part in this round, and
  // save nothing up. Before it is removed.
  void LiftOthers(const Sequence& admitted, TimePoint now);

  // All that waits, as admission sees it.
  QueueView View(TimePoint now) const;
  // Another whenever the sequences are.
  std::uint64_t version() const { return version_; }

  bool empty() const { return sequences_.empty(); }
  std::int32_t size() const { return static_cast<std::int32_t>(sequences_.size()); }
  // Tokens that their prompts have, as far as not computed for a sibling.
  std::int64_t prompt_tokens() const { return prompt_tokens_; }
  TimePoint oldest_arrival() const;  // kNoDeadline if none wait
  // Of those that could be admitted for the first time, were there room.
  TimePoint oldest_arrival_of_new() const;
  const std::vector<Sequence*>& sequences() const { return sequences_; }

 private:
  std::int32_t HighestPriority() const;
  std::int64_t Held(const Sequence& sequence, Limit limit) const;
  bool Before(const Sequence& a, const Sequence& b, TimePoint now, std::int32_t highest) const;

  FairShare& shares_;
  std::vector<Sequence*> sequences_;  // preempted ones in the order of preemption
  std::int64_t prompt_tokens_ = 0;
  std::uint64_t version_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_WAIT_QUEUE_H_

#include "scheduler/wait_queue.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"

namespace millrace {
namespace {

std::int64_t AgedClass(const Request& request, TimePoint now, std::int32_t highest) {
  const std::int64_t steps = std::max<std::int64_t>(0, (now - request.arrival) / kAgeStep);
  return std::min<std::int64_t>(highest, request.priority + steps);
}

TimePoint DeadlineOf(const Request& request) {
  return std::min(request.deadline, request.arrival + PatienceOf(request.priority));
}

}  // namespace

void WaitQueue::Push(Sequence* sequence) {
  ++version_;
  sequences_.push_back(sequence);
  prompt_tokens_ += sequence->prompt_to_compute();
  if (!sequence->preempted()) {
    shares_.BeginWait(sequence->group->tenant, sequence->prompt_to_compute());
  }
}

void WaitQueue::Remove(Sequence* sequence) {
  const auto at = std::find(sequences_.begin(), sequences_.end(), sequence);
  MILLRACE_CHECK(at != sequences_.end(), "who leaves the queue is in it");
  ++version_;
  sequences_.erase(at);
  prompt_tokens_ -= sequence->prompt_to_compute();
  if (!sequence->preempted()) {
    shares_.EndWait(sequence->group->tenant, sequence->prompt_to_compute());
  }
}

std::int32_t WaitQueue::HighestPriority() const {
  std::int32_t highest = -kMaxPriority;
  for (const Sequence* sequence : sequences_) {
    highest = std::max(highest, sequence->request().priority);
  }
  return highest;
}

bool WaitQueue::Before(const Sequence& a, const Sequence& b, TimePoint now,
                       std::int32_t highest) const {
  const Request& ra = a.request();
  const Request& rb = b.request();
  const std::int64_t class_a = AgedClass(ra, now, highest);
  const std::int64_t class_b = AgedClass(rb, now, highest);
  if (class_a != class_b) return class_a > class_b;
  const std::int64_t tokens_a = shares_.charged(a.group->tenant);
  const std::int64_t tokens_b = shares_.charged(b.group->tenant);
  if (tokens_a != tokens_b) return tokens_a < tokens_b;
  const auto turn_a = std::tuple(DeadlineOf(ra), ra.arrival, ra.id, a.index);
  const auto turn_b = std::tuple(DeadlineOf(rb), rb.arrival, rb.id, b.index);
  return turn_a < turn_b;
}

Sequence* WaitQueue::First(TimePoint now,
                           const std::function<bool(const Sequence&)>& may_go) const {
  // The newest preempted one stands last.
  for (auto at = sequences_.rbegin(); at != sequences_.rend(); ++at) {
    if ((*at)->preempted() && may_go(**at)) return *at;
  }
  const std::int32_t highest = HighestPriority();
  Sequence* first = nullptr;
  for (Sequence* sequence : sequences_) {
    if (!may_go(*sequence)) continue;
    if (first == nullptr || Before(*sequence, *first, now, highest)) first = sequence;
  }
  return first;
}

std::int64_t WaitQueue::Held(const Sequence& sequence, Limit limit) const {
  const QueueView::Waiting& waiting = shares_.waiting(sequence.group->tenant);
  return limit == Limit::kSequences ? waiting.sequences : waiting.prompt_tokens;
}

Sequence* WaitQueue::Surplus(TimePoint now, Limit limit) const {
  const std::int32_t highest = HighestPriority();
  std::int64_t most = 0;
  for (const Sequence* sequence : sequences_) most = std::max(most, Held(*sequence, limit));
  Sequence* last = nullptr;
  for (Sequence* sequence : sequences_) {
    if (Held(*sequence, limit) < most) continue;
    if (sequence->group->first_scheduled != TimePoint{}) continue;  // it may have sent tokens
    if (last == nullptr || Before(*last, *sequence, now, highest)) last = sequence;
  }
  return last;
}

void WaitQueue::LiftOthers(const Sequence& admitted, TimePoint now) {
  if (admitted.preempted() || shares_.num_waiting() < 2) return;
  const std::int32_t highest = HighestPriority();
  const std::int64_t round = AgedClass(admitted.request(), now, highest);
  std::vector<char> takes_part(shares_.num_places(), 0);
  std::int64_t fewest = shares_.charged(admitted.group->tenant);
  for (const Sequence* s : sequences_) {
    if (s->preempted() || !s->could_go()) continue;
    if (AgedClass(s->request(), now, highest) < round) continue;
    takes_part[s->group->tenant.value()] = 1;
    fewest = std::min(fewest, shares_.charged(s->group->tenant));
  }
  for (const Sequence* s : sequences_) {
    const TenantId tenant = s->group->tenant;
    if (takes_part[tenant.value()] == 0) shares_.Lift(tenant, fewest);
  }
}

QueueView WaitQueue::View(TimePoint now) const {
  const std::int32_t highest = HighestPriority();
  QueueView view;
  for (const Sequence* s : sequences_) {
    const std::int64_t priority =
        s->preempted() ? kMaxPriority + 1 : AgedClass(s->request(), now, highest);
    view.Add(shares_.name(s->group->tenant), static_cast<std::int32_t>(priority),
             {1, s->prompt_to_compute()});
  }
  return view;
}

TimePoint WaitQueue::oldest_arrival() const {
  TimePoint oldest = kNoDeadline;
  for (const Sequence* sequence : sequences_) {
    oldest = std::min(oldest, sequence->request().arrival);
  }
  return oldest;
}

TimePoint WaitQueue::oldest_arrival_of_new() const {
  TimePoint oldest = kNoDeadline;
  for (const Sequence* sequence : sequences_) {
    const bool could = !sequence->preempted() && sequence->could_go();
    if (could) oldest = std::min(oldest, sequence->request().arrival);
  }
  return oldest;
}

}  // namespace millrace

#include "scheduler/queue_view.h"

#include <algorithm>

namespace millrace {

void QueueView::Add(const std::string& tenant, std::int32_t priority, const Waiting& more,
                    int sign) {
  total_.Add(more, sign);
  Classes& classes = tenants_[tenant];
  Waiting& waiting = classes[priority];
  waiting.Add(more, sign);
  if (waiting.sequences == 0) classes.erase(priority);
  if (classes.empty()) tenants_.erase(tenant);
}

void QueueView::Add(const std::string& tenant, std::int32_t priority, const Waiting& more) {
  Add(tenant, priority, more, 1);
}

void QueueView::Add(const Request& request) {
  Add(request.tenant, request.priority,
      {static_cast<std::int32_t>(request.num_sequences),
       static_cast<std::int64_t>(request.prompt_tokens.size())});
}

void QueueView::AddAll(const QueueView& other, int sign) {
  for (const auto& [tenant, classes] : other.tenants_) {
    for (const auto& [priority, waiting] : classes) Add(tenant, priority, waiting, sign);
  }
}

// A tenant that is not told apart from others looks like one with nothing here: the scheduler,
// which knows, turns the surplus away (Scheduler::ShedSurplus).
const QueueView::Classes* QueueView::Find(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? nullptr : &found->second;
}

std::int32_t QueueView::NumTenantsWith(const std::string& tenant) const {
  const auto others = static_cast<std::int32_t>(tenants_.size());
  return Find(tenant) != nullptr ? others : others + 1;
}

QueueView::Waiting QueueView::Of(const std::string& tenant) const {
  Waiting sum;
  const Classes* const own = Find(tenant);
  if (own == nullptr) return sum;
  for (const auto& [priority, waiting] : *own) sum.Add(waiting);
  return sum;
}

QueueView::Waiting QueueView::Before(const std::string& tenant, std::int32_t priority) const {
  const auto in_class = [priority](const Classes& classes) {
    const auto found = classes.find(priority);
    return found == classes.end() ? Waiting{} : found->second;
  };
  const Classes* const own = Find(tenant);
  const Waiting own_before = own == nullptr ? Waiting{} : in_class(*own);
  Waiting before = own_before;
  for (const auto& [name, classes] : tenants_) {
    for (auto at = classes.upper_bound(priority); at != classes.end(); ++at) before.Add(at->second);
    if (&classes == own) continue;
    const Waiting same = in_class(classes);
    const std::int32_t turns = std::min(same.sequences, own_before.sequences + 1);
    if (turns > 0) before.Add({turns, same.prompt_tokens * turns / same.sequences});
  }
  return before;
}

}  // namespace millrace

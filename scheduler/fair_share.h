// Who is served next among tenants: each has a count of tokens that were computed for it, and the
// one with the fewest goes first. A tenant that comes back is lifted to the fewest of those that
// wait, so that nobody saves up while idle (Sheng et al., "Fairness in Serving Large Language
// Models", OSDI 2024, algorithm 2: the virtual token counter).
//
// A value without clock or thread; not thread-safe.
#ifndef MILLRACE_SCHEDULER_FAIR_SHARE_H_
#define MILLRACE_SCHEDULER_FAIR_SHARE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/strong_id.h"
#include "scheduler/queue_view.h"

namespace millrace {

using TenantId = StrongId<struct TenantIdTag, std::uint32_t>;

class FairShare {
 public:
  // Names are the caller's to choose: so many are told apart, all others are one tenant,
  // kOtherTenants.
  static constexpr std::size_t kMaxTenants = 1024;

  // A request of `name` lives from Join to Leave; its tenant keeps its count that long.
  TenantId Join(const std::string& name);
  void Leave(TenantId id);
  // A sequence with so many prompt tokens waits for its first admission, or does so no more.
  void BeginWait(TenantId id, std::int64_t prompt_tokens);
  void EndWait(TenantId id, std::int64_t prompt_tokens);
  // So many tokens are computed for it.
  void Charge(TenantId id, std::int64_t tokens) { At(id).charged += tokens; }

  std::int64_t charged(TenantId id) const { return tenants_[id.value()].charged; }
  // At least as many as `tokens` are counted for it.
  void Lift(TenantId id, std::int64_t tokens);
  const std::string& name(TenantId id) const { return tenants_[id.value()].name; }
  std::size_t num_places() const { return tenants_.size(); }  // ids are below

  // What of it waits.
  const QueueView::Waiting& waiting(TenantId id) const { return tenants_[id.value()].waiting; }
  // Tenants of which something waits.
  std::int32_t num_waiting() const { return num_waiting_; }

 private:
  struct Tenant {
    std::string name;
    std::int32_t live = 0;
    QueueView::Waiting waiting;
    std::int64_t charged = 0;
  };

  Tenant& At(TenantId id) { return tenants_[id.value()]; }
  TenantId Place(const std::string& name);

  std::vector<Tenant> tenants_;
  std::map<std::string, TenantId> by_name_;
  std::int32_t num_waiting_ = 0;
  TenantId last_;           // to wait; while nobody does, its count is the level
  std::int64_t floor_ = 0;  // the level where that tenant's place is another's by now
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_FAIR_SHARE_H_

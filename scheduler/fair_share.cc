#include "scheduler/fair_share.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/check.h"

namespace millrace {

// A place of its own while there is one: that of an idle tenant is taken, of the one with the
// fewest tokens, which is the most likely to be lifted anyway when it comes back.
TenantId FairShare::Place(const std::string& name) {
  if (tenants_.size() < kMaxTenants) {
    tenants_.push_back({name});
    return TenantId(static_cast<std::uint32_t>(tenants_.size() - 1));
  }
  std::optional<std::size_t> idle;
  for (std::size_t i = 0; i < kMaxTenants; ++i) {
    if (tenants_[i].live > 0) continue;
    if (!idle || tenants_[i].charged < tenants_[*idle].charged) idle = i;
  }
  if (idle) {
    if (*idle == last_.value()) floor_ = std::max(floor_, tenants_[*idle].charged);
    by_name_.erase(tenants_[*idle].name);
    tenants_[*idle] = {name};
    return TenantId(static_cast<std::uint32_t>(*idle));
  }
  if (tenants_.size() == kMaxTenants) tenants_.push_back({kOtherTenants});
  return TenantId(static_cast<std::uint32_t>(kMaxTenants));
}

TenantId FairShare::Join(const std::string& name) {
  const auto found = by_name_.find(name);
  const TenantId id = found != by_name_.end() ? found->second : Place(name);
  if (id.value() < kMaxTenants) by_name_.emplace(name, id);
  ++At(id).live;
  return id;
}

void FairShare::Leave(TenantId id) {
  MILLRACE_CHECK(At(id).live > 0, "a tenant leaves as often as it joins");
  --At(id).live;
}

void FairShare::BeginWait(TenantId id, std::int64_t prompt_tokens) {
  Tenant& tenant = At(id);
  tenant.waiting.Add({1, prompt_tokens});
  if (tenant.waiting.sequences > 1) return;
  std::int64_t fewest = std::numeric_limits<std::int64_t>::max();
  if (num_waiting_ == 0) fewest = std::max(floor_, At(last_).charged);
  for (const Tenant& other : tenants_) {
    if (&other != &tenant && other.waiting.sequences > 0) fewest = std::min(fewest, other.charged);
  }
  Lift(id, fewest);
  ++num_waiting_;
}

void FairShare::Lift(TenantId id, std::int64_t tokens) {
  At(id).charged = std::max(At(id).charged, tokens);
}

void FairShare::EndWait(TenantId id, std::int64_t prompt_tokens) {
  Tenant& tenant = At(id);
  MILLRACE_CHECK(tenant.waiting.sequences > 0, "a wait ends once");
  tenant.waiting.Add({1, prompt_tokens}, -1);
  if (tenant.waiting.sequences > 0) return;
  --num_waiting_;
  last_ = id;
}

}  // namespace millrace

#include "tests/sim/order_oracle.h"

#include <algorithm>
#include <chrono>
#include <optional>

namespace millrace::sim {
namespace {

using std::chrono::seconds;

constexpr Duration kStep = seconds(5);
constexpr Duration kMayBePassed = seconds(30);

Duration Patience(const Request& request) { return seconds(60) - request.priority * kStep; }

TimePoint Deadline(const Request& request) {
  return std::min(request.deadline, request.arrival + Patience(request));
}

}  // namespace

void TenantOracle::BeginWait(const std::string& tenant) {
  Tenant& own = tenants_[tenant];
  if (own.waiting++ > 0) return;
  std::optional<std::int64_t> fewest;
  for (const auto& [name, other] : tenants_) {
    if (name == tenant || other.waiting == 0) continue;
    fewest = fewest ? std::min(*fewest, other.tokens) : other.tokens;
  }
  own.tokens = std::max(own.tokens, fewest.value_or(tenants_[last_].tokens));
}

void TenantOracle::EndWait(const std::string& tenant) {
  if (--tenants_[tenant].waiting == 0) last_ = tenant;
}

const char* WrongOrder(const Client& first, const Client& other, TimePoint now) {
  const Request& a = first.request();
  const Request& b = other.request();
  const bool same_tenant = a.tenant == b.tenant;
  const bool may_pass = !same_tenant && now - b.arrival < kMayBePassed;
  if (a.priority < b.priority && now - a.arrival < kStep && !may_pass) {
    return "a lower class goes first by age alone";
  }
  if (!same_tenant) return "";
  if (b.arrival + Patience(b) <= a.arrival) {
    return "nobody is overtaken by who comes a patience after it";
  }
  const bool before = other.caller->arrival < first.caller->arrival;
  if (before && a.priority <= b.priority && Deadline(b) <= Deadline(a)) {
    return "nobody overtakes who came before";
  }
  return "";
}

}  // namespace millrace::sim

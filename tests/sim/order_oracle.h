// Who may be admitted before whom, told again from what was promised (scheduler/wait_queue.h) and
// not from how it is done. A value; not thread-safe.
#ifndef MILLRACE_TESTS_SIM_ORDER_ORACLE_H_
#define MILLRACE_TESTS_SIM_ORDER_ORACLE_H_

#include <cstdint>
#include <map>
#include <string>

#include "base/clock.h"
#include "tests/sim/client.h"

namespace millrace::sim {

// The tokens that count for tenants, while every request waits for its turn alone: never for memory
// and in one class.
class TenantOracle {
 public:
  void BeginWait(const std::string& tenant);
  void EndWait(const std::string& tenant);
  void Charge(const std::string& tenant, std::int64_t tokens) { tenants_[tenant].tokens += tokens; }
  std::int64_t tokens(const std::string& tenant) { return tenants_[tenant].tokens; }
  std::int32_t waiting(const std::string& tenant) { return tenants_[tenant].waiting; }

 private:
  struct Tenant {
    std::int32_t waiting = 0;
    std::int64_t tokens = 0;
  };
  std::map<std::string, Tenant> tenants_;
  std::string last_;  // to wait: its count is the level while nobody does
};

// Empty if `first` may be admitted for the first time at `now` while `other`, of any tenant, waits
// for that too; else the promise that this breaks.
const char* WrongOrder(const Client& first, const Client& other, TimePoint now);

}  // namespace millrace::sim

#endif  // MILLRACE_TESTS_SIM_ORDER_ORACLE_H_

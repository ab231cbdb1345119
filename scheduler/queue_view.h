// What waits, by tenant and class: what admission judges by, on the callers' threads. A value; not
// thread-safe.
#ifndef MILLRACE_SCHEDULER_QUEUE_VIEW_H_
#define MILLRACE_SCHEDULER_QUEUE_VIEW_H_

#include <cstdint>
#include <map>
#include <string>

#include "scheduler/request.h"

namespace millrace {

// The name of all tenants beyond those that are told apart; no header can carry it.
inline constexpr char kOtherTenants[] = "\n";

class QueueView {
 public:
  struct Waiting {
    std::int32_t sequences = 0;
    std::int64_t prompt_tokens = 0;

    void Add(const Waiting& more, int sign = 1) {
      sequences += sign * more.sequences;
      prompt_tokens += sign * more.prompt_tokens;
    }
  };

  // `priority` is the class as aged; kMaxPriority + 1 for what goes before all classes.
  void Add(const std::string& tenant, std::int32_t priority, const Waiting& more);
  // A request with all its sequences.
  void Add(const Request& request);
  void Add(const QueueView& other) { AddAll(other, 1); }
  void Subtract(const QueueView& other) { AddAll(other, -1); }

  const Waiting& total() const { return total_; }
  // Tenants with something here, `tenant` counted in any case.
  std::int32_t NumTenantsWith(const std::string& tenant) const;
  Waiting Of(const std::string& tenant) const;
  // What would go before a request of the tenant and class that came now: higher classes, its
  // tenant's own of the same, and of each other tenant as many as of its own and one.
  Waiting Before(const std::string& tenant, std::int32_t priority) const;

 private:
  using Classes = std::map<std::int32_t, Waiting>;

  void AddAll(const QueueView& other, int sign);
  void Add(const std::string& tenant, std::int32_t priority, const Waiting& more, int sign);
  const Classes* Find(const std::string& tenant) const;

  std::map<std::string, Classes> tenants_;  // none without sequences
  Waiting total_;
};

}  // namespace millrace

#endif  // MILLRACE_SCHEDULER_QUEUE_VIEW_H_

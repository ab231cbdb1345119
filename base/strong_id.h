// Integers that cannot be mixed up: a RequestId is not a BlockId. A value type without a default
// meaning; ordered and hashable so that containers of ids iterate in a reproducible order.
#ifndef MILLRACE_BASE_STRONG_ID_H_
#define MILLRACE_BASE_STRONG_ID_H_

#include <compare>
#include <cstdint>
#include <functional>
#include <utility>

namespace millrace {

template <typename Tag, typename Int>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(Int value) : value_(value) {}

  constexpr Int value() const { return value_; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;

  template <typename H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  Int value_ = 0;
};

// One accepted request, for the life of the process. The engine's name for it: the caller's
// request_id string stays in the service.
using RequestId = StrongId<struct RequestIdTag, std::uint64_t>;
// One launched forward step. Tickets count up from 1.
using StepTicket = StrongId<struct StepTicketTag, std::uint64_t>;

}  // namespace millrace

template <typename Tag, typename Int>
struct std::hash<millrace::StrongId<Tag, Int>> {
  std::size_t operator()(millrace::StrongId<Tag, Int> id) const noexcept {
    return std::hash<Int>()(id.value());
  }
};

#endif  // MILLRACE_BASE_STRONG_ID_H_

#include "runtime/backend/cpu/moe_plan.h"

#include <algorithm>
#include <utility>

namespace millrace::cpu {

void MoePlan::Reserve(std::int32_t max_rows, std::int32_t num_experts) {
  groups.reserve(static_cast<std::size_t>(num_experts));
  tokens.reserve(static_cast<std::size_t>(max_rows));
  slots.reserve(static_cast<std::size_t>(max_rows));
  next_.reserve(static_cast<std::size_t>(num_experts));
}

void MoePlan::Build(std::span<const std::int32_t> chosen, std::int32_t experts_per_token,
                    std::int32_t num_experts) {
  next_.assign(static_cast<std::size_t>(num_experts), 0);
  for (const std::int32_t expert : chosen) ++next_[static_cast<std::size_t>(expert)];
  groups.clear();
  std::int32_t begin = 0;
  for (std::int32_t e = 0; e < num_experts; ++e) {
    const std::int32_t count = std::exchange(next_[static_cast<std::size_t>(e)], begin);
    if (count > 0) groups.push_back({e, begin, count});
    begin += count;
  }
  tokens.resize(chosen.size());
  slots.resize(chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const auto at = static_cast<std::size_t>(next_[static_cast<std::size_t>(chosen[i])]++);
    tokens[at] = static_cast<std::int32_t>(i) / experts_per_token;
    slots[at] = static_cast<std::int32_t>(i);
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group& a, const Group& b) { return a.count > b.count; });
}

}  // namespace millrace::cpu

// Which rows each expert computes in a step: the (token, rank) pairs grouped by expert, so that a
// weight is read once for all its rows. A value; built by one thread, read by all workers.
#ifndef MILLRACE_RUNTIME_BACKEND_CPU_MOE_PLAN_H_
#define MILLRACE_RUNTIME_BACKEND_CPU_MOE_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

namespace millrace::cpu {

struct MoePlan {
  struct Group {
    std::int32_t expert;
    std::int32_t begin;  // rows [begin, begin + count) of the arrays below
    std::int32_t count;
  };
  std::vector<Group> groups;         // experts with rows, most rows first, ties by expert
  std::vector<std::int32_t> tokens;  // [T * K] the token of each row
  std::vector<std::int32_t> slots;   // [T * K] token * K + rank of each row

  void Reserve(std::int32_t max_rows, std::int32_t num_experts);
  // `chosen` is [T][K], the expert of each rank. Counting sort: rows of an expert stay in token
  // order.
  void Build(std::span<const std::int32_t> chosen, std::int32_t experts_per_token,
             std::int32_t num_experts);

 private:
  std::vector<std::int32_t> next_;  // [E] scratch
};

}  // namespace millrace::cpu

#endif  // MILLRACE_RUNTIME_BACKEND_CPU_MOE_PLAN_H_

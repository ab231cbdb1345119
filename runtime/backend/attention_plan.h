// How the attention of a step is cut into units of work: which queries share the keys and values of
// which partition of positions. The same for all layers, so it is built once a step.
//
// Queries of one sequence that follow each other share what they see. So do queries of several
// sequences whose blocks of a partition are the same (a common prefix), where the partition lies
// wholly in the past of all of them. Sharing changes no bit: a query's partial of a partition
// depends on the query, the cache and the position alone (kernels/cpu/attention.h).
//
// The same code for every device. A value; built by one thread, read by all workers.
#ifndef MILLRACE_RUNTIME_BACKEND_ATTENTION_PLAN_H_
#define MILLRACE_RUNTIME_BACKEND_ATTENTION_PLAN_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "runtime/backend/backend.h"

namespace millrace {

class AttentionPlan {
 public:
  // Queries of a unit at most, unless a device asks for others (CUDA does not).
  static constexpr std::int32_t kMaxQueries = 16;

  struct Unit {
    std::int32_t partition;
    std::int32_t sequence;  // one of those whose block table leads to the partition
    std::int32_t begin;     // queries [begin, begin + count) of queries()
    std::int32_t count;     // 1 ... max_queries
  };
  // Units of the same queries, partition 0 and all that follow it.
  struct Run {
    std::int32_t units_begin, units_end;
  };
  // Tokens whose partials fit into memory together.
  struct Wave {
    std::int32_t tokens_begin, tokens_end;
    std::int32_t units_begin, units_end;
    std::int32_t partitions;            // of the token that sees most
    std::int32_t runs_begin, runs_end;  // all units, or none where sequences share some
    std::int64_t work;                  // queries of all units
    std::int64_t longest_run;           // queries of the units of the run that has most
  };

  // Units have up to `max_queries` queries: as many as the device's kernel serves with keys and
  // values that it reads once.
  explicit AttentionPlan(std::int32_t max_queries = kMaxQueries) : max_queries_(max_queries) {}

  // Makes room for what steps need; the few that share much or are cut much grow it once.
  void Reserve(const BackendLimits& limits);

  // `max_partials` is the number of (token, partition) pairs of one wave at most; at least one
  // token's always go. REQUIRES: the input is valid.
  void Build(const StepInput& input, std::int32_t block_size, std::int64_t max_partials);

  std::span<const Wave> waves() const { return waves_; }
  std::span<const Unit> units() const { return units_; }
  std::span<const Run> runs() const { return runs_; }
  // Tokens of the step; within a unit the positions that they see of it do not descend.
  std::span<const std::int32_t> queries() const { return queries_; }
  // The sequence of a token.
  std::int32_t sequence_of(std::int64_t token) const {
    return sequence_of_[static_cast<std::size_t>(token)];
  }
  // [T] units that compute a partial of each token.
  std::span<const std::int32_t> units_of_token() const { return units_of_token_; }

 private:
  // Up to max_queries tokens of one sequence that follow each other.
  struct Tile {
    std::int32_t first, count;
    std::int32_t sequence;
    std::int32_t past;    // partitions that all its queries see wholly
    std::int32_t seen;    // partitions that its last query sees
    std::int32_t shared;  // partitions [0, shared) are in units with other tiles
  };

  void FindSharers();
  void BuildWave(std::int32_t begin, std::int32_t end);
  // Units of what a tile does not share.
  void AddTile(const Tile& tile);
  void MeasureWave(Wave* wave) const;
  void CutTiles(std::int32_t begin, std::int32_t end);
  // Units of tiles that share partitions, from the first partition on.
  void ShareTiles();
  // Splits group_[begin, end) into runs of tiles with the same blocks of `partition`, makes units
  // of them, and leaves those that go on sharing in `next`.
  void ShareGroup(std::int32_t partition, std::span<std::int32_t> group,
                  std::vector<std::pair<std::int32_t, std::int32_t>>* next);
  void ShareRun(std::int32_t partition, std::span<const std::int32_t> tiles);
  void AddUnit(std::int32_t partition, std::int32_t sequence, std::int32_t begin,
               std::int32_t count);
  std::span<const std::int32_t> Blocks(std::int32_t tile, std::int32_t partition) const;

  std::int32_t max_queries_;
  const StepInput* input_ = nullptr;  // during Build
  std::int32_t block_size_ = 0;
  std::vector<Wave> waves_;
  std::vector<Unit> units_;
  std::vector<Run> runs_;
  std::vector<std::int32_t> queries_;
  std::vector<std::int32_t> units_of_token_;
  std::vector<std::int32_t> sequence_of_;  // [T]
  // Scratch of Build.
  std::vector<bool> sharer_;  // [S] whether another sequence begins with the same block
  std::vector<std::int32_t> by_first_block_;
  std::vector<Tile> tiles_;
  std::vector<std::int32_t> group_;  // tiles that share, those of one group together
  std::vector<std::pair<std::int32_t, std::int32_t>> groups_, next_groups_;  // ranges of group_
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_ATTENTION_PLAN_H_

#include "runtime/backend/attention_plan.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "base/math.h"
#include "kernels/paged_kv.h"

namespace millrace {
namespace {

template <typename T>
T& At(std::vector<T>& v, std::int32_t i) {
  return v[static_cast<std::size_t>(i)];
}
template <typename T>
const T& At(const std::vector<T>& v, std::int32_t i) {
  return v[static_cast<std::size_t>(i)];
}
std::int32_t At(std::span<const std::int32_t> v, std::int32_t i) {
  return v[static_cast<std::size_t>(i)];
}

// Enough for 64 sequences of some 250 000 positions; a megabyte.
constexpr std::size_t kReserved = std::size_t{1} << 16;

// Partitions that a query at `position` sees.
std::int32_t Seen(std::int32_t position) {
  return static_cast<std::int32_t>(NumPartitions(std::int64_t{position} + 1));
}

}  // namespace

void AttentionPlan::Reserve(const BackendLimits& limits) {
  const auto tokens = static_cast<std::size_t>(limits.max_tokens);
  const auto sequences = static_cast<std::size_t>(limits.max_seqs);
  const auto partitions = static_cast<std::size_t>(NumPartitions(limits.max_context));
  const std::size_t tiles = tokens / static_cast<std::size_t>(max_queries_) + 2 * sequences;
  waves_.reserve(16);
  units_.reserve(std::min(tiles * partitions, kReserved));
  runs_.reserve(tiles);
  queries_.reserve(std::min(tokens + sequences * partitions, kReserved));
  units_of_token_.reserve(tokens);
  sequence_of_.reserve(tokens);
  sharer_.reserve(sequences);
  by_first_block_.reserve(sequences);
  tiles_.reserve(tiles);
  group_.reserve(tiles);
  groups_.reserve(sequences);
  next_groups_.reserve(sequences);
}

void AttentionPlan::Build(const StepInput& input, std::int32_t block_size,
                          std::int64_t max_partials) {
  input_ = &input;
  block_size_ = block_size;
  waves_.clear();
  units_.clear();
  runs_.clear();
  queries_.clear();
  const auto tokens = static_cast<std::int32_t>(input.positions.size());
  units_of_token_.assign(input.positions.size(), 0);
  sequence_of_.resize(input.positions.size());
  for (std::int32_t s = 0; s < static_cast<std::int32_t>(input.context_len.size()); ++s) {
    std::fill(sequence_of_.begin() + At(input.query_start, s),
              sequence_of_.begin() + At(input.query_start, s + 1), s);
  }
  FindSharers();
  for (std::int32_t begin = 0; begin < tokens;) {
    std::int64_t partitions = 0;
    std::int32_t end = begin;
    for (; end < tokens; ++end) {
      const std::int64_t more = std::max<std::int64_t>(partitions, Seen(At(input.positions, end)));
      if (end > begin && (end + 1 - begin) * more > max_partials) break;
      partitions = more;
    }
    const auto units_begin = static_cast<std::int32_t>(units_.size());
    const auto runs_begin = static_cast<std::int32_t>(runs_.size());
    BuildWave(begin, end);
    waves_.push_back({.tokens_begin = begin,
                      .tokens_end = end,
                      .units_begin = units_begin,
                      .units_end = static_cast<std::int32_t>(units_.size()),
                      .partitions = static_cast<std::int32_t>(partitions),
                      .runs_begin = runs_begin,
                      .runs_end = static_cast<std::int32_t>(runs_.size()),
                      .work = 0,
                      .longest_run = 0});
    MeasureWave(&waves_.back());
    begin = end;
  }
  input_ = nullptr;
}

// A common prefix begins with a common block, so most steps are found to share nothing at once.
void AttentionPlan::FindSharers() {
  const auto first_block = [this](std::int32_t s) {
    return At(input_->block_table, At(input_->block_table_start, s));
  };
  const std::size_t sequences = input_->context_len.size();
  sharer_.assign(sequences, false);
  by_first_block_.resize(sequences);
  std::iota(by_first_block_.begin(), by_first_block_.end(), 0);
  std::sort(by_first_block_.begin(), by_first_block_.end(),
            [&](std::int32_t a, std::int32_t b) { return first_block(a) < first_block(b); });
  for (std::size_t i = 1; i < sequences; ++i) {
    const std::int32_t a = by_first_block_[i - 1];
    const std::int32_t b = by_first_block_[i];
    if (first_block(a) != first_block(b)) continue;
    sharer_[static_cast<std::size_t>(a)] = true;
    sharer_[static_cast<std::size_t>(b)] = true;
  }
}

void AttentionPlan::BuildWave(std::int32_t begin, std::int32_t end) {
  CutTiles(begin, end);
  ShareTiles();
  const bool alone =
      std::all_of(tiles_.begin(), tiles_.end(), [](const Tile& tile) { return tile.shared == 0; });
  for (const Tile& tile : tiles_) {
    const auto units_begin = static_cast<std::int32_t>(units_.size());
    AddTile(tile);
    if (alone) runs_.push_back({units_begin, static_cast<std::int32_t>(units_.size())});
  }
}

void AttentionPlan::AddTile(const Tile& tile) {
  const auto at = static_cast<std::int32_t>(queries_.size());
  for (std::int32_t i = 0; i < tile.count; ++i) queries_.push_back(tile.first + i);
  for (std::int32_t partition = tile.shared; partition < tile.seen; ++partition) {
    AddUnit(partition, tile.sequence, at, tile.count);
  }
}

void AttentionPlan::MeasureWave(Wave* wave) const {
  const auto work = [this](std::int32_t begin, std::int32_t end) {
    std::int64_t queries = 0;
    for (std::int32_t u = begin; u < end; ++u) queries += At(units_, u).count;
    return queries;
  };
  wave->work = work(wave->units_begin, wave->units_end);
  for (std::int32_t r = wave->runs_begin; r < wave->runs_end; ++r) {
    const Run& run = At(runs_, r);
    wave->longest_run = std::max(wave->longest_run, work(run.units_begin, run.units_end));
  }
}

void AttentionPlan::CutTiles(std::int32_t begin, std::int32_t end) {
  tiles_.clear();
  for (std::int32_t t = begin; t < end;) {
    const std::int32_t s = At(sequence_of_, t);
    const std::int32_t stop = std::min(end, At(input_->query_start, s + 1));
    const std::int32_t count = std::min(max_queries_, stop - t);
    const std::int32_t last = At(input_->positions, t + count - 1);
    tiles_.push_back({.first = t,
                      .count = count,
                      .sequence = s,
                      .past = (At(input_->positions, t) + 1) / kKvPartition,
                      .seen = Seen(last),
                      .shared = 0});
    t += count;
  }
}

void AttentionPlan::ShareTiles() {
  group_.clear();
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(tiles_.size()); ++i) {
    const Tile& tile = At(tiles_, i);
    // A full tile has nothing to gain.
    if (tile.count < max_queries_ && tile.past > 0 &&
        sharer_[static_cast<std::size_t>(tile.sequence)]) {
      group_.push_back(i);
    }
  }
  groups_.clear();
  if (group_.size() > 1) groups_.emplace_back(0, static_cast<std::int32_t>(group_.size()));
  // Tiles whose blocks differ in one partition are not compared again: a common prefix has ended.
  for (std::int32_t partition = 0; !groups_.empty(); ++partition) {
    next_groups_.clear();
    for (const auto& [begin, end] : groups_) {
      ShareGroup(partition,
                 std::span(group_).subspan(static_cast<std::size_t>(begin),
                                           static_cast<std::size_t>(end - begin)),
                 &next_groups_);
    }
    groups_.swap(next_groups_);
  }
}

void AttentionPlan::ShareGroup(std::int32_t partition, std::span<std::int32_t> group,
                               std::vector<std::pair<std::int32_t, std::int32_t>>* next) {
  const auto in_past = [&](std::int32_t tile) { return partition < At(tiles_, tile).past; };
  const auto end = std::partition(group.begin(), group.end(), in_past);
  const auto less = [&](std::int32_t a, std::int32_t b) {
    const auto x = Blocks(a, partition);
    const auto y = Blocks(b, partition);
    return std::lexicographical_compare(x.begin(), x.end(), y.begin(), y.end());
  };
  std::sort(group.begin(), end, [&](std::int32_t a, std::int32_t b) {
    if (less(a, b)) return true;
    return !less(b, a) && a < b;
  });
  for (auto run = group.begin(); run != end;) {
    auto stop = run + 1;
    while (stop != end && !less(*run, *stop)) ++stop;
    if (stop - run > 1) {
      ShareRun(partition, {run, stop});
      const auto at = static_cast<std::int32_t>(&*run - group_.data());
      next->emplace_back(at, at + static_cast<std::int32_t>(stop - run));
    }
    run = stop;
  }
}

void AttentionPlan::ShareRun(std::int32_t partition, std::span<const std::int32_t> tiles) {
  for (std::size_t i = 0; i < tiles.size();) {
    const auto begin = static_cast<std::int32_t>(queries_.size());
    const std::int32_t sequence = At(tiles_, tiles[i]).sequence;
    std::int32_t count = 0;
    for (; i < tiles.size() && count + At(tiles_, tiles[i]).count <= max_queries_; ++i) {
      Tile& tile = At(tiles_, tiles[i]);
      for (std::int32_t q = 0; q < tile.count; ++q) queries_.push_back(tile.first + q);
      count += tile.count;
      tile.shared = partition + 1;
    }
    AddUnit(partition, sequence, begin, count);
  }
}

void AttentionPlan::AddUnit(std::int32_t partition, std::int32_t sequence, std::int32_t begin,
                            std::int32_t count) {
  units_.push_back({partition, sequence, begin, count});
  for (std::int32_t i = begin; i < begin + count; ++i) ++At(units_of_token_, At(queries_, i));
}

std::span<const std::int32_t> AttentionPlan::Blocks(std::int32_t tile,
                                                    std::int32_t partition) const {
  const std::int64_t table = At(input_->block_table_start, At(tiles_, tile).sequence);
  const std::int64_t first = std::int64_t{partition} * kKvPartition / block_size_;
  const std::int64_t end = CeilDivide(std::int64_t{partition + 1} * kKvPartition, block_size_);
  return input_->block_table.subspan(static_cast<std::size_t>(table + first),
                                     static_cast<std::size_t>(end - first));
}

}  // namespace millrace

#include "runtime/backend/cuda/step_tables.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/math.h"
#include "base/status.h"
#include "runtime/backend/carver.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace millrace::cuda {
namespace {

// Room for the lists of rows to sample that is there from the beginning: some hundred seen tokens
// and biases for each row.
constexpr std::int64_t kListBytesPerRow = 16 * 1024;

template <typename T>
absl::Status CopyPart(T* to, const T* from, std::size_t count, cudaStream_t stream) {
  if (count == 0) return absl::OkStatus();
  return ToStatus(cudaMemcpyAsync(to, from, count * sizeof(T), cudaMemcpyHostToDevice, stream),
                  "copying a step's tables");
}

template <typename T>
void Put(std::span<const T> from, T* to) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size_bytes());
}

}  // namespace

StepTables::Sizes StepTables::SizesFor(const BackendLimits& limits, std::int64_t max_partials) {
  const std::int64_t partitions = NumPartitions(limits.max_context);
  const std::int64_t tokens = limits.max_tokens;
  const std::int64_t sequences = std::min<std::int64_t>(limits.max_seqs, tokens);
  Sizes sizes = {};
  sizes.tokens = tokens;
  sizes.sequences = limits.max_seqs;
  sizes.logits = limits.max_logit_rows;
  sizes.blocks =
      std::int64_t{limits.max_seqs} * CeilDivide(limits.max_context, limits.kv.block_size);
  // A wave ends where one more token would exceed max_partials.
  sizes.waves = tokens / std::max<std::int64_t>(1, max_partials / partitions - 1) + 1;
  // Tiles that are not full end with their sequence or with a wave; a tile has at most one unit for
  // each partition. Queries are listed once a tile, and once more for each partition that is
  // shared.
  const std::int64_t tiles =
      std::min(tokens, tokens / AttentionPlan::kMaxQueries + sequences + sizes.waves);
  sizes.units = tiles * partitions;
  sizes.queries = tokens + std::min(tokens, sequences * AttentionPlan::kMaxQueries) * partitions;
  return sizes;
}

TablePointers StepTables::Carve(const Sizes& sizes, std::byte* base, std::int64_t* fixed_bytes,
                                std::int64_t* all_bytes) {
  Carver carver(base, kPieceAlignment);
  TablePointers p;
  p.num_tokens = carver.Take<std::int32_t>(1);
  p.num_logits = carver.Take<std::int32_t>(1);
  p.token_ids = carver.Take<std::int32_t>(sizes.tokens);
  p.positions = carver.Take<std::int32_t>(sizes.tokens);
  p.kv_slots = carver.Take<std::int32_t>(sizes.tokens);
  p.partial_start = carver.Take<std::int32_t>(sizes.tokens);
  p.logit_rows = carver.Take<std::int32_t>(sizes.logits);
  p.num_taken = carver.Take<std::int32_t>(1);
  p.taken = carver.Take<TakenToken>(sizes.tokens);
  p.block_table_start = carver.Take<std::int32_t>(sizes.sequences + 1);
  p.wave_units = carver.Take<std::int32_t>(sizes.waves);
  p.wave_tokens_end = carver.Take<std::int32_t>(sizes.waves);
  *fixed_bytes = carver.used();
  p.block_table = carver.Take<std::int32_t>(sizes.blocks);
  p.units = carver.Take<AttentionUnit>(sizes.units);
  p.queries = carver.Take<std::int32_t>(sizes.queries);
  *all_bytes = carver.used();
  return p;
}

std::int64_t StepTables::Bytes(const BackendLimits& limits, std::int64_t max_partials) {
  std::int64_t fixed = 0;
  std::int64_t all = 0;
  Carve(SizesFor(limits, max_partials), nullptr, &fixed, &all);
  const auto layout = SampleBufferLayoutOf(limits.max_logit_rows);
  return all + static_cast<std::int64_t>(layout.lists) + kListBytesPerRow * limits.max_logit_rows;
}

absl::StatusOr<StepTables> StepTables::Allocate(const ProgramDims& dims,
                                                const BackendLimits& limits,
                                                std::int64_t max_partials) {
  StepTables tables;
  tables.dims_ = dims;
  tables.limits_ = limits;
  const Sizes sizes = SizesFor(limits, max_partials);
  std::int64_t bytes = 0;
  Carve(sizes, nullptr, &tables.fixed_bytes_, &bytes);
  MILLRACE_ASSIGN_OR_RETURN(tables.device_memory_, DeviceMemory::Allocate(bytes, "step tables"));
  tables.device_ = Carve(sizes, tables.device_memory_.data(), &tables.fixed_bytes_, &bytes);
  for (int slot = 0; slot < kSlots; ++slot) {
    MILLRACE_ASSIGN_OR_RETURN(PinnedMemory pinned,
                              PinnedMemory::Allocate(bytes, "step tables on the host"));
    tables.host_.push_back(Carve(sizes, pinned.data(), &tables.fixed_bytes_, &bytes));
    tables.pinned_.push_back(std::move(pinned));
  }
  tables.pinned_samples_.resize(kSlots);
  const auto layout = SampleBufferLayoutOf(limits.max_logit_rows);
  MILLRACE_RETURN_IF_ERROR(
      tables.ReserveSamples(static_cast<std::int64_t>(layout.lists) +
                                kListBytesPerRow * std::max(1, limits.max_logit_rows),
                            nullptr));
  return tables;
}

// Twice as much as asked for after the first time, so that it does not come again soon.
absl::Status StepTables::ReserveSamples(std::int64_t bytes, cudaStream_t stream) {
  if (bytes <= device_samples_.bytes()) return absl::OkStatus();
  const bool first = device_samples_.bytes() == 0;
  if (!first) {
    bytes *= 2;
    // Steps in flight read what is replaced.
    MILLRACE_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream), "waiting for a step"));
  }
  // All or nothing: the old memory serves on where there is no new.
  MILLRACE_ASSIGN_OR_RETURN(DeviceMemory device, DeviceMemory::Allocate(bytes, "rows to sample"));
  std::vector<PinnedMemory> pinned(kSlots);
  for (PinnedMemory& memory : pinned) {
    MILLRACE_ASSIGN_OR_RETURN(memory, PinnedMemory::Allocate(bytes, "rows to sample on the host"));
  }
  device_samples_ = std::move(device);
  pinned_samples_ = std::move(pinned);
  device_.samples = device_samples_.data();
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    host_[slot].samples = pinned_samples_[slot].data();
  }
  moved_ = !first;
  return absl::OkStatus();
}

void StepTables::Fill(const StepInput& input, const AttentionPlan& plan,
                      const TablePointers& to) const {
  const auto tokens = static_cast<std::int32_t>(input.token_ids.size());
  *to.num_tokens = tokens;
  *to.num_logits = static_cast<std::int32_t>(input.logit_rows.size());
  Put(input.token_ids, to.token_ids);
  Put(input.positions, to.positions);
  Put(input.logit_rows, to.logit_rows);
  Put(input.block_table_start, to.block_table_start);
  Put(input.block_table, to.block_table);
  Put(plan.queries(), to.queries);
  *to.num_taken = static_cast<std::int32_t>(input.deferred.size());
  for (std::size_t i = 0; i < input.deferred.size(); ++i) {
    to.taken[i] = {input.deferred[i].token_index, input.deferred[i].row};
  }
  const std::int32_t block_size = limits_.kv.block_size;
  for (std::int32_t t = 0; t < tokens; ++t) {
    const auto first = static_cast<std::size_t>(plan.sequence_of(t));
    const std::int32_t entry = input.block_table_start[first] + to.positions[t] / block_size;
    to.kv_slots[t] = input.block_table[static_cast<std::size_t>(entry)] * block_size +
                     to.positions[t] % block_size;
  }
  for (std::size_t i = 0; i < plan.units().size(); ++i) {
    const AttentionPlan::Unit& unit = plan.units()[i];
    to.units[i] = {unit.partition, unit.sequence, unit.begin, unit.count};
  }
  for (std::size_t w = 0; w < plan.waves().size(); ++w) {
    const AttentionPlan::Wave& wave = plan.waves()[w];
    to.wave_units[w] = wave.units_end - wave.units_begin;
    to.wave_tokens_end[w] = wave.tokens_end;
    for (std::int32_t t = wave.tokens_begin; t < wave.tokens_end; ++t) {
      to.partial_start[t] = (t - wave.tokens_begin) * wave.partitions;
    }
  }
}

absl::Status StepTables::Write(int slot, const StepInput& input, const AttentionPlan& plan,
                               cudaStream_t stream) {
  moved_ = false;
  const std::size_t samples = PackedSampleBytes(input.samples, limits_.max_logit_rows);
  MILLRACE_RETURN_IF_ERROR(ReserveSamples(static_cast<std::int64_t>(samples), stream));
  const TablePointers& host = host_[static_cast<std::size_t>(slot)];
  Fill(input, plan, host);
  sample_shape_ = {};
  if (!input.samples.empty()) {
    sample_shape_ =
        PackSampleRows(input.samples, dims_.vocab, limits_.max_logit_rows, {host.samples, samples});
  }
  MILLRACE_RETURN_IF_ERROR(CopyPart(device_memory_.data(),
                                    pinned_[static_cast<std::size_t>(slot)].data(),
                                    static_cast<std::size_t>(fixed_bytes_), stream));
  MILLRACE_RETURN_IF_ERROR(
      CopyPart(device_.block_table, host.block_table, input.block_table.size(), stream));
  MILLRACE_RETURN_IF_ERROR(CopyPart(device_.units, host.units, plan.units().size(), stream));
  MILLRACE_RETURN_IF_ERROR(CopyPart(device_.queries, host.queries, plan.queries().size(), stream));
  if (input.samples.empty()) return absl::OkStatus();
  return CopyPart(device_.samples, host.samples, samples, stream);
}

}  // namespace millrace::cuda

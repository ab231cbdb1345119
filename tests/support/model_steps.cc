#include "tests/support/model_steps.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "kernels/cpu/isa.h"

namespace millrace::testing {
namespace {

std::int32_t Size(std::size_t n) { return static_cast<std::int32_t>(n); }

ForwardBatch BatchOf(std::span<const Chunk> chunks, std::int32_t block_size) {
  ForwardBatch batch;
  batch.query_start = {0};
  batch.block_table_start = {0};
  for (const Chunk& chunk : chunks) {
    const std::int32_t end = chunk.begin + chunk.count;
    for (std::int32_t p = chunk.begin; p < end; ++p) {
      batch.logit_rows.push_back(batch.num_tokens());
      batch.token_ids.push_back(chunk.tokens[static_cast<std::size_t>(p)]);
      batch.positions.push_back(p);
    }
    const auto used =
        chunk.blocks.first(static_cast<std::size_t>((end + block_size - 1) / block_size));
    batch.block_table.insert(batch.block_table.end(), used.begin(), used.end());
    batch.query_start.push_back(batch.num_tokens());
    batch.context_len.push_back(end);
    batch.block_table_start.push_back(Size(batch.block_table.size()));
  }
  batch.return_logits = true;
  return batch;
}

}  // namespace

LoadOptions SmallOptions(const std::string& path) {
  LoadOptions options;
  options.path = path;
  options.context = 256;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 256;
  options.max_logit_rows = 256;
  options.block_size = 16;
  options.threads = 2;
  return options;
}

LoadedModel MustLoad(const LoadOptions& options) {
  auto model = LoadModel(options);
  EXPECT_TRUE(model.ok()) << options.path << ": " << model.status();
  return model.ok() ? std::move(*model) : LoadedModel{};
}

std::vector<std::string> IsaLevels() {
  std::vector<std::string> levels;
  for (const cpu::Isa isa : cpu::kIsas) {
    if (cpu::Supports(isa)) levels.emplace_back(cpu::IsaName(isa));
  }
  return levels;
}

Logits RunStep(ModelRunner* runner, std::span<const Chunk> chunks) {
  const auto ticket = runner->Launch(BatchOf(chunks, runner->info().block_size));
  EXPECT_TRUE(ticket.ok()) << ticket.status();
  if (!ticket.ok()) return {};
  auto result = runner->Await(*ticket);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? std::move(result->logits) : Logits{};
}

Logits ForwardAlone(ModelRunner* runner, std::span<const std::int32_t> tokens) {
  const Tokens blocks = Iota(runner->info().num_kv_blocks);
  const Chunk all{tokens, 0, Size(tokens.size()), blocks};
  return RunStep(runner, {&all, 1});
}

std::span<const float> Row(const Logits& logits, std::size_t row, std::int32_t vocab) {
  const auto width = static_cast<std::size_t>(vocab);
  return std::span(logits).subspan(row * width, width);
}

std::int32_t Argmax(std::span<const float> row) {
  return Size(static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin()));
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

Tokens Iota(std::int32_t n) {
  Tokens out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

}  // namespace millrace::testing

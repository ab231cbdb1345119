// millrace logits: the raw logits of every position of a sequence, for parity checks.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "runtime/backend/factory.h"
#include "runtime/runner/model_loader.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "logits";
// Positions of one step: logits of a chunk are kept in memory before they are written.
constexpr std::int32_t kChunk = 64;

ForwardBatch ChunkBatch(const std::vector<std::int32_t>& tokens, std::int32_t begin,
                        std::int32_t count, std::int32_t block_size) {
  ForwardBatch batch;
  batch.token_ids.assign(tokens.begin() + begin, tokens.begin() + begin + count);
  batch.positions.resize(static_cast<std::size_t>(count));
  std::iota(batch.positions.begin(), batch.positions.end(), begin);
  batch.query_start = {0, count};
  batch.context_len = {begin + count};
  batch.block_table.resize(static_cast<std::size_t>((begin + count + block_size - 1) / block_size));
  std::iota(batch.block_table.begin(), batch.block_table.end(), 0);
  batch.block_table_start = {0, static_cast<std::int32_t>(batch.block_table.size())};
  batch.logit_rows.resize(static_cast<std::size_t>(count));
  std::iota(batch.logit_rows.begin(), batch.logit_rows.end(), 0);
  batch.return_logits = true;
  return batch;
}

absl::Status WriteLogits(const LoadOptions& options, const std::vector<std::int32_t>& tokens,
                         const std::string& out) {
  MILLRACE_ASSIGN_OR_RETURN(LoadedModel model, LoadModel(options));
  ModelRunner& runner = *model.runner;
  const auto total = static_cast<std::int32_t>(tokens.size());
  if (total > runner.info().max_context) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tokens: ", total, " tokens; the context is ", runner.info().max_context));
  }
  std::ofstream file(out, std::ios::binary | std::ios::trunc);
  for (std::int32_t begin = 0; begin < total; begin += kChunk) {
    const std::int32_t count = std::min(kChunk, total - begin);
    MILLRACE_ASSIGN_OR_RETURN(
        const StepTicket ticket,
        runner.Launch(ChunkBatch(tokens, begin, count, runner.info().block_size)));
    MILLRACE_ASSIGN_OR_RETURN(const ForwardResult result, runner.Await(ticket));
    file.write(reinterpret_cast<const char*>(result.logits.data()),
               static_cast<std::streamsize>(result.logits.size() * sizeof(float)));
  }
  file.close();
  if (!file) return absl::InternalError("--out " + out + ": cannot be written");
  return absl::OkStatus();
}

}  // namespace

int RunLogits(int argc, char** argv) {
  CLI::App app(
      "Writes the raw logits of every position as float32, little-endian, [num_tokens, vocab]",
      kName);
  LoadOptions options;
  std::vector<std::int32_t> tokens;
  std::string out;
  app.add_option("--model", options.path, "The GGUF file")->required();
  app.add_option("--tokens", tokens, "Token ids, separated by commas")->required()->delimiter(',');
  app.add_option("--out", out, "The file to write")->required();
  app.add_option("--threads", options.threads,
                 "Worker threads, at most and (0) by default the physical cores the cgroup allows");
  app.add_option("--cpu-isa", options.cpu_isa, kCpuIsaChoices);
  app.add_option("--weight-cache", options.weight_cache, kWeightCacheHelp);
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = kChunk;
  options.max_logit_rows = kChunk;
  const absl::Status status = WriteLogits(options, tokens, out);
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace millrace::cli

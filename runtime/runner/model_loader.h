// From a model file to something that runs: opens and checks the file, picks the backend, decides
// the memory plan, loads the weights, emits and prepares the Program. Every entry point (service
// and command line) loads through here, so dense or MoE is decided once, in one place.
#ifndef MILLRACE_RUNTIME_RUNNER_MODEL_LOADER_H_
#define MILLRACE_RUNTIME_RUNNER_MODEL_LOADER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/paged_kv.h"
#include "runtime/gguf/gguf_file.h"
#include "runtime/step/model_runner.h"
#include "runtime/tokenizer/tokenizer.h"

namespace millrace {

// What --kv-dtype takes.
inline constexpr char kKvDTypeChoices[] = "f16, f32, q8_0 or fp8";
std::optional<KvDType> ParseKvDType(std::string_view name);

struct LoadOptions {
  std::string path;
  std::string device = "auto";     // auto, cpu or cuda:N
  std::string matmul = "exact";    // of kMatmulChoices
  double kv_cache_fraction = 0.9;  // of what weights and scratch leave of a GPU's memory
  std::int64_t context = 0;        // 0: min(the model's, what memory holds)
  KvDType kv_dtype = KvDType::kF16;
  std::int32_t block_size = 32;
  std::int64_t kv_cache_bytes = 0;  // 0: from the context, the sequences and the memory there is
  std::int32_t max_num_seqs = 64;
  std::int32_t max_num_batched_tokens = 512;
  std::int32_t max_logit_rows = 0;  // 0: max_num_seqs; a parity dump asks for every row of a step
  int threads = 0;                  // 0: the physical cores the cgroup allows
  std::string cpu_isa = "auto";     // of kCpuIsaChoices
  std::string weight_cache;         // a folder that keeps laid-out weights; empty: none
  // Called from the loading thread as bytes of weights arrive; may be empty.
  std::function<void(std::uint64_t loaded_bytes, std::uint64_t total_bytes)> progress;
};

// Facts for GetModelInfo, inspect and metrics.
struct ModelFacts {
  std::string name;          // general.name, or the file's stem
  std::string architecture;  // as canonicalised: qwen3moe, qwen3, qwen2, llama
  std::uint32_t vocab_size = 0;
  std::uint32_t context_length = 0;  // served, not trained
  std::uint32_t layers = 0;
  std::uint32_t hidden = 0;
  std::uint32_t experts = 0;
  std::uint32_t experts_per_token = 0;
  std::uint64_t parameters = 0;
  std::uint64_t active_parameters = 0;
  std::uint64_t file_bytes = 0;
  std::string quantisation;  // "Q4_K_M" where the file says so, else the types by bytes
  std::uint64_t kv_bytes_per_token = 0;
  std::string device;  // "cpu (avx512, 2 threads)"
  bool batch_invariant = true;
};

struct LoadedModel {
  std::shared_ptr<const GgufFile> file;
  ModelFacts facts;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string chat_template;  // the file's source; empty if it has none
  std::string bos_text;       // what the template knows as bos_token and eos_token
  std::string eos_text;
  std::unique_ptr<ModelRunner> runner;
  std::string memory_plan;  // the line --ctx auto prints
};

// INVALID_ARGUMENT naming the flag, for what no file and no machine could make right. LoadModel
// checks it too; a command line does before it begins.
absl::Status CheckLoadOptions(const LoadOptions& options);

absl::StatusOr<LoadedModel> LoadModel(const LoadOptions& options);

// What LoadModel would decide, without reading a tensor.
struct ModelInspection {
  std::shared_ptr<const GgufFile> file;
  ModelFacts facts;  // context_length is the trained one where no plan is possible
  std::uint32_t trained_context = 0;
  std::uint64_t kv_bytes_per_token_f16 = 0;
  std::uint64_t kv_bytes_per_token_f32 = 0;
  std::uint64_t kv_bytes_per_token_fp8 = 0;
  std::uint64_t kv_bytes_per_token_q8_0 = 0;  // 0 where the heads do not allow it
  std::uint64_t weight_bytes = 0;             // of the tensors in the file
  std::uint64_t cuda_weight_bytes = 0;        // of them on a GPU, here or elsewhere
  std::uint64_t weight_bytes_per_token = 0;   // read for a step of one sequence
  std::int64_t available_bytes = 0;           // on this machine now
  absl::StatusOr<std::string> memory_plan;    // the line, or why it does not fit
};

absl::StatusOr<ModelInspection> InspectModel(const LoadOptions& options);

// Only the vocabulary of a file: for `tokenize`. Reads no tensor.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(const GgufFile& file);

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_RUNNER_MODEL_LOADER_H_

#include "runtime/runner/model_loader.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/backend/factory.h"
#include "runtime/backend/weight_cache_options.h"
#include "runtime/model/model_config.h"
#include "runtime/model/transformer.h"
#include "runtime/runner/local_model_runner.h"
#include "runtime/runner/memory_plan.h"
#include "runtime/runner/model_digest.h"

namespace millrace {
namespace {

struct FileType {
  std::int64_t number;
  std::string_view name;
};

// general.file_type, as llama.cpp numbers what it writes.
constexpr std::array<FileType, 20> kFileTypes = {
    {{0, "F32"},     {1, "F16"},     {2, "Q4_0"},    {3, "Q4_1"},    {7, "Q8_0"},
     {8, "Q5_0"},    {9, "Q5_1"},    {10, "Q2_K"},   {11, "Q3_K_S"}, {12, "Q3_K_M"},
     {13, "Q3_K_L"}, {14, "Q4_K_S"}, {15, "Q4_K_M"}, {16, "Q5_K_S"}, {17, "Q5_K_M"},
     {18, "Q6_K"},   {21, "Q2_K_S"}, {25, "IQ4_NL"}, {30, "IQ4_XS"}, {32, "BF16"}}};

std::string Quantisation(const GgufFile& file) {
  const auto number = file.GetInt("general.file_type", 0, INT32_MAX);
  if (number.ok()) {
    for (const FileType& type : kFileTypes) {
      if (type.number == *number) return std::string(type.name);
    }
  }
  // The type that holds most of the bytes.
  std::map<DType, std::uint64_t> bytes;
  for (const GgufTensor& tensor : file.tensors()) bytes[tensor.dtype] += tensor.size_bytes;
  DType most = DType::kF32;
  for (const auto& [dtype, size] : bytes) {
    if (size > bytes[most]) most = dtype;
  }
  return std::string(Info(most).name);
}

// An automatic KV cache takes no more of what is left: the machine is not ours alone.
constexpr double kShareOfHostMemory = 0.8;

BackendLimits MakeLimits(const LoadOptions& options, const ModelConfig& config) {
  BackendLimits limits;
  limits.max_tokens = options.max_num_batched_tokens;
  limits.max_seqs = options.max_num_seqs;
  limits.max_logit_rows =
      options.max_logit_rows > 0 ? options.max_logit_rows : options.max_num_seqs;
  limits.kv = {.num_layers = config.layers,
               .num_kv_heads = config.kv_heads,
               .head_dim = config.head_dim,
               .block_size = options.block_size,
               .dtype = options.kv_dtype};
  return limits;
}

// The model that a file's header describes; errors begin with the path.
absl::StatusOr<Transformer> ReadTransformer(const GgufFile& file) {
  auto config = ReadModelConfig(file);
  if (!config.ok()) return WithContext(file.path(), config.status());
  Transformer transformer(*std::move(config));
  MILLRACE_RETURN_IF_ERROR(WithContext(file.path(), transformer.CheckTensors(file)));
  return transformer;
}

bool OnHost(const Backend& backend) { return absl::StartsWith(backend.device(), "cpu"); }

// What the weights will take of the memory that the backend has.
std::int64_t WeightBytesOn(const Backend& backend, const Transformer& model, const GgufFile& file) {
  return static_cast<std::int64_t>(OnHost(backend) ? model.WeightBytes(file)
                                                   : model.CudaWeightBytes(file));
}

// `available_bytes` is the backend's before it takes weights, which take `weight_bytes`.
absl::StatusOr<MemoryPlan> Plan(const LoadOptions& options, const Transformer& model,
                                const Backend& backend, const BackendLimits& limits,
                                std::int64_t available_bytes, std::int64_t weight_bytes) {
  BackendLimits largest = limits;
  largest.max_context = static_cast<std::int32_t>(
      options.context > 0 ? std::min<std::int64_t>(options.context, model.config().context_length)
                          : model.config().context_length);
  Program shape;
  shape.dims = model.Dims();
  MemoryRequest request;
  request.available_bytes = available_bytes;
  request.weight_bytes = weight_bytes;
  request.scratch_bytes = backend.ScratchBytes(shape, largest);
  request.kv_bytes_per_token = limits.kv.bytes_per_token();
  request.block_size = options.block_size;
  request.model_context = model.config().context_length;
  request.context = options.context;
  request.kv_cache_bytes = options.kv_cache_bytes;
  request.max_num_seqs = options.max_num_seqs;
  request.cache_share = OnHost(backend) ? kShareOfHostMemory : options.kv_cache_fraction;
  return PlanMemory(request);
}

ModelFacts MakeFacts(const GgufFile& file, const Transformer& model, const Backend& backend,
                     const BackendLimits& limits) {
  const ModelConfig& config = model.config();
  ModelFacts facts;
  facts.name =
      config.name.empty() ? std::filesystem::path(file.path()).stem().string() : config.name;
  facts.architecture = config.traits.name;
  facts.vocab_size = static_cast<std::uint32_t>(config.vocab);
  facts.context_length = static_cast<std::uint32_t>(limits.max_context);
  facts.layers = static_cast<std::uint32_t>(config.layers);
  facts.hidden = static_cast<std::uint32_t>(config.hidden);
  facts.experts = static_cast<std::uint32_t>(config.experts);
  facts.experts_per_token = static_cast<std::uint32_t>(config.experts_per_token);
  facts.parameters = model.NumParameters(file);
  facts.active_parameters = model.NumActiveParameters(file);
  facts.file_bytes = file.file_bytes();
  facts.quantisation = Quantisation(file);
  facts.kv_bytes_per_token = static_cast<std::uint64_t>(limits.kv.bytes_per_token());
  facts.device = absl::StrCat(backend.device(), " (", backend.isa(), ", ", backend.threads(),
                              backend.threads() == 1 ? " thread)" : " threads)");
  facts.batch_invariant = backend.batch_invariant();
  return facts;
}

std::uint64_t KvBytesPerToken(KvLayout layout, KvDType dtype) {
  layout.dtype = dtype;
  return static_cast<std::uint64_t>(layout.bytes_per_token());
}

// The text of the token that a key of the file names; empty if there is none.
std::string TokenText(const GgufFile& file, std::string_view key) {
  const auto id = file.GetInt(key, 0, INT32_MAX);
  const auto tokens = file.GetStrings("tokenizer.ggml.tokens");
  if (!id.ok() || !tokens.ok() || static_cast<std::size_t>(*id) >= tokens->size()) return "";
  return std::string((*tokens)[static_cast<std::size_t>(*id)]);
}

// Whether heads of this model go into a cache of the type.
absl::Status CheckKvDType(const LoadOptions& options, const ModelConfig& config) {
  const std::int32_t multiple = KvHeadDimMultiple(options.kv_dtype);
  if (config.head_dim % multiple == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--kv-dtype q8_0: the heads of ", options.path,
                                                 " have ", config.head_dim,
                                                 " values; want a multiple of ", multiple));
}

// Where the model's laid-out weights are kept; makes the folder.
absl::StatusOr<WeightCacheOptions> WeightCacheFor(const LoadOptions& options,
                                                  const GgufFile& file) {
  WeightCacheOptions cache;
  if (options.weight_cache.empty()) return cache;
  std::error_code error;
  std::filesystem::create_directories(options.weight_cache, error);
  if (error || !std::filesystem::is_directory(options.weight_cache, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--weight-cache ", options.weight_cache,
                                                   ": want a folder, or a place for one",
                                                   error ? ": " + error.message() : ""));
  }
  cache.directory = options.weight_cache;
  MILLRACE_ASSIGN_OR_RETURN(cache.model, ModelDigest(file));
  return cache;
}

// A model that was written to while it was read is not what its name in the cache says.
absl::Status CheckUnchanged(const WeightCacheOptions& cache, const GgufFile& file) {
  if (cache.directory.empty()) return absl::OkStatus();
  MILLRACE_ASSIGN_OR_RETURN(const std::string now, ModelDigest(file));
  if (now == cache.model) return absl::OkStatus();
  return absl::DataLossError(file.paths().front() + ": the file changed while it was read");
}

}  // namespace

std::optional<KvDType> ParseKvDType(std::string_view name) {
  if (name == "f16") return KvDType::kF16;
  if (name == "f32") return KvDType::kF32;
  if (name == "q8_0") return KvDType::kQ8_0;
  if (name == "fp8") return KvDType::kFp8;
  return std::nullopt;
}

absl::Status CheckLoadOptions(const LoadOptions& options) {
  constexpr std::array<std::int32_t, 3> kBlockSizes = {16, 32, 64};
  if (std::find(kBlockSizes.begin(), kBlockSizes.end(), options.block_size) == kBlockSizes.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--block-size ", options.block_size, ": want 16, 32 or 64"));
  }
  if (options.max_num_seqs < 1 || options.max_num_seqs > 4096) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-num-seqs ", options.max_num_seqs, ": want 1 to 4096"));
  }
  if (options.max_num_batched_tokens < options.max_num_seqs ||
      options.max_num_batched_tokens > 65536) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-num-batched-tokens ", options.max_num_batched_tokens,
                     ": want --max-num-seqs (", options.max_num_seqs, ") to 65536"));
  }
  if (options.context < 0 || options.kv_cache_bytes < 0) {
    return absl::InvalidArgumentError("--ctx and --kv-cache-bytes: want auto or a positive number");
  }
  return CheckMatmul(options.matmul, options.device);
}

absl::StatusOr<ModelInspection> InspectModel(const LoadOptions& options) {
  MILLRACE_RETURN_IF_ERROR(CheckLoadOptions(options));
  MILLRACE_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(options.path));
  MILLRACE_ASSIGN_OR_RETURN(const Transformer transformer, ReadTransformer(*file));
  MILLRACE_RETURN_IF_ERROR(CheckKvDType(options, transformer.config()));
  MILLRACE_ASSIGN_OR_RETURN(
      const std::unique_ptr<Backend> backend,
      MakeBackend(options.device, options.threads, options.cpu_isa, {}, options.matmul));
  BackendLimits limits = MakeLimits(options, transformer.config());
  const absl::StatusOr<MemoryPlan> plan =
      Plan(options, transformer, *backend, limits, backend->AvailableBytes(),
           WeightBytesOn(*backend, transformer, *file));
  limits.max_context = plan.ok() ? plan->context : transformer.config().context_length;
  ModelInspection out;
  out.file = file;
  if (plan.ok()) {
    out.memory_plan = plan->line;
  } else {
    out.memory_plan = plan.status();
  }
  out.facts = MakeFacts(*file, transformer, *backend, limits);
  out.trained_context = static_cast<std::uint32_t>(transformer.config().context_length);
  out.kv_bytes_per_token_f16 = KvBytesPerToken(limits.kv, KvDType::kF16);
  out.kv_bytes_per_token_f32 = KvBytesPerToken(limits.kv, KvDType::kF32);
  out.kv_bytes_per_token_fp8 = KvBytesPerToken(limits.kv, KvDType::kFp8);
  if (transformer.config().head_dim % KvHeadDimMultiple(KvDType::kQ8_0) == 0) {
    out.kv_bytes_per_token_q8_0 = KvBytesPerToken(limits.kv, KvDType::kQ8_0);
  }
  out.weight_bytes = transformer.WeightBytes(*file);
  out.cuda_weight_bytes = transformer.CudaWeightBytes(*file);
  out.weight_bytes_per_token = transformer.WeightBytesPerToken(*file);
  out.available_bytes = backend->AvailableBytes();
  return out;
}

absl::StatusOr<LoadedModel> LoadModel(const LoadOptions& options) {
  MILLRACE_RETURN_IF_ERROR(CheckLoadOptions(options));
  LoadedModel model;
  MILLRACE_ASSIGN_OR_RETURN(model.file, GgufFile::Open(options.path));
  const GgufFile& file = *model.file;
  MILLRACE_ASSIGN_OR_RETURN(const Transformer transformer, ReadTransformer(file));
  MILLRACE_RETURN_IF_ERROR(CheckKvDType(options, transformer.config()));
  MILLRACE_ASSIGN_OR_RETURN(model.tokenizer, LoadTokenizer(file));
  if (model.tokenizer->vocab_size() > static_cast<std::uint32_t>(transformer.config().vocab)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": GGUF: metadata key 'tokenizer.ggml.tokens' has ",
                     model.tokenizer->vocab_size(), " tokens; token_embd.weight has ",
                     transformer.config().vocab, " rows"));
  }
  MILLRACE_ASSIGN_OR_RETURN(const WeightCacheOptions cache, WeightCacheFor(options, file));
  MILLRACE_ASSIGN_OR_RETURN(
      std::unique_ptr<Backend> backend,
      MakeBackend(options.device, options.threads, options.cpu_isa, cache, options.matmul));
  BackendLimits limits = MakeLimits(options, transformer.config());
  const std::uint64_t total = transformer.WeightBytes(file);
  const std::int64_t available = backend->AvailableBytes();
  const std::int64_t planned = WeightBytesOn(*backend, transformer, file);
  // What does not fit is refused before it is read.
  MILLRACE_ASSIGN_OR_RETURN(MemoryPlan plan,
                            Plan(options, transformer, *backend, limits, available, planned));
  MILLRACE_ASSIGN_OR_RETURN(const Program program,
                            transformer.Load(file, backend.get(), [&](std::uint64_t loaded) {
                              if (options.progress) options.progress(loaded, total);
                            }));
  MILLRACE_RETURN_IF_ERROR(CheckUnchanged(cache, file));
  // The CPU's kernels fill up some matrices to whole tiles.
  if (backend->weight_bytes() > planned) {
    MILLRACE_ASSIGN_OR_RETURN(
        plan, Plan(options, transformer, *backend, limits, available, backend->weight_bytes()));
  }
  limits.max_context = plan.context;
  limits.num_kv_blocks = plan.num_kv_blocks;
  model.memory_plan = plan.line;
  MILLRACE_RETURN_IF_ERROR(backend->Prepare(program, limits));
  model.facts = MakeFacts(file, transformer, *backend, limits);
  if (file.Find("tokenizer.chat_template") != nullptr) {
    MILLRACE_ASSIGN_OR_RETURN(const std::string_view source,
                              file.GetString("tokenizer.chat_template"));
    model.chat_template = source;
  }
  model.bos_text = TokenText(file, "tokenizer.ggml.bos_token_id");
  model.eos_text = TokenText(file, "tokenizer.ggml.eos_token_id");
  RunnerInfo info;
  info.vocab = program.dims.vocab;
  info.max_context = limits.max_context;
  info.block_size = limits.kv.block_size;
  info.num_kv_blocks = limits.num_kv_blocks;
  info.max_step_tokens = limits.max_tokens;
  info.max_step_seqs = limits.max_seqs;
  info.max_in_flight = backend->max_in_flight();
  info.moe = program.path == ForwardPath::kMoe;
  model.runner = std::make_unique<LocalModelRunner>(std::move(backend), info);
  return model;
}

}  // namespace millrace

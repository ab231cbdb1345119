#include "runtime/model/transformer.h"

#include <map>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/backend/cuda_weight_bytes.h"
#include "runtime/model/tensor_names.h"

namespace millrace {
namespace {

std::string ShapeText(const std::vector<std::int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::uint64_t NumValues(const GgufTensor& tensor) {
  std::uint64_t n = 1;
  for (const std::int64_t d : tensor.shape) n *= static_cast<std::uint64_t>(d);
  return n;
}

std::uint64_t SumTensors(const GgufFile& file, const std::vector<TensorSpec>& specs,
                         std::uint64_t (*count)(const GgufTensor&)) {
  std::uint64_t sum = 0;
  for (const TensorSpec& spec : specs) {
    const GgufTensor* found = file.FindTensor(spec.name);
    if (found != nullptr) sum += count(*found);
  }
  return sum;
}

// Finds the id of a tensor that was loaded, for the emission of the Program.
class Weights {
 public:
  void Add(const std::string& name, WeightId id) { ids_[name] = id; }

  WeightId Get(std::string_view name) const {
    const auto found = ids_.find(name);
    return found == ids_.end() ? kNoWeight : found->second;
  }
  WeightId Get(std::int32_t layer, std::string_view name) const {
    return Get(tensor::OfLayer(layer, name));
  }

 private:
  std::map<std::string, WeightId, std::less<>> ids_;
};

void EmitAttention(std::int32_t i, const Weights& w, std::vector<Stage>* stages) {
  stages->push_back(NormQkvStage{.layer = i,
                                 .norm = w.Get(i, tensor::kAttentionNorm),
                                 .q = w.Get(i, tensor::kQuery),
                                 .k = w.Get(i, tensor::kKey),
                                 .v = w.Get(i, tensor::kValue),
                                 .q_bias = w.Get(i, tensor::kQueryBias),
                                 .k_bias = w.Get(i, tensor::kKeyBias),
                                 .v_bias = w.Get(i, tensor::kValueBias)});
  stages->push_back(QkNormRopeAppendStage{
      .layer = i, .q_norm = w.Get(i, tensor::kQueryNorm), .k_norm = w.Get(i, tensor::kKeyNorm)});
  stages->push_back(AttentionStage{.layer = i});
  stages->push_back(
      OutputProjectionStage{.layer = i, .output = w.Get(i, tensor::kAttentionOutput)});
}

void EmitExperts(std::int32_t i, const Weights& w, std::vector<Stage>* stages) {
  // Qwen3's norm_topk_prob is true in every published model, and GGUF files do not carry it.
  stages->push_back(NormRouterStage{.layer = i,
                                    .norm = w.Get(i, tensor::kFfnNorm),
                                    .router = w.Get(i, tensor::kRouter),
                                    .normalise = true});
  stages->push_back(ExpertsStage{.layer = i,
                                 .gate = w.Get(i, tensor::kGateExperts),
                                 .up = w.Get(i, tensor::kUpExperts),
                                 .down = w.Get(i, tensor::kDownExperts)});
}

void EmitDense(std::int32_t i, const Weights& w, std::vector<Stage>* stages) {
  stages->push_back(DenseFfnStage{.layer = i,
                                  .norm = w.Get(i, tensor::kFfnNorm),
                                  .gate = w.Get(i, tensor::kGate),
                                  .up = w.Get(i, tensor::kUp),
                                  .down = w.Get(i, tensor::kDown)});
}

Program EmitProgram(const Transformer& model, const Weights& w) {
  Program program;
  program.dims = model.Dims();
  program.path = ForwardPathFor(model.config());
  program.stages.push_back(EmbedStage{.table = w.Get(tensor::kTokenEmbedding)});
  for (std::int32_t i = 0; i < model.config().layers; ++i) {
    EmitAttention(i, w, &program.stages);
    const auto emit = program.path == ForwardPath::kMoe ? EmitExperts : EmitDense;
    emit(i, w, &program.stages);
  }
  const WeightId head = w.Get(tensor::kOutput);
  program.stages.push_back(
      NormHeadStage{.norm = w.Get(tensor::kOutputNorm),
                    .head = head == kNoWeight ? w.Get(tensor::kTokenEmbedding) : head});
  program.stages.push_back(SampleStage{});
  return program;
}

}  // namespace

std::vector<TensorSpec> Transformer::Tensors() const {
  const ModelConfig& c = config_;
  const std::int64_t q = std::int64_t{c.heads} * c.head_dim;
  const std::int64_t kv = std::int64_t{c.kv_heads} * c.head_dim;
  const std::int64_t h = c.hidden;
  const std::int64_t f = c.ffn;
  std::vector<TensorSpec> out;
  out.push_back({std::string(tensor::kTokenEmbedding), {c.vocab, h}});
  for (std::int32_t i = 0; i < c.layers; ++i) {
    const auto add = [&](std::string_view name, std::vector<std::int64_t> shape) {
      out.push_back({tensor::OfLayer(i, name), std::move(shape)});
    };
    add(tensor::kAttentionNorm, {h});
    add(tensor::kQuery, {q, h});
    add(tensor::kKey, {kv, h});
    add(tensor::kValue, {kv, h});
    if (c.traits.qkv_bias) {
      add(tensor::kQueryBias, {q});
      add(tensor::kKeyBias, {kv});
      add(tensor::kValueBias, {kv});
    }
    if (c.traits.qk_norm) {
      add(tensor::kQueryNorm, {c.head_dim});
      add(tensor::kKeyNorm, {c.head_dim});
    }
    add(tensor::kAttentionOutput, {h, q});
    add(tensor::kFfnNorm, {h});
    if (ForwardPathFor(c) == ForwardPath::kMoe) {
      add(tensor::kRouter, {c.experts, h});
      add(tensor::kGateExperts, {c.experts, f, h});
      add(tensor::kUpExperts, {c.experts, f, h});
      add(tensor::kDownExperts, {c.experts, h, f});
    } else {
      add(tensor::kGate, {f, h});
      add(tensor::kUp, {f, h});
      add(tensor::kDown, {h, f});
    }
  }
  out.push_back({std::string(tensor::kOutputNorm), {h}});
  out.push_back({std::string(tensor::kOutput), {c.vocab, h}, /*required=*/false});
  return out;
}

absl::Status Transformer::CheckTensors(const GgufFile& file) const {
  std::unordered_set<std::string> known;
  for (const TensorSpec& spec : Tensors()) {
    known.insert(spec.name);
    const GgufTensor* found = file.FindTensor(spec.name);
    if (found == nullptr) {
      if (!spec.required) continue;
      return absl::InvalidArgumentError(absl::StrCat("GGUF: tensor '", spec.name, "' is missing; ",
                                                     std::string(config_.traits.name),
                                                     " needs it as ", ShapeText(spec.shape)));
    }
    if (found->shape != spec.shape) {
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF: tensor '", spec.name, "' is ", ShapeText(found->shape),
                       "; the metadata calls for ", ShapeText(spec.shape)));
    }
  }
  for (const GgufTensor& found : file.tensors()) {
    if (known.contains(std::string(found.name))) continue;
    if (found.name == tensor::kRopeFrequencies) continue;  // part of the configuration
    return absl::InvalidArgumentError(
        absl::StrCat("GGUF: tensor '", std::string(found.name), "' is not part of ",
                     std::string(config_.traits.name), " with ", config_.layers, " layers"));
  }
  return absl::OkStatus();
}

std::uint64_t Transformer::WeightBytes(const GgufFile& file) const {
  return SumTensors(file, Tensors(), [](const GgufTensor& t) { return t.size_bytes; });
}

std::uint64_t Transformer::CudaWeightBytes(const GgufFile& file) const {
  return SumTensors(file, Tensors(), [](const GgufTensor& t) {
    return static_cast<std::uint64_t>(millrace::CudaWeightBytes(t.dtype, t.shape));
  });
}

std::uint64_t Transformer::NumParameters(const GgufFile& file) const {
  return SumTensors(file, Tensors(), NumValues);
}

std::uint64_t Transformer::Active(const TensorSpec& spec, std::uint64_t whole) const {
  const bool experts = spec.shape.size() == 3;
  if (!experts) return whole;
  return whole / static_cast<std::uint64_t>(config_.experts) *
         static_cast<std::uint64_t>(config_.experts_per_token);
}

std::uint64_t Transformer::NumActiveParameters(const GgufFile& file) const {
  std::uint64_t sum = 0;
  for (const TensorSpec& spec : Tensors()) {
    const GgufTensor* found = file.FindTensor(spec.name);
    if (found != nullptr) sum += Active(spec, NumValues(*found));
  }
  return sum;
}

std::uint64_t Transformer::WeightBytesPerToken(const GgufFile& file) const {
  const bool tied = file.FindTensor(tensor::kOutput) == nullptr;
  std::uint64_t sum = 0;
  for (const TensorSpec& spec : Tensors()) {
    const GgufTensor* found = file.FindTensor(spec.name);
    if (found == nullptr) continue;
    const bool one_row = spec.name == tensor::kTokenEmbedding && !tied;
    sum += one_row ? found->size_bytes / static_cast<std::uint64_t>(found->shape[0])
                   : Active(spec, found->size_bytes);
  }
  return sum;
}

ProgramDims Transformer::Dims() const {
  ProgramDims dims;
  dims.num_layers = config_.layers;
  dims.hidden = config_.hidden;
  dims.num_heads = config_.heads;
  dims.num_kv_heads = config_.kv_heads;
  dims.head_dim = config_.head_dim;
  dims.vocab = config_.vocab;
  dims.num_experts = config_.experts;
  dims.experts_per_token = config_.experts_per_token;
  dims.ffn = config_.ffn;
  dims.norm_eps = config_.norm_eps;
  RopeFrequencies frequencies =
      MakeRopeFrequencies(config_.rotary_dim, config_.rope_base, config_.rope_scaling);
  dims.rope = {config_.traits.pairing, config_.rotary_dim, std::move(frequencies.inverse),
               frequencies.magnitude};
  return dims;
}

absl::StatusOr<Program> Transformer::Load(
    const GgufFile& file, Backend* backend,
    const std::function<void(std::uint64_t)>& progress) const {
  Weights weights;
  std::uint64_t loaded = 0;
  for (const TensorSpec& spec : Tensors()) {
    const GgufTensor* found = file.FindTensor(spec.name);
    if (found == nullptr) {
      MILLRACE_CHECK(!spec.required, "CheckTensors passed");
      continue;
    }
    MILLRACE_ASSIGN_OR_RETURN(
        const WeightId id,
        backend->LoadWeight(spec.name, found->dtype, found->shape, *file.Source(*found)));
    weights.Add(spec.name, id);
    loaded += found->size_bytes;
    if (progress) progress(loaded);
  }
  return EmitProgram(*this, weights);
}

}  // namespace millrace

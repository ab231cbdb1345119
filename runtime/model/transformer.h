// The network of all supported architectures, written once: which tensors a model has, and the
// Program, the order of operations, which reads next to the papers.
//
// Load: every tensor's presence and shape are checked against the configuration before the first
// byte is read.
#ifndef MILLRACE_RUNTIME_MODEL_TRANSFORMER_H_
#define MILLRACE_RUNTIME_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/program.h"
#include "runtime/gguf/gguf_file.h"
#include "runtime/model/model_config.h"

namespace millrace {

// A tensor that the configuration calls for.
struct TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;  // outermost first, as GgufTensor
  bool required = true;
};

class Transformer {
 public:
  explicit Transformer(ModelConfig config) : config_(std::move(config)) {}

  const ModelConfig& config() const { return config_; }

  // Every tensor of this model, in the order of the Program.
  std::vector<TensorSpec> Tensors() const;

  // INVALID_ARGUMENT naming the first tensor that is missing, has another shape, or that the model
  // does not know: a weight that nobody reads means that this is another network.
  absl::Status CheckTensors(const GgufFile& file) const;

  // Bytes of the tensors that Load reads, and the sizes of the network without weights.
  std::uint64_t WeightBytes(const GgufFile& file) const;
  // Bytes of them once the CUDA backend has laid them out. REQUIRES: CheckTensors passed.
  std::uint64_t CudaWeightBytes(const GgufFile& file) const;
  ProgramDims Dims() const;

  // Gives all tensors to the backend and returns the Program over them. `progress` is called with
  // the bytes so far. REQUIRES: CheckTensors passed.
  absl::StatusOr<Program> Load(const GgufFile& file, Backend* backend,
                               const std::function<void(std::uint64_t)>& progress) const;

  // Values of all weights, and of those that one token uses.
  std::uint64_t NumParameters(const GgufFile& file) const;
  std::uint64_t NumActiveParameters(const GgufFile& file) const;
  // Bytes of weights that a step of one sequence reads: every matrix once, of experts the chosen
  // ones, of the embedding one row unless it is the head too.
  std::uint64_t WeightBytesPerToken(const GgufFile& file) const;

 private:
  // The share of `whole` of a tensor that one token uses.
  std::uint64_t Active(const TensorSpec& spec, std::uint64_t whole) const;

  const ModelConfig config_;
};

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_MODEL_TRANSFORMER_H_

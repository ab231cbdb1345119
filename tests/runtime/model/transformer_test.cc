// Which tensors a model needs, and the Program that is made of them.
#include "runtime/model/transformer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "tests/runtime/gguf/small_file.h"
#include "tests/support/tiny_model.h"

namespace millrace::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A backend that only remembers which weight has which name.
class NamingBackend final : public Backend {
 public:
  std::string device() const override { return "none"; }
  std::string isa() const override { return "none"; }
  std::int32_t threads() const override { return 1; }
  std::int32_t max_in_flight() const override { return 1; }
  bool batch_invariant() const override { return true; }
  absl::StatusOr<WeightId> LoadWeight(std::string_view name, DType, std::span<const std::int64_t>,
                                      const ByteSource& source) override {
    names.push_back(std::string(name));
    bytes += source.size_bytes();
    return WeightId(static_cast<std::int32_t>(names.size()) - 1);
  }
  std::int64_t AvailableBytes() const override { return 0; }
  std::int64_t weight_bytes() const override { return static_cast<std::int64_t>(bytes); }
  std::int64_t ScratchBytes(const Program&, const BackendLimits&) const override { return 0; }
  absl::Status Prepare(const Program&, const BackendLimits&) override { return absl::OkStatus(); }
  absl::StatusOr<StepTicket> Launch(const StepInput&) override {
    return absl::UnimplementedError("names only");
  }
  absl::StatusOr<StepOutput> Await(StepTicket) override {
    return absl::UnimplementedError("names only");
  }
  std::string Name(WeightId id) const {
    return id == kNoWeight ? "-" : names[static_cast<std::size_t>(id.value())];
  }

  std::vector<std::string> names;
  std::uint64_t bytes = 0;
};

struct Emitted {
  std::shared_ptr<const GgufFile> file;
  NamingBackend backend;
  Program program;
};

absl::Status Emit(const TinyModel& model, Emitted* out) {
  auto file = Parse(BuildTinyModel(model).Build());
  if (!file.ok()) return file.status();
  out->file = *file;
  auto config = ReadModelConfig(*out->file);
  if (!config.ok()) return config.status();
  const Transformer transformer(*config);
  const absl::Status checked = transformer.CheckTensors(*out->file);
  if (!checked.ok()) return checked;
  auto program = transformer.Load(*out->file, &out->backend, nullptr);
  if (!program.ok()) return program.status();
  EXPECT_EQ(out->backend.bytes, transformer.WeightBytes(*out->file));
  out->program = *std::move(program);
  return absl::OkStatus();
}

template <typename T>
std::vector<T> StagesOf(const Program& program) {
  std::vector<T> out;
  for (const Stage& stage : program.stages) {
    if (const T* found = std::get_if<T>(&stage)) out.push_back(*found);
  }
  return out;
}

TEST(Transformer, EmitsTheMixtureOfExpertsInTheOrderOfThePaper) {
  Emitted out;
  ASSERT_TRUE(Emit({}, &out).ok());
  const NamingBackend& b = out.backend;
  EXPECT_EQ(out.program.path, ForwardPath::kMoe);
  ASSERT_EQ(out.program.stages.size(), 1U + 2 * 6 + 2);
  EXPECT_TRUE(std::holds_alternative<EmbedStage>(out.program.stages[0]));
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const std::string at = "blk." + std::to_string(layer) + ".";
    const std::size_t i = 1 + layer * 6;
    const auto& qkv = std::get<NormQkvStage>(out.program.stages[i]);
    EXPECT_EQ(b.Name(qkv.norm), at + "attn_norm.weight");
    EXPECT_EQ(b.Name(qkv.q), at + "attn_q.weight");
    EXPECT_EQ(b.Name(qkv.k), at + "attn_k.weight");
    EXPECT_EQ(b.Name(qkv.v), at + "attn_v.weight");
    EXPECT_EQ(qkv.q_bias, kNoWeight);
    const auto& rope = std::get<QkNormRopeAppendStage>(out.program.stages[i + 1]);
    EXPECT_EQ(b.Name(rope.q_norm), at + "attn_q_norm.weight");
    EXPECT_EQ(b.Name(rope.k_norm), at + "attn_k_norm.weight");
    EXPECT_TRUE(std::holds_alternative<AttentionStage>(out.program.stages[i + 2]));
    const auto& output = std::get<OutputProjectionStage>(out.program.stages[i + 3]);
    EXPECT_EQ(b.Name(output.output), at + "attn_output.weight");
    const auto& router = std::get<NormRouterStage>(out.program.stages[i + 4]);
    EXPECT_EQ(b.Name(router.norm), at + "ffn_norm.weight");
    EXPECT_EQ(b.Name(router.router), at + "ffn_gate_inp.weight");
    EXPECT_TRUE(router.normalise);
    const auto& experts = std::get<ExpertsStage>(out.program.stages[i + 5]);
    EXPECT_EQ(b.Name(experts.gate), at + "ffn_gate_exps.weight");
    EXPECT_EQ(b.Name(experts.up), at + "ffn_up_exps.weight");
    EXPECT_EQ(b.Name(experts.down), at + "ffn_down_exps.weight");
  }
  const auto& head = std::get<NormHeadStage>(out.program.stages[13]);
  EXPECT_EQ(b.Name(head.norm), "output_norm.weight");
  EXPECT_EQ(b.Name(head.head), "output.weight");
  EXPECT_TRUE(std::holds_alternative<SampleStage>(out.program.stages[14]));
}

TEST(Transformer, EmitsDenseNetworksWithWhatTheirArchitectureHas) {
  for (const std::string family : {"qwen3", "qwen2", "llama"}) {
    SCOPED_TRACE(family);
    Emitted out;
    const absl::Status status =
        Emit({.architecture = family, .family = family, .tied = true}, &out);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(out.program.path, ForwardPath::kDense);
    EXPECT_EQ(StagesOf<DenseFfnStage>(out.program).size(), 2U);
    EXPECT_TRUE(StagesOf<ExpertsStage>(out.program).empty());
    EXPECT_TRUE(StagesOf<NormRouterStage>(out.program).empty());
    const NormQkvStage qkv = StagesOf<NormQkvStage>(out.program)[1];
    EXPECT_EQ(out.backend.Name(qkv.q_bias), family == "qwen2" ? "blk.1.attn_q.bias" : "-");
    const QkNormRopeAppendStage rope = StagesOf<QkNormRopeAppendStage>(out.program)[1];
    EXPECT_EQ(out.backend.Name(rope.q_norm), family == "qwen3" ? "blk.1.attn_q_norm.weight" : "-");
    // Tied: the head is the table.
    EXPECT_EQ(out.backend.Name(StagesOf<NormHeadStage>(out.program)[0].head), "token_embd.weight");
    EXPECT_EQ(out.program.dims.rope.pairing,
              family == "llama" ? RopePairing::kInterleaved : RopePairing::kNeox);
  }
}

// FALSIFY-QWEN3_MOE_SERVE_DISPATCH_V1_002: no dense stage is there to be executed, whatever the
// spelling.
TEST(Transformer, EmitsNoDenseStageForAMixtureOfExperts) {
  for (const char* spelling :
       {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3CoderForCausalLM"}) {
    Emitted out;
    ASSERT_TRUE(Emit({.architecture = spelling}, &out).ok()) << spelling;
    EXPECT_TRUE(StagesOf<DenseFfnStage>(out.program).empty());
    EXPECT_EQ(StagesOf<ExpertsStage>(out.program).size(), 2U);
  }
}

// FALSIFY-MOE-ROUTER-005: a router of the wrong shape is refused when the file is loaded.
TEST(Transformer, NamesTheTensorOfAnotherShape) {
  for (const std::string name : {"blk.1.ffn_gate_inp.weight", "blk.0.attn_q.weight",
                                 "blk.1.ffn_down_exps.weight", "output_norm.weight"}) {
    TinyModel model;
    model.reshape = [&](std::string_view tensor, std::vector<std::int64_t>* shape) {
      if (tensor == name) ++shape->front();
    };
    Emitted out;
    const absl::Status status = Emit(model, &out);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("'" + name + "' is ["));
    EXPECT_THAT(std::string(status.message()), HasSubstr("calls for ["));
    EXPECT_TRUE(out.backend.names.empty());  // before the first byte is read
  }
}

// FALSIFY-QW3-MOE-FORWARD-002: a MoE file never fails for want of a dense tensor.
TEST(Transformer, NamesTheMissingTensorAndNeverADenseOne) {
  for (const std::string name :
       {"blk.1.ffn_up_exps.weight", "blk.0.ffn_gate_inp.weight", "blk.0.attn_k_norm.weight"}) {
    TinyModel model;
    model.without = name;
    Emitted out;
    const std::string message(Emit(model, &out).message());
    EXPECT_THAT(message, HasSubstr("'" + name + "' is missing; qwen3moe needs it"));
    EXPECT_THAT(message, Not(HasSubstr("ffn_up.weight")));
    EXPECT_THAT(message, Not(HasSubstr("ffn_gate.weight")));
  }
}

TEST(Transformer, RefusesATensorThatNobodyReads) {
  TinyModel model;
  model.add = [](GgufBuilder* b) { b->AddTensor("blk.2.attn_norm.weight", DType::kF32, {8}); };
  Emitted out;
  EXPECT_THAT(std::string(Emit(model, &out).message()), HasSubstr("'blk.2.attn_norm.weight'"));
}

TEST(Transformer, CountsTheParametersOfOneTokenByItsExperts) {
  Emitted out;
  ASSERT_TRUE(Emit({}, &out).ok());
  const Transformer model(*ReadModelConfig(*out.file));
  const std::uint64_t expert = 3 * 6 * 8;
  EXPECT_EQ(model.NumParameters(*out.file) - model.NumActiveParameters(*out.file),
            2 * (4 - 2) * expert);
}

}  // namespace
}  // namespace millrace::testing

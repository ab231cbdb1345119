// What the backend takes, and what it refuses before it computes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/backend/factory.h"
#include "runtime/model/transformer.h"
#include "tests/runtime/gguf/small_file.h"
#include "tests/support/tiny_model.h"

namespace millrace::testing {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Backend> MakeScalar() { return MakeBackend("cpu", 1, "scalar").value(); }

absl::Status LoadOne(DType dtype, std::vector<std::int64_t> shape, std::size_t bytes) {
  return MakeScalar()
      ->LoadWeight("blk.0.ffn_up.weight", dtype, shape, MemorySource(std::string(bytes, 0)))
      .status();
}

// FALSIFY-QWEN3_MOE_SERVE_DISPATCH_V1_003: the guard against empty weights can fire, in these
// words.
TEST(CpuBackend, RefusesAWeightWithoutBytes) {
  const absl::Status status = LoadOne(DType::kQ4_K, {4, 256}, 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("'blk.0.ffn_up.weight': matmul weight has EMPTY data buffer"));
}

TEST(CpuBackend, NamesAWeightOfTheWrongSizeOrShape) {
  for (const absl::Status& status :
       {LoadOne(DType::kF32, {4, 8}, 127), LoadOne(DType::kF32, {4, 8}, 129),
        LoadOne(DType::kQ4_K, {4, 255}, 576), LoadOne(DType::kF32, {1, 1, 4, 8}, 128),
        LoadOne(DType::kF32, {0, 8}, 1), LoadOne(DType::kF32, {}, 4)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("'blk.0.ffn_up.weight'"));
  }
}

TEST(CpuBackend, KeepsOneCopyOfItsWeights) {
  const auto backend = MakeScalar();
  ASSERT_TRUE(backend
                  ->LoadWeight("a", DType::kF32, std::vector<std::int64_t>{4, 8},
                               MemorySource(std::string(128, 0)))
                  .ok());
  EXPECT_EQ(backend->weight_bytes(), 128);
}

TEST(CpuBackend, PassesOnAnErrorOfTheSource) {
  class Broken final : public ByteSource {
   public:
    std::uint64_t size_bytes() const override { return 128; }
    absl::Status Read(std::uint64_t, std::span<std::byte>) const override {
      return absl::DataLossError("gone");
    }
  };
  const auto status = MakeScalar()
                          ->LoadWeight("a", DType::kF32, std::vector<std::int64_t>{4, 8}, Broken())
                          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
}

TEST(MakeBackend, NamesTheFlagThatMakesNoSense) {
  EXPECT_THAT(std::string(MakeBackend("tpu", 1, "auto").status().message()), HasSubstr("--device"));
  for (const char* device : {"cuda:", "cuda:x", "cuda:-1", "cuda:1000000000000", "cuda0"}) {
    EXPECT_THAT(std::string(MakeBackend(device, 1, "auto").status().message()),
                HasSubstr("want auto, cpu, cuda or cuda:N"));
  }
  EXPECT_THAT(std::string(MakeBackend("cpu", 1, "mmx").status().message()), HasSubstr("--cpu-isa"));
  EXPECT_THAT(std::string(MakeBackend("cpu", -1, "auto").status().message()),
              HasSubstr("--threads"));
  const auto with_matmul = [](const char* matmul) {
    return std::string(MakeBackend("cpu", 1, "auto", {}, matmul).status().message());
  };
  EXPECT_THAT(with_matmul("fast"), HasSubstr("--matmul fast: want exact or cublas"));
  EXPECT_THAT(with_matmul("cublas"), HasSubstr("only a GPU has it, and this is --device cpu"));
}

// A step with zero weights: every logit is 0 and the lowest token is the greedy one.
class Step : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto file = Parse(BuildTinyModel({}).Build()).value();
    const Transformer model(ReadModelConfig(*file).value());
    backend_ = MakeScalar();
    const Program program = model.Load(*file, backend_.get(), nullptr).value();
    BackendLimits limits = {.max_tokens = 4,
                            .max_seqs = 2,
                            .max_logit_rows = 2,
                            .max_context = 64,
                            .num_kv_blocks = 4,
                            .kv = {.num_layers = 2,
                                   .num_kv_heads = 2,
                                   .head_dim = 4,
                                   .block_size = 16,
                                   .dtype = KvDType::kF32}};
    ASSERT_TRUE(backend_->Prepare(program, limits).ok());
  }
  StepInput Input() const {
    return {.token_ids = tokens_,
            .positions = positions_,
            .query_start = query_start_,
            .context_len = context_,
            .block_table = table_,
            .block_table_start = table_start_,
            .logit_rows = rows_,
            .samples = samples_,
            .return_logits = true};
  }
  absl::Status Refusal() { return backend_->Launch(Input()).status(); }

  std::unique_ptr<Backend> backend_;
  std::vector<std::int32_t> tokens_ = {1, 2, 3};
  std::vector<std::int32_t> positions_ = {0, 1, 2};
  std::vector<std::int32_t> query_start_ = {0, 3};
  std::vector<std::int32_t> context_ = {3};
  std::vector<std::int32_t> table_ = {2};
  std::vector<std::int32_t> table_start_ = {0, 1};
  std::vector<std::int32_t> rows_ = {2};
  std::vector<SampleRow> samples_ = {SampleRow{.params = {.temperature = 0}}};
};

TEST_F(Step, RunsAndCountsTheExpertsThatWereActive) {
  const auto ticket = backend_->Launch(Input());
  ASSERT_TRUE(ticket.ok()) << ticket.status();
  const StepOutput output = backend_->Await(*ticket).value();
  ASSERT_EQ(output.logits.size(), 8U);
  for (const float logit : output.logits) EXPECT_EQ(logit, 0.0F);
  EXPECT_EQ(output.sampled.at(0).token, 0U);
  // Equal router logits: all tokens go to the first two experts.
  EXPECT_THAT(output.moe.active_experts, ::testing::ElementsAre(2, 2));
  EXPECT_THAT(output.moe.rows_per_expert, ::testing::ElementsAre(3, 3, 3, 3));
}

TEST_F(Step, RefusesWhatItWasNotPreparedFor) {
  tokens_[1] = 8;
  EXPECT_THAT(std::string(Refusal().message()), HasSubstr("token 8"));
  tokens_[1] = -1;
  EXPECT_FALSE(Refusal().ok());
  tokens_[1] = 2;
  table_[0] = 4;
  EXPECT_THAT(std::string(Refusal().message()), HasSubstr("KV block 4 of 4"));
  table_[0] = 2;
  context_[0] = 17;  // one block holds 16
  EXPECT_THAT(std::string(Refusal().message()), HasSubstr("context 17"));
  context_[0] = 3;
  rows_ = {0, 1, 2};
  EXPECT_THAT(std::string(Refusal().message()), HasSubstr("3 logit rows"));
  rows_ = {2};
  EXPECT_TRUE(backend_->Launch(Input()).ok());  // a refusal has no side effects
}

}  // namespace
}  // namespace millrace::testing

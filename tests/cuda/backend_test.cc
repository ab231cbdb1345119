// The CUDA backend on the emulated GPU against the CPU backend: whole models of every architecture
// and type of weight, random steps of prompts and decoding, all sampling; equal to the bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/math.h"
#include "kernels/cuda/attention.h"
#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/backend/factory.h"
#include "runtime/model/transformer.h"
#include "tests/cuda/test_device.h"

namespace millrace::cuda {
namespace {

using ::testing::HasSubstr;

constexpr char kGoldenModels[] = "tests/golden/models";
constexpr char kOddHeads[] = "tests/golden/models/qwen2-q4_0.gguf";  // of 24 values
constexpr char kMoeModel[] = "tests/golden/models/qwen3moe-q4_k_m.gguf";
constexpr char kDenseModel[] = "tests/golden/models/qwen3-q5_k.gguf";
constexpr char kDemoModel[] = "models/story-moe-q4_k_m.gguf";
#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
constexpr std::int32_t kMaxSeqs = 5;
constexpr std::int32_t kMaxTokens = 64;
constexpr std::int32_t kMostOfSequence = 50;  // tokens of a step
constexpr std::int32_t kLongPrompt = 270;
constexpr std::int32_t kBlockSize = 16;
constexpr std::int32_t kMaxContext = 320;  // two partitions of attention

BackendLimits Limits(const ProgramDims& dims, KvDType kv) {
  BackendLimits limits;
  limits.max_tokens = kMaxTokens;
  limits.max_seqs = kMaxSeqs;
  limits.max_logit_rows = kMaxSeqs;
  limits.max_context = kMaxContext;
  limits.num_kv_blocks = kMaxSeqs * kMaxContext / kBlockSize + 3;
  limits.kv = {.num_layers = dims.num_layers,
               .num_kv_heads = dims.num_kv_heads,
               .head_dim = dims.head_dim,
               .block_size = kBlockSize,
               .dtype = kv};
  return limits;
}

// A backend with a model, ready for steps.
struct Loaded {
  std::unique_ptr<Backend> backend;
  Program program;
};

Loaded Load(std::unique_ptr<Backend> backend, const std::string& path, KvDType kv) {
  const auto file = GgufFile::Open(path).value();
  const Transformer model(ReadModelConfig(*file).value());
  Loaded loaded;
  loaded.program = model.Load(*file, backend.get(), nullptr).value();
  const absl::Status prepared = backend->Prepare(loaded.program, Limits(loaded.program.dims, kv));
  EXPECT_TRUE(prepared.ok()) << prepared;
  loaded.backend = std::move(backend);
  return loaded;
}

std::unique_ptr<Backend> Cuda(bool graphs, bool fused = true) {
  auto backend = CudaBackend::Create({.device = 0, .threads = 2, .graphs = graphs, .fused = fused});
  EXPECT_TRUE(backend.ok()) << backend.status();
  return *std::move(backend);
}

// Everything that a StepInput points to.
struct Step {
  std::vector<std::int32_t> token_ids, positions, query_start{0}, context_len, block_table,
      block_table_start{0}, logit_rows;
  std::vector<SampleRow> samples;
  std::vector<DeferredToken> deferred;
  std::vector<std::vector<SeenToken>> seen;
  std::vector<std::pair<std::uint32_t, float>> bias{{3, 1.5F}, {5, -2.0F}};
  std::vector<std::uint32_t> banned{1, 4};

  StepInput Input() const {
    return {.token_ids = token_ids,
            .positions = positions,
            .query_start = query_start,
            .context_len = context_len,
            .block_table = block_table,
            .block_table_start = block_table_start,
            .logit_rows = logit_rows,
            .samples = samples,
            .deferred = deferred,
            .return_logits = true};
  }
};

// Random steps over a few sequences, as a scheduler could plan them.
class RandomSteps {
 public:
  RandomSteps(std::int32_t vocab, std::uint32_t seed) : vocab_(vocab), random_(seed) {
    std::vector<std::int32_t> blocks(kMaxSeqs * kMaxContext / kBlockSize);
    for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::int32_t>(i) + 1;
    std::shuffle(blocks.begin(), blocks.end(), random_);
    sequences_.resize(kMaxSeqs);
    for (std::size_t s = 0; s < kMaxSeqs; ++s) {
      Sequence& sequence = sequences_[s];
      // One is long enough for a second partition.
      sequence.tokens.resize(static_cast<std::size_t>(s == 0 ? kLongPrompt : 1 + Below(60)));
      for (std::int32_t& token : sequence.tokens) token = Below(vocab);
      const auto each = kMaxContext / kBlockSize;
      sequence.blocks.assign(blocks.begin() + static_cast<std::ptrdiff_t>(s) * each,
                             blocks.begin() + static_cast<std::ptrdiff_t>(s + 1) * each);
    }
  }

  // A step of up to `most` tokens.
  Step Next(std::int32_t most) {
    Step step;
    sampled_.clear();
    std::int32_t room = most;
    for (std::size_t s = 0; s < sequences_.size(); ++s) {
      Sequence& sequence = sequences_[s];
      const auto known = static_cast<std::int32_t>(sequence.tokens.size());
      // The prompt of the long one goes first, so that few steps are enough for it.
      const bool long_prompt = s == 0 && sequence.computed + 1 < known;
      if ((!long_prompt && Below(5) == 0) || room == 0 || known >= kMaxContext) continue;
      const std::int32_t most_here = long_prompt ? kMostOfSequence : 1 + Below(kMostOfSequence);
      const std::int32_t count = std::min({room, known - sequence.computed, most_here});
      room -= count;
      Add(&step, &sequence, count);
      if (sequence.computed < known) continue;
      step.logit_rows.push_back(static_cast<std::int32_t>(step.token_ids.size()) - 1);
      sampled_.push_back(s);
    }
    if (step.token_ids.empty()) return Next(most);
    for (const std::size_t s : sampled_) AddSampling(&step, sequences_[s]);
    return step;
  }

  // What the last step sampled.
  void Append(const StepOutput& output) {
    for (std::size_t i = 0; i < sampled_.size(); ++i) {
      Sequence& sequence = sequences_[sampled_[i]];
      sequence.tokens.push_back(static_cast<std::int32_t>(output.sampled[i].token));
      sequence.sampled_row = static_cast<std::int32_t>(i);
    }
    for (std::size_t s = 0; s < sequences_.size(); ++s) {
      if (std::find(sampled_.begin(), sampled_.end(), s) == sampled_.end()) {
        sequences_[s].sampled_row = -1;
      }
    }
  }

 private:
  struct Sequence {
    std::vector<std::int32_t> tokens, blocks;
    std::int32_t computed = 0;
    std::int32_t sampled_row = -1;  // of the step before, which sampled its last token
  };

  std::int32_t Below(std::int32_t n) {
    return std::uniform_int_distribution<std::int32_t>(0, n - 1)(random_);
  }

  void Add(Step* step, Sequence* sequence, std::int32_t count) {
    const std::int32_t end = sequence->computed + count;
    for (std::int32_t p = sequence->computed; p < end; ++p) {
      if (sequence->sampled_row >= 0 &&
          p + 1 == static_cast<std::int32_t>(sequence->tokens.size())) {
        step->deferred.push_back({.token_index = static_cast<std::int32_t>(step->token_ids.size()),
                                  .ticket = {},
                                  .row = sequence->sampled_row});
      }
      step->token_ids.push_back(sequence->tokens[static_cast<std::size_t>(p)]);
      step->positions.push_back(p);
    }
    sequence->computed = end;
    step->query_start.push_back(static_cast<std::int32_t>(step->token_ids.size()));
    step->context_len.push_back(end);
    const std::int32_t used = (end + kBlockSize - 1) / kBlockSize;
    step->block_table.insert(step->block_table.end(), sequence->blocks.begin(),
                             sequence->blocks.begin() + used);
    step->block_table_start.push_back(static_cast<std::int32_t>(step->block_table.size()));
  }

  void AddSampling(Step* step, const Sequence& sequence) {
    SampleRow row;
    row.position = static_cast<std::uint32_t>(sequence.tokens.size());
    row.params.seed = random_();
    row.params.temperature = Below(3) == 0 ? 0.0F : 0.8F;
    if (Below(3) == 0) row.params.top_k = static_cast<std::uint32_t>(1 + Below(20));
    if (Below(3) == 0) row.params.top_p = 0.7F;
    if (Below(4) == 0) row.params.min_p = 0.05F;
    if (Below(3) == 0) row.num_logprobs = Below(5);
    if (Below(4) == 0) row.logit_bias = step->bias;
    if (Below(4) == 0) row.banned = step->banned;
    if (Below(3) == 0) {
      row.params.repetition_penalty = 1.2F;
      row.params.presence_penalty = 0.1F;
      auto& seen = step->seen.emplace_back();
      for (std::int32_t token = 0; token < std::min(vocab_, 40); token += 3) {
        seen.push_back({static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(Below(3))});
      }
      row.seen = seen;
    }
    step->samples.push_back(row);
  }

  const std::int32_t vocab_;
  std::mt19937 random_;
  std::vector<Sequence> sequences_;
  std::vector<std::size_t> sampled_;  // sequences whose rows the last step samples
};

void ExpectSame(const StepOutput& cpu, const StepOutput& cuda) {
  ASSERT_EQ(cpu.logits.size(), cuda.logits.size());
  for (std::size_t i = 0; i < cpu.logits.size(); ++i) {
    ASSERT_EQ(std::memcmp(&cpu.logits[i], &cuda.logits[i], sizeof(float)), 0)
        << "logit " << i << ": " << cpu.logits[i] << " and " << cuda.logits[i];
  }
  ASSERT_EQ(cpu.sampled.size(), cuda.sampled.size());
  for (std::size_t i = 0; i < cpu.sampled.size(); ++i) {
    const SampledToken& a = cpu.sampled[i];
    const SampledToken& b = cuda.sampled[i];
    EXPECT_EQ(a.token, b.token);
    EXPECT_EQ(a.finite, b.finite);
    EXPECT_EQ(a.logprob, b.logprob);
    EXPECT_EQ(a.rank, b.rank);
    ASSERT_EQ(a.top.size(), b.top.size());
    for (std::size_t j = 0; j < a.top.size(); ++j) {
      EXPECT_EQ(a.top[j].token, b.top[j].token);
      EXPECT_EQ(a.top[j].logprob, b.top[j].logprob);
    }
  }
  EXPECT_EQ(cpu.moe.active_experts, cuda.moe.active_experts);
  auto rows = cpu.moe.rows_per_expert;
  auto others = cuda.moe.rows_per_expert;
  std::sort(rows.begin(), rows.end());
  std::sort(others.begin(), others.end());
  EXPECT_EQ(rows, others);
}

// What is played, and how.
struct Play {
  std::vector<std::int32_t> most_tokens = {kMaxTokens, kMaxTokens, kMaxTokens, kMaxTokens};
  KvDType kv = KvDType::kF16;
  bool graphs = true;
  bool fused = true;
};

// Plays the same steps to both, the GPU one step ahead of what is read back from it.
void ExpectTheCpusBits(const std::string& path, const Play& play) {
  constexpr std::uint32_t kSeed = 20261128;
  SCOPED_TRACE(path + ", seed " + std::to_string(kSeed) + (play.graphs ? ", graphs" : "") +
               (play.fused ? ", fused" : ""));
  emulation::Start({});
  const Loaded cpu = Load(MakeBackend("cpu", 2, "auto").value(), path, play.kv);
  const Loaded cuda = Load(Cuda(play.graphs, play.fused), path, play.kv);
  RandomSteps random(cpu.program.dims.vocab, kSeed);
  std::vector<StepOutput> expected;
  StepTicket before;
  for (std::size_t i = 0; i < play.most_tokens.size(); ++i) {
    Step step = random.Next(play.most_tokens[i]);
    StepInput input = step.Input();
    input.deferred = {};
    const auto ticket = cpu.backend->Launch(input);
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    expected.push_back(cpu.backend->Await(*ticket).value());
    for (DeferredToken& deferred : step.deferred) {
      deferred.ticket = before;
      step.token_ids[static_cast<std::size_t>(deferred.token_index)] = 0;
    }
    const auto launched = cuda.backend->Launch(step.Input());
    ASSERT_TRUE(launched.ok()) << launched.status();
    if (i > 0) {
      const auto output = cuda.backend->Await(before);
      ASSERT_TRUE(output.ok()) << output.status() << emulation::LastFault();
      ExpectSame(expected[i - 1], *output);
    }
    if (::testing::Test::HasFailure()) {
      FAIL() << "step " << i;
    }
    before = *launched;
    random.Append(expected.back());
  }
  const auto output = cuda.backend->Await(before);
  ASSERT_TRUE(output.ok()) << output.status() << emulation::LastFault();
  ExpectSame(expected.back(), *output);
}

TEST(CudaBackend, GivesTheBitsOfTheCpuForEveryArchitectureAndType) {
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kGoldenModels)) {
    if (entry.path().extension() != ".gguf" || entry.path() == kOddHeads) continue;
    // Instrumented code is slower by an order of magnitude: one of each kind of network.
    if (kSanitized && entry.path() != kMoeModel && entry.path() != kDenseModel) continue;
    ExpectTheCpusBits(entry.path().string(), {.graphs = models % 2 == 0});
    ++models;
    if (HasFailure()) return;
  }
  EXPECT_GE(models, kSanitized ? 2 : 15);
}

TEST(CudaBackend, GivesTheBitsOfTheCpuForEveryTypeOfCache) {
  for (const KvDType kv : {KvDType::kF32, KvDType::kQ8_0, KvDType::kFp8}) {
    ExpectTheCpusBits(kMoeModel, {.kv = kv});
  }
}

TEST(CudaBackend, GivesTheBitsOfTheCpuForTheDemoModel) { ExpectTheCpusBits(kDemoModel, {}); }

// Until one sequence has a second partition of attention, then steps of fewer and fewer tokens:
// kernels end with what follows them, or all are kernels of their own.
TEST(CudaBackend, GivesTheBitsOfTheCpuForFewTokensWithFusedKernelsAndWithout) {
  std::vector<std::int32_t> most_tokens(kSanitized ? 1 : CeilDivide(kLongPrompt, kMostOfSequence),
                                        kMaxTokens);
  most_tokens.insert(most_tokens.end(), {17, 16, 9, 8, 5, 3, 2, 1, 1});
  for (const char* path : {kMoeModel, kDenseModel}) {
    for (const bool fused : {true, false}) {
      ExpectTheCpusBits(path, {.most_tokens = most_tokens, .graphs = fused, .fused = fused});
    }
  }
}

// ---- Devices that are not there, and faults ----------------------------------------------------

std::string RefusalOf(const emulation::Machine& machine, std::int32_t device = 0) {
  emulation::Start(machine);
  const auto backend = CudaBackend::Create({.device = device});
  emulation::Start({});
  return backend.ok() ? "" : std::string(backend.status().message());
}

TEST(CudaBackend, SaysWhyThereIsNoDevice) {
  EXPECT_THAT(RefusalOf({.devices = 0, .count_error = cudaErrorNoDevice}),
              HasSubstr("no CUDA device is visible"));
  EXPECT_THAT(RefusalOf({.count_error = cudaErrorInsufficientDriver, .driver_version = 0}),
              HasSubstr("no NVIDIA driver is installed"));
  EXPECT_THAT(RefusalOf({.count_error = cudaErrorInsufficientDriver, .driver_version = 12020}),
              HasSubstr("CUDA up to 12.2; this build needs one for CUDA 13.0"));
  EXPECT_THAT(RefusalOf({.major = 7, .minor = 5}), HasSubstr("compute capability 7.5"));
  EXPECT_THAT(RefusalOf({}, 1), HasSubstr("only cuda:0"));
  EXPECT_THAT(RefusalOf({.devices = 2}, 2), HasSubstr("cuda:0 to cuda:1"));
}

TEST(CudaBackend, NamesAModelThatItsKernelsDoNotServe) {
  emulation::Start({});
  const auto file = GgufFile::Open(kOddHeads).value();
  const Transformer model(ReadModelConfig(*file).value());
  const auto backend = Cuda(true);
  const Program program = model.Load(*file, backend.get(), nullptr).value();
  const absl::Status refusal = backend->Prepare(program, Limits(program.dims, KvDType::kF16));
  EXPECT_EQ(refusal.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(refusal.message()), HasSubstr("heads of 24 values"));
}

TEST(CudaBackend, SaysWhatDoesNotFitIntoTheDevicesMemory) {
  emulation::Start({.memory_bytes = std::size_t{1} << 20});
  const auto file = GgufFile::Open(kMoeModel).value();
  const Transformer model(ReadModelConfig(*file).value());
  const auto backend = Cuda(true);
  const auto program = model.Load(*file, backend.get(), nullptr);
  EXPECT_EQ(program.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(program.status().message()), HasSubstr("bytes for tensor '"));
}

// One step of a token or two.
Step SmallStep() {
  Step step;
  step.token_ids = {1, 2};
  step.positions = {0, 1};
  step.query_start = {0, 2};
  step.context_len = {2};
  step.block_table = {1};
  step.block_table_start = {0, 1};
  step.logit_rows = {1};
  step.samples = {SampleRow{.params = {.temperature = 0}}};
  return step;
}

TEST(CudaBackend, IsDrivenByAnotherThreadThanTheOneThatLoaded) {
  emulation::Start({.devices = 2});
  std::thread([] {
    auto made = CudaBackend::Create({.device = 1, .threads = 2});
    const Loaded cuda = Load(*std::move(made), kMoeModel, KvDType::kF16);
    std::thread([&cuda] {
      const Step step = SmallStep();
      const auto ticket = cuda.backend->Launch(step.Input());
      ASSERT_TRUE(ticket.ok()) << ticket.status();
      const auto output = cuda.backend->Await(*ticket);
      EXPECT_TRUE(output.ok()) << output.status();
    }).join();
  }).join();
  emulation::Start({});
}

TEST(CudaBackend, ChainsKernelsOnlyWhereTheirCodeWaitsForTheOneBefore) {
  emulation::Start({.major = 12, .compiled_for = 80});
  const Loaded cuda = Load(Cuda(true), kMoeModel, KvDType::kF16);
  const Step step = SmallStep();
  const auto output = cuda.backend->Await(cuda.backend->Launch(step.Input()).value());
  EXPECT_TRUE(output.ok()) << output.status() << emulation::LastFault();
  EXPECT_THAT(RefusalOf({.compiled_for = 0}), HasSubstr("this build has no kernels for"));
}

TEST(CudaBackend, NamesACacheThatItsGpuHasTooLittleSharedMemoryFor) {
  const auto file = GgufFile::Open(kMoeModel).value();
  const Transformer model(ReadModelConfig(*file).value());
  const std::int32_t head_dim = model.Dims().head_dim;
  std::size_t most = 0;
  for (const AttentionTileInfo& tile : kAttentionTiles) {
    most = std::max(most, AttentionSharedBytes(tile.tile, KvDType::kF16, head_dim));
  }
  for (const KvDType kv : {KvDType::kF16, KvDType::kF32}) {
    emulation::Start({.shared_bytes = most});
    const auto backend = Cuda(true);
    const Program program = model.Load(*file, backend.get(), nullptr).value();
    const absl::Status prepared = backend->Prepare(program, Limits(program.dims, kv));
    if (kv == KvDType::kF16) {
      EXPECT_TRUE(prepared.ok()) << prepared;
    } else {
      EXPECT_EQ(prepared.code(), absl::StatusCode::kUnimplemented);
      EXPECT_THAT(std::string(prepared.message()), HasSubstr("bytes of shared memory"));
    }
  }
  emulation::Start({});
}

TEST(CudaBackend, NamesRowsThatAreTooLongForTheSharedMemoryOfANorm) {
  emulation::Start({});
  const auto file = GgufFile::Open(kDenseModel).value();
  const Transformer model(ReadModelConfig(*file).value());
  const auto backend = Cuda(true);
  Program program = model.Load(*file, backend.get(), nullptr).value();
  program.dims.hidden = 1 << 16;
  const absl::Status prepared = backend->Prepare(program, Limits(program.dims, KvDType::kF16));
  EXPECT_EQ(prepared.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(prepared.message()), HasSubstr("rows of 65536 values"));
}

struct Launched {
  std::int64_t kernels;  // of a step of two tokens, one of them sampled greedily
  std::int64_t layers;
};

Launched KernelsOfAStep(const std::string& path, bool fused) {
  emulation::Start({});
  const Loaded cuda = Load(Cuda(/*graphs=*/false, fused), path, KvDType::kF16);
  const std::int64_t before = emulation::KernelsRun();
  const Step step = SmallStep();
  EXPECT_TRUE(cuda.backend->Await(cuda.backend->Launch(step.Input()).value()).ok());
  return {emulation::KernelsRun() - before, cuda.program.dims.num_layers};
}

// A layer of experts: q, k and v with rotation and append; attention with its merge; output with
// the norm; router with routes and plan; gate and up with SwiGLU; down with the experts' sum and
// the norm. A dense one has no router.
TEST(CudaBackend, ALayerOfFewTokensIsSixKernelsAndFiveWhereItIsDense) {
  // The embedding, the norm behind it, the head, and two of sampling.
  constexpr std::int64_t kBesideLayers = 5;
  const auto of_a_layer = [](const char* path, bool fused) {
    const Launched launched = KernelsOfAStep(path, fused);
    EXPECT_EQ((launched.kernels - kBesideLayers) % launched.layers, 0) << launched.kernels;
    return (launched.kernels - kBesideLayers) / launched.layers;
  };
  EXPECT_EQ(of_a_layer(kMoeModel, true), 6);
  EXPECT_EQ(of_a_layer(kMoeModel, false), 12);
  EXPECT_EQ(of_a_layer(kDenseModel, true), 5);
  EXPECT_EQ(of_a_layer(kDenseModel, false), 10);
}

TEST(CudaBackend, PassesOnEveryFaultOfTheDevice) {
  for (const emulation::Call call :
       {emulation::Call::kMemcpy, emulation::Call::kGraphLaunch, emulation::Call::kWait}) {
    emulation::Start({});
    const Loaded cuda = Load(Cuda(true), kMoeModel, KvDType::kF16);
    const Step step = SmallStep();
    ASSERT_TRUE(cuda.backend->Await(cuda.backend->Launch(step.Input()).value()).ok());
    emulation::FailLater(call, 0, cudaErrorIllegalAddress, true);
    absl::StatusOr<StepTicket> ticket = cuda.backend->Launch(step.Input());
    const absl::Status status =
        ticket.ok() ? cuda.backend->Await(*ticket).status() : ticket.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("cudaErrorIllegalAddress"));
  }
  emulation::Start({});
}

TEST(CudaBackend, GivesAHungStepUpAfterItsLimitAndEndsWithoutIt) {
  emulation::Start({});
  auto made = CudaBackend::Create({.step_limit = std::chrono::milliseconds(200)});
  {
    const Loaded cuda = Load(*std::move(made), kMoeModel, KvDType::kF16);
    const Step step = SmallStep();
    emulation::HangLater(10);
    const auto ticket = cuda.backend->Launch(step.Input());
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    const absl::Status status = cuda.backend->Await(*ticket).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("a step has not ended after 0.2 s"));
  }  // does not wait for it
  emulation::Release();
}

}  // namespace
}  // namespace millrace::cuda

// Whole models with products by cuBLAS on the (emulated) GPU: close to the CPU backend and to
// transformers where a step is large, the CPU's bits where it is small; what a server is told of
// it; what goes wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/byte_source.h"
#include "kernels/dequantize.h"
#include "runtime/backend/cuda/cuda_backend.h"
#include "runtime/backend/factory.h"
#include "runtime/gguf/gguf_file.h"
#include "runtime/model/transformer.h"
#include "tests/cuda/test_cublas.h"
#include "tests/cuda/test_device.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::WithCublas;
using ::testing::HasSubstr;

constexpr char kGoldens[] = "tests/golden/models/";
constexpr char kMoeModel[] = "qwen3moe-q4_k_m";
constexpr char kDenseModel[] = "qwen3-q5_k";
constexpr std::int32_t kBlockSize = 16;
constexpr std::int32_t kContext = 64;
constexpr std::int32_t kLeastRows = 20;  // from which steps of these tests are large

BackendLimits Limits(const ProgramDims& dims) {
  BackendLimits limits;
  limits.max_tokens = kContext;
  limits.max_seqs = 1;
  limits.max_logit_rows = kContext;
  limits.max_context = kContext;
  limits.num_kv_blocks = kContext / kBlockSize + 1;
  limits.kv = {.num_layers = dims.num_layers,
               .num_kv_heads = dims.num_kv_heads,
               .head_dim = dims.head_dim,
               .block_size = kBlockSize,
               .dtype = KvDType::kF32};
  return limits;
}

class Bytes : public ByteSource {
 public:
  explicit Bytes(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size_bytes() const override { return bytes_.size(); }
  absl::Status Read(std::uint64_t offset, std::span<std::byte> out) const override {
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return absl::OkStatus();
  }

 private:
  std::vector<std::byte> bytes_;
};

// A file whose tensors with `part` in their names have the same values, in F32.
class WithF32 : public GgufFile {
 public:
  WithF32(std::shared_ptr<const GgufFile> file, const std::string& part) : file_(std::move(file)) {
    tensors_.assign(file_->tensors().begin(), file_->tensors().end());
    for (GgufTensor& tensor : tensors_) {
      if (tensor.name.find(part) != std::string_view::npos) tensor.dtype = DType::kF32;
    }
  }
  const std::string& path() const override { return file_->path(); }
  std::span<const std::string> paths() const override { return file_->paths(); }
  std::uint32_t version() const override { return file_->version(); }
  std::uint64_t file_bytes() const override { return file_->file_bytes(); }
  std::span<const std::pair<std::string_view, GgufValue>> metadata() const override {
    return file_->metadata();
  }
  const GgufValue* Find(std::string_view key) const override { return file_->Find(key); }
  std::span<const GgufTensor> tensors() const override { return tensors_; }
  const GgufTensor* FindTensor(std::string_view name) const override {
    const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                    [&](const GgufTensor& tensor) { return tensor.name == name; });
    return found == tensors_.end() ? nullptr : &*found;
  }
  std::unique_ptr<ByteSource> Source(const GgufTensor& tensor) const override {
    const GgufTensor* original = file_->FindTensor(tensor.name);
    auto source = file_->Source(*original);
    if (original->dtype == tensor.dtype) return source;
    std::vector<std::byte> bytes(source->size_bytes());
    EXPECT_TRUE(source->Read(0, bytes).ok());
    const auto values = bytes.size() / static_cast<std::size_t>(Info(original->dtype).block_bytes) *
                        static_cast<std::size_t>(Info(original->dtype).block_values);
    std::vector<std::byte> widened(values * sizeof(float));
    DequantizeRow(original->dtype, bytes.data(), static_cast<std::int64_t>(values),
                  reinterpret_cast<float*>(widened.data()));
    return std::make_unique<Bytes>(std::move(widened));
  }
  std::shared_ptr<const ByteSource> PartSource(std::size_t part) const override {
    return file_->PartSource(part);
  }

 private:
  const std::shared_ptr<const GgufFile> file_;
  std::vector<GgufTensor> tensors_;
};

std::shared_ptr<const GgufFile> Open(const std::string& name) {
  return GgufFile::Open(kGoldens + name + ".gguf").value();
}

// A backend with a model, and one sequence that goes on step by step.
class Model {
 public:
  Model(std::unique_ptr<Backend> backend, const std::string& name)
      : Model(std::move(backend), Open(name)) {}
  Model(std::unique_ptr<Backend> backend, const std::shared_ptr<const GgufFile>& file)
      : backend_(std::move(backend)) {
    const Transformer model(ReadModelConfig(*file).value());
    program_ = model.Load(*file, backend_.get(), nullptr).value();
    const absl::Status prepared = backend_->Prepare(program_, Limits(program_.dims));
    EXPECT_TRUE(prepared.ok()) << prepared;
    for (std::int32_t b = 1; b <= kContext / kBlockSize; ++b) blocks_.push_back(b);
  }

  std::int64_t scratch_bytes() const {
    return backend_->ScratchBytes(program_, Limits(program_.dims));
  }
  std::int64_t cache_bytes() const {
    const BackendLimits limits = Limits(program_.dims);
    return limits.kv.block_bytes() * limits.num_kv_blocks;
  }

  // Logits of every token of the next step, or why there are none.
  absl::StatusOr<std::vector<float>> Step(const std::vector<std::int32_t>& tokens) {
    const auto count = static_cast<std::int32_t>(tokens.size());
    std::vector<std::int32_t> positions, rows;
    for (std::int32_t i = 0; i < count; ++i) {
      positions.push_back(computed_ + i);
      rows.push_back(i);
    }
    computed_ += count;
    const std::vector<std::int32_t> query_start = {0, count};
    const std::vector<std::int32_t> context = {computed_};
    const std::int32_t used = (computed_ + kBlockSize - 1) / kBlockSize;
    const std::vector<std::int32_t> table_start = {0, used};
    const StepInput input = {
        .token_ids = tokens,
        .positions = positions,
        .query_start = query_start,
        .context_len = context,
        .block_table = std::span(blocks_).first(static_cast<std::size_t>(used)),
        .block_table_start = table_start,
        .logit_rows = rows,
        .return_logits = true};
    auto ticket = backend_->Launch(input);
    if (!ticket.ok()) return ticket.status();
    auto output = backend_->Await(*ticket);
    if (!output.ok()) return output.status();
    return std::move(output->logits);
  }

 private:
  std::unique_ptr<Backend> backend_;
  Program program_;
  std::vector<std::int32_t> blocks_;
  std::int32_t computed_ = 0;
};

std::unique_ptr<Backend> Cpu() { return MakeBackend("cpu", 2, "auto").value(); }

// A model of tests/golden with a prompt, and what transformers says to it: with the weights' values
// and activations in float32.
struct Golden {
  std::string name;
  std::int32_t vocab = 0;
  std::vector<std::int32_t> prompt;
  std::vector<float> logits;  // [prompt][vocab]
};

std::vector<Golden> ReadGoldens() {
  std::ifstream index_file(std::string(kGoldens) + "index.json");
  const nlohmann::json index = nlohmann::json::parse(index_file);
  std::vector<Golden> goldens;
  for (const nlohmann::json& entry : index["models"]) {
    Golden& golden = goldens.emplace_back();
    golden.name = entry["name"];
    golden.vocab = entry["vocab"];
    golden.prompt = entry["sequences"][0].get<std::vector<std::int32_t>>();
    std::ifstream file(kGoldens + golden.name + ".logits", std::ios::binary);
    golden.logits.resize(golden.prompt.size() * static_cast<std::size_t>(golden.vocab));
    file.read(reinterpret_cast<char*>(golden.logits.data()),
              static_cast<std::streamsize>(golden.logits.size() * sizeof(float)));
    EXPECT_TRUE(file.good());
  }
  return goldens;
}

Golden GoldenOf(const std::string& name) {
  for (const Golden& golden : ReadGoldens()) {
    if (golden.name == name) return golden;
  }
  ADD_FAILURE() << "no golden " << name;
  return {};
}

// How far rows of logits lie apart, by the length of their difference over their own, and how many
// have the same maximum.
struct Distance {
  double worst = 0;
  double median = 0;
  double same_choice = 0;
};
Distance Compare(const std::vector<float>& got, const std::vector<float>& wanted,
                 std::int32_t vocab) {
  const auto width = static_cast<std::size_t>(vocab);
  std::vector<double> distances;
  double same = 0;
  for (std::size_t at = 0; at < wanted.size(); at += width) {
    const auto a = std::span(got).subspan(at, width);
    const auto b = std::span(wanted).subspan(at, width);
    double difference = 0;
    double length = 0;
    for (std::size_t i = 0; i < width; ++i) {
      difference += std::pow(double{a[i]} - b[i], 2);
      length += std::pow(double{b[i]}, 2);
    }
    distances.push_back(std::sqrt(difference / length));
    const auto best_a = std::max_element(a.begin(), a.end()) - a.begin();
    const auto best_b = std::max_element(b.begin(), b.end()) - b.begin();
    same += best_a == best_b ? 1 : 0;
  }
  std::sort(distances.begin(), distances.end());
  return {distances.back(), distances[distances.size() / 2],
          same / static_cast<double>(distances.size())};
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class CudaCublasModel : public WithCublas {
 protected:
  std::unique_ptr<Backend> WithLibrary(std::int32_t least_rows = kLeastRows, bool graphs = true) {
    emulation::Start({});
    auto backend = CudaBackend::Create({.threads = 2,
                                        .graphs = graphs,
                                        .library = {.use = true,
                                                    .library = library(),
                                                    .least_rows = least_rows,
                                                    .workspace_bytes = std::int64_t{64} << 10}});
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }

  // Of the CPU's logits and of cuBLAS's.
  struct ToTransformers {
    Distance exact;
    Distance library;
  };
  ToTransformers DistancesOf(const Golden& golden) {
    return DistancesOf(golden, Open(golden.name));
  }
  ToTransformers DistancesOf(const Golden& golden, const std::shared_ptr<const GgufFile>& file) {
    Model cpu(Cpu(), file);
    Model cuda(WithLibrary(), file);
    const auto got = cuda.Step(golden.prompt);
    EXPECT_TRUE(got.ok()) << got.status() << emulation::CublasRefusal();
    if (!got.ok()) return {};
    return {Compare(*cpu.Step(golden.prompt), golden.logits, golden.vocab),
            Compare(*got, golden.logits, golden.vocab)};
  }
};

// A factor that is rounded to p bits errs by up to 2^-p of itself, and by 0.4 of that in the root
// mean square; so does a sum of products of random signs. A token passes 15 products (two layers of
// seven, and the head), which err independently, so its logits err by 0.4 * sqrt(15) = 1.6 times
// 2^-p of their length, and a worst row by three times a typical one. The CPU's own rounding of
// float32 is nothing beside it.
TEST_F(CudaCublasModel, FloatModelsLieAsFarFromTheCpuAsRoundingTheirActivationsTakesThem) {
  for (const auto& [name, bits] : {std::pair("llama-bf16", 8), std::pair("qwen3-f16", 11)}) {
    const Golden golden = GoldenOf(name);
    Model cpu(Cpu(), name);
    Model cuda(WithLibrary(), name);
    const auto wanted = cpu.Step(golden.prompt);
    const auto got = cuda.Step(golden.prompt);
    ASSERT_TRUE(got.ok()) << got.status() << emulation::CublasRefusal();
    const Distance distance = Compare(*got, *wanted, golden.vocab);
    const double typical = 0.4 * std::sqrt(15.0) * std::ldexp(1.0, -bits);
    EXPECT_LT(distance.median, 1.5 * typical) << name;
    EXPECT_LT(distance.worst, 3 * typical) << name;
    EXPECT_GT(distance.median, typical / 10) << name << ": was the library used?";
    EXPECT_GE(distance.same_choice, 0.9) << name;
  }
}

// BF16 keeps more of most activations than int8 with a scale for 32 or 256 of them, so logits come
// closer to those of transformers, which rounds no activations.
TEST_F(CudaCublasModel, DenseModelsComeCloserToTransformersThanWithInt8Activations) {
  for (const char* name : {kDenseModel, "qwen3-iq4_xs", "llama-q4_1"}) {
    const ToTransformers distances = DistancesOf(GoldenOf(name));
    EXPECT_LT(distances.library.median, distances.exact.median / 2) << name;
    EXPECT_LT(distances.library.worst, distances.exact.worst) << name;
    EXPECT_GE(distances.library.same_choice, 0.9) << name;
  }
}

// Of q, k and v the library takes two, of gate and up one; the exact kernels and what follows the
// product find all of them.
TEST_F(CudaCublasModel, SharesProductsWithExactKernels) {
  const Golden golden = GoldenOf(kDenseModel);
  for (const char* part : {"attn_k.weight", "ffn_up"}) {
    const auto file = std::make_shared<WithF32>(Open(golden.name), part);
    const ToTransformers distances = DistancesOf(golden, file);
    EXPECT_LT(distances.library.median, distances.exact.median / 2) << part;
    EXPECT_LT(distances.library.worst, distances.exact.worst) << part;
  }
}

// Experts keep activations in int8, and their choice flips at small differences, on either side.
TEST_F(CudaCublasModel, MixturesOfExpertsLieAboutAsFarFromTransformersAsTheCpu) {
  for (const char* name : {kMoeModel, "qwen3moe-q2_k"}) {
    const ToTransformers distances = DistancesOf(GoldenOf(name));
    EXPECT_LT(distances.library.median, 1.5 * distances.exact.median) << name;
    EXPECT_GE(distances.library.same_choice, distances.exact.same_choice - 0.1) << name;
  }
}

TEST_F(CudaCublasModel, StepsThatAreNotLargeKeepTheCpusBits) {
  for (const bool graphs : {true, false}) {
    for (const char* name : {kMoeModel, graphs ? kDenseModel : "qwen3-f16"}) {
      const Golden golden = GoldenOf(name);
      Model cpu(Cpu(), name);
      Model cuda(WithLibrary(25, graphs), name);  // the largest graph below is for 24 tokens
      for (const std::ptrdiff_t count : {1, 24, 3}) {
        const std::vector<std::int32_t> tokens(golden.prompt.begin(),
                                               golden.prompt.begin() + count);
        EXPECT_TRUE(SameBits(*cpu.Step(tokens), *cuda.Step(tokens))) << name << ", " << count;
      }
    }
  }
}

// The next larger graph would have as many rows as the library takes.
TEST_F(CudaCublasModel, AStepWhoseGraphWouldBeLargeIsNone) {
  const Golden golden = GoldenOf(kDenseModel);
  Model cpu(Cpu(), kDenseModel);
  Model cuda(WithLibrary(32), kDenseModel);
  const std::vector<std::int32_t> tokens(golden.prompt.begin(), golden.prompt.begin() + 31);
  EXPECT_TRUE(SameBits(*cpu.Step(tokens), *cuda.Step(tokens)));
}

TEST_F(CudaCublasModel, AnF32ModelKeepsTheCpusBitsInLargeSteps) {
  const Golden golden = GoldenOf("qwen3-f32");
  Model cpu(Cpu(), golden.name);
  Model cuda(WithLibrary(), golden.name);
  EXPECT_TRUE(SameBits(*cpu.Step(golden.prompt), *cuda.Step(golden.prompt)));
}

TEST_F(CudaCublasModel, SaysThatRowsDependOnTheirNeighbours) {
  const auto backend = WithLibrary();
  EXPECT_FALSE(backend->batch_invariant());
  EXPECT_THAT(backend->isa(), HasSubstr(", cuBLAS 13"));
  const auto exact = CudaBackend::Create({}).value();
  EXPECT_TRUE(exact->batch_invariant());
  EXPECT_THAT(exact->isa(), ::testing::Not(HasSubstr("cuBLAS")));
}

// As a server ends: by a thread that has chosen no device.
TEST_F(CudaCublasModel, EndsOnItsOwnDeviceWhateverThreadEndsIt) {
  emulation::Start({.devices = 2});
  std::thread([this] {
    auto made = CudaBackend::Create({.device = 1, .library = {.use = true, .library = library()}});
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(emulation::CublasHandles(), 1);
    std::thread([&made] { made->reset(); }).join();
    EXPECT_EQ(emulation::CublasHandles(), 0);
  }).join();
  emulation::Start({});
}

TEST_F(CudaCublasModel, IsNotMadeWithoutTheLibrary) {
  const auto backend = CudaBackend::Create(
      {.library = {.use = true, .library = "libcublas-that-is-not-there.so.13"}});
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(backend.status().message()),
              HasSubstr("cuBLAS of CUDA 13 does not load"));
}

TEST_F(CudaCublasModel, ALargeStepTakesNoMemoryThatWasNotPlanned) {
  const Golden golden = GoldenOf(kDenseModel);
  auto backend = WithLibrary();
  const std::size_t before = emulation::DeviceBytes();
  const Backend* const planner = backend.get();
  Model cuda(std::move(backend), kDenseModel);
  const std::size_t prepared = emulation::DeviceBytes();
  EXPECT_EQ(static_cast<std::int64_t>(prepared - before),
            planner->weight_bytes() + cuda.scratch_bytes() + cuda.cache_bytes());
  ASSERT_TRUE(cuda.Step(golden.prompt).ok());
  EXPECT_EQ(emulation::DeviceBytes(), prepared);
  EXPECT_EQ(emulation::CublasProducts(), 15);
}

TEST_F(CudaCublasModel, AFailureOfTheLibraryIsTheEndOfTheDevice) {
  const Golden golden = GoldenOf(kMoeModel);
  Model cuda(WithLibrary(), kMoeModel);
  emulation::FailCublasLater(emulation::CublasCall::kGemm, 3, CUBLAS_STATUS_EXECUTION_FAILED);
  const absl::Status status = cuda.Step(golden.prompt).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(std::string(status.message()),
            "CUDA: cuBLAS: multiplying: CUBLAS_STATUS_EXECUTION_FAILED");
}

}  // namespace
}  // namespace millrace::cuda

// Products by cuBLAS on the (emulated) GPU against a double reference, within a bound that follows
// from how their inputs are rounded and their sums are made; the library itself, and what goes
// wrong with it.
#include "runtime/backend/cuda/cublas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/activations.h"
#include "runtime/backend/cuda/library_plan.h"
#include "runtime/backend/cuda/library_products.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/test_cublas.h"
#include "tests/cuda/test_device.h"
#include "tests/kernels/random_weights.h"

namespace millrace::cuda {
namespace {

using ::millrace::testing::DeviceArray;
using ::millrace::testing::WithCublas;
using ::testing::HasSubstr;

// ---- The library -------------------------------------------------------------------------------

std::string WhyNot(const std::string& library) {
  const auto opened = Cublas::Open(library);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(opened.status().message());
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

TEST(CudaCublas, SaysInOneLineWhyThereIsNone) {
  EXPECT_THAT(WhyNot("libcublas-that-is-not-there.so.13"),
              HasSubstr("cuBLAS of CUDA 13 does not load: libcublas-that-is-not-there.so.13"));
  EXPECT_THAT(WhyNot("libm.so.6"), HasSubstr("libm.so.6 has no cublasGetProperty"));
}

TEST(CudaCublas, RefusesAVersionThatIsTooOld) {
  EXPECT_THAT(WhyNot(emulation::CublasLibrary({.major = 12, .minor = 9})),
              HasSubstr("is cuBLAS 12.9; want that of CUDA 13"));
}

TEST(CudaCublas, GivesItsHandleBack) {
  const std::string library = emulation::CublasLibrary();
  {
    const auto cublas = Cublas::Open(library);
    ASSERT_TRUE(cublas.ok()) << cublas.status();
    EXPECT_EQ((*cublas)->version(), "13.1");
    EXPECT_EQ(emulation::CublasHandles(), 1);
  }
  EXPECT_EQ(emulation::CublasHandles(), 0);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// NVIDIA's own, where it is installed: that it has all the names; it needs a GPU for a handle.
TEST(CudaCublas, FindsEveryFunctionInTheRealLibrary) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer would report what NVIDIA's library does";
  const auto cublas = Cublas::Open(kCublasName);
  if (absl::IsFailedPrecondition(cublas.status()) &&
      cublas.status().message().find("cannot open shared object") != std::string::npos) {
    GTEST_SKIP() << cublas.status().message();
  }
  if (cublas.ok()) return;
  EXPECT_EQ(cublas.status().code(), absl::StatusCode::kUnavailable) << cublas.status();
  EXPECT_THAT(std::string(cublas.status().message()),
              HasSubstr("cuBLAS: making a handle: CUBLAS_"));
}

TEST(CudaCublas, EveryFailureIsOneOfTheDevice) {
  using emulation::CublasCall;
  const std::string library = emulation::CublasLibrary();
  emulation::FailCublasLater(CublasCall::kCreate, 0, CUBLAS_STATUS_NOT_INITIALIZED);
  const absl::Status none = Cublas::Open(library).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(none.message()), HasSubstr("CUBLAS_STATUS_NOT_INITIALIZED"));

  const auto cublas = Cublas::Open(library).value();
  const Stream stream = MakeStream().value();
  DeviceArray<std::byte> workspace(4096);
  for (const CublasCall call :
       {CublasCall::kSetStream, CublasCall::kSetWorkspace, CublasCall::kSetMathMode}) {
    emulation::FailCublasLater(call, 0, CUBLAS_STATUS_EXECUTION_FAILED);
    const absl::Status status = cublas->Use(stream.get(), workspace.data(), 4096);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("CUBLAS_STATUS_EXECUTION_FAILED"));
  }
  emulation::FailCublasLater(CublasCall::kSetStream, 0, CUBLAS_STATUS_ALLOC_FAILED);
  EXPECT_EQ(cublas->Use(stream.get(), workspace.data(), 4096).code(),
            absl::StatusCode::kResourceExhausted);
}

// ---- Which products are its own ----------------------------------------------------------------

TEST(CudaLibraryPlan, TakesLargeStepsAlone) {
  EXPECT_FALSE(PlanLibrary(WeightForm::kQ4_K, 511, 0).use);
  EXPECT_TRUE(PlanLibrary(WeightForm::kQ4_K, 512, 0).use);
  EXPECT_FALSE(PlanLibrary(WeightForm::kBF16, kMaxGraphTokens, 0).use);
  EXPECT_TRUE(PlanLibrary(WeightForm::kBF16, kMaxGraphTokens + 1, 0).use);
  EXPECT_TRUE(PlanLibrary(WeightForm::kF16, 4096, 0).use);
  EXPECT_FALSE(PlanLibrary(WeightForm::kF32, 4096, 0).use);
  for (const WeightForm form : {WeightForm::kQ4_K, WeightForm::kF16, WeightForm::kF32}) {
    for (const std::int32_t rows : {1, 256, 257, 4096}) {
      EXPECT_STRNE(PlanLibrary(form, rows, 0).why, "");
    }
  }
}

TEST(CudaLibraryPlan, NoStepThatIsAGraphHasItsProducts) {
  EXPECT_GT(FewestLibraryRows(0), kMaxGraphTokens);
}

// ---- Its results -------------------------------------------------------------------------------

struct ProductCase {
  std::vector<DType> dtypes;  // of each matrix
  std::int32_t n = 40;
  std::int64_t k = 256;
  std::int32_t rows = 20;
  bool bias = false;
  bool residual = false;
  float size = 1.0F;  // of activations
  std::int64_t part_bytes = std::int64_t{32} << 20;
};

// One matrix with its operands on the host and on the device.
struct Operand {
  std::vector<float> weights;  // [n][k], what the file's values stand for
  std::unique_ptr<DeviceArray<std::byte>> laid_out;
  std::vector<float> bias, before;
  std::unique_ptr<DeviceArray<float>> d_bias, out;
};

class CudaLibraryProducts : public WithCublas {
 protected:
  static constexpr std::int64_t kPadding = 5;  // floats behind each row of results

  void Start(const ProductCase& c) {
    emulation::Start({});
    case_ = c;
    stream_ = MakeStream().value();
    std::normal_distribution<float> normal(0.0F, c.size);
    x_.resize(static_cast<std::size_t>(c.rows * c.k));
    for (float& value : x_) value = normal(random_);
    for (std::size_t m = 0; m < c.dtypes.size(); ++m) operands_.push_back(MakeOperand(c.dtypes[m]));
    library_ = LibraryProducts::Open({.library = library(),
                                      .least_rows = 8,
                                      .part_bytes = c.part_bytes,
                                      .workspace_bytes = std::int64_t{64} << 10})
                   .value();
    ProgramDims dims;
    dims.num_heads = 1;
    dims.head_dim = static_cast<std::int32_t>(c.k);
    dims.hidden = static_cast<std::int32_t>(std::max<std::int64_t>(c.n, c.k));
    dims.num_experts = 8;
    BackendLimits limits;
    limits.max_tokens = c.rows;
    limits.max_logit_rows = 1;
    std::vector<const std::byte*> weights;
    for (Operand& operand : operands_) weights.push_back(operand.laid_out->data());
    const absl::Status prepared = library_->Prepare(dims, limits, weights, stream_.get());
    ASSERT_TRUE(prepared.ok()) << prepared;
    PlaceRows();
  }

  // The copies of all operands are then done, for which the stream would not wait.
  void PlaceRows() {
    d_x_ = std::make_unique<DeviceArray<std::byte>>(Rows());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

  Operand MakeOperand(DType dtype) {
    const std::int64_t row_bytes = RowBytes(dtype, case_.k);
    std::vector<std::byte> file(static_cast<std::size_t>(case_.n * row_bytes));
    millrace::testing::FillWeights(dtype, file.data(), case_.n * case_.k, random_);
    std::vector<std::byte> laid_out(
        static_cast<std::size_t>(LaidOutBytes(dtype, case_.n, case_.k)));
    LayOutWeights(dtype, file.data(), case_.n, case_.k, laid_out.data());
    Operand operand;
    operand.weights.resize(static_cast<std::size_t>(case_.n * case_.k));
    for (std::int64_t i = 0; i < case_.n; ++i) {
      DequantizeRow(dtype, file.data() + i * row_bytes, case_.k,
                    &operand.weights[Size(i * case_.k)]);
    }
    operand.laid_out = std::make_unique<DeviceArray<std::byte>>(laid_out);
    std::normal_distribution<float> normal(0.0F, 1.0F);
    operand.bias.resize(Size(case_.n));
    operand.before.resize(Size(case_.rows * (case_.n + kPadding)));
    for (float& value : operand.bias) value = normal(random_);
    for (float& value : operand.before) value = normal(random_);
    operand.d_bias = std::make_unique<DeviceArray<float>>(operand.bias);
    operand.out = std::make_unique<DeviceArray<float>>(operand.before);
    return operand;
  }

  // Activations as kernels write them; what has no meaning is NaN.
  std::vector<std::byte> Rows() const {
    const std::int64_t bytes = ActivationLayoutOf(ActivationFormat::kF32, case_.k).row_bytes;
    std::vector<std::byte> out(Size(case_.rows * bytes), std::byte{0xFF});
    for (std::int64_t r = 0; r < case_.rows; ++r) {
      std::memcpy(out.data() + r * bytes, &x_[Size(r * case_.k)], Size(4 * case_.k));
    }
    return out;
  }

  MatmulParams Params() {
    MatmulParams params;
    params.k = case_.k;
    params.max_rows = case_.rows;
    params.num_matrices = static_cast<int>(operands_.size());
    params.chained = true;
    for (std::size_t m = 0; m < operands_.size(); ++m) {
      MatmulMatrix& matrix = params.matrices[m];
      matrix.w = operands_[m].laid_out->data();
      matrix.form = FormOf(case_.dtypes[m]);
      matrix.n = case_.n;
      matrix.x = d_x_->data();
      matrix.y_stride = case_.n + kPadding;
      if (case_.bias) matrix.bias = operands_[m].d_bias->data();
      (case_.residual ? matrix.add_to : matrix.y) = operands_[m].out->data();
    }
    return params;
  }

  // How far a result may lie from the double reference (docs/numerics.md, "Products by cuBLAS"):
  //   BF16: each rounded input errs by 2^-8 of itself; of BF16 weights only activations are
  //   rounded. F16:  weights are what they are; an activation errs by 2^-11 of itself, or by 2^-25
  //   of the
  //         row's scale below F16's normal numbers.
  // A float32 sum of k terms, in any order, by adders that may cut off instead of rounding, errs by
  // k times 2^-23 of the sum of magnitudes; the additions afterwards by 2^-24 of their results.
  struct Reference {
    double value = 0;
    double bound = 0;
  };
  Reference ReferenceFor(std::size_t m, std::int64_t row, std::int64_t i) const {
    const Operand& operand = operands_[m];
    const HalfType type = HalfTypeOf(FormOf(case_.dtypes[m]));
    double sum = 0;
    double magnitudes = 0;
    double weights = 0;
    double most = 0;
    for (std::int64_t v = 0; v < case_.k; ++v) {
      const double w = operand.weights[Size(i * case_.k + v)];
      const double x = x_[Size(row * case_.k + v)];
      sum += w * x;
      magnitudes += std::abs(w * x);
      weights += std::abs(w);
      most = std::max(most, std::abs(x));
    }
    const double sums = static_cast<double>(case_.k) * 0x1p-23;
    double inputs = 0;
    double small = 0;
    if (type == HalfType::kF16) {
      inputs = 0x1p-11;
      small = weights * 0x1p-25 * (most * 0x1p-14);
    } else {
      inputs = case_.dtypes[m] == DType::kBF16 ? 0x1p-8 : 2 * 0x1p-8 + 0x1p-16;
    }
    Reference out;
    out.value = sum;
    out.bound = magnitudes * (inputs + sums * (1 + inputs)) + small;
    if (case_.bias) out.value += operand.bias[Size(i)];
    const double before = operand.before[Size(row * (case_.n + kPadding) + i)];
    if (case_.residual) out.value += before;
    out.bound +=
        2 * 0x1p-24 *
        (std::abs(out.value) + magnitudes + std::abs(before) + std::abs(operand.bias[Size(i)]));
    return out;
  }

  void Check(const ProductCase& c) {
    SCOPED_TRACE(::testing::Message()
                 << Info(c.dtypes[0]).name << ", n " << c.n << ", k " << c.k << ", rows " << c.rows
                 << ", size " << c.size << (c.bias ? ", bias" : "")
                 << (c.residual ? ", residual" : ""));
    operands_.clear();
    ASSERT_NO_FATAL_FAILURE(Start(c));
    MatmulParams params = Params();
    ASSERT_EQ(library_->Take(&params, stream_.get()), cudaSuccess) << library_->status();
    EXPECT_EQ(params.num_matrices, 0);
    ASSERT_EQ(cudaStreamSynchronize(stream_.get()), cudaSuccess);
    for (std::size_t m = 0; m < operands_.size(); ++m) Compare(m);
  }

  void Compare(std::size_t m) {
    const std::vector<float> out = operands_[m].out->Read();
    for (std::int64_t row = 0; row < case_.rows; ++row) {
      for (std::int64_t i = 0; i < case_.n + kPadding; ++i) {
        const std::size_t at = Size(row * (case_.n + kPadding) + i);
        if (i >= case_.n) {
          ASSERT_EQ(out[at], operands_[m].before[at]) << "behind row " << row;
          continue;
        }
        const Reference wanted = ReferenceFor(m, row, i);
        ASSERT_LE(std::abs(out[at] - wanted.value), wanted.bound)
            << "matrix " << m << ", row " << row << ", output " << i << ": " << out[at] << ", not "
            << wanted.value;
      }
    }
  }

  static std::size_t Size(std::int64_t size) { return static_cast<std::size_t>(size); }

  std::mt19937 random_{20261129};  // the seed of every case
  ProductCase case_;
  Stream stream_;
  std::vector<float> x_;  // [rows][k]
  std::vector<Operand> operands_;
  std::unique_ptr<DeviceArray<std::byte>> d_x_;
  std::unique_ptr<LibraryProducts> library_;
};

constexpr DType kLargeTypes[] = {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,   DType::kQ8_0,
                                 DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,
                                 DType::kQ2_K, DType::kQ3_K, DType::kIQ4_NL, DType::kIQ4_XS,
                                 DType::kF16,  DType::kBF16};

TEST_F(CudaLibraryProducts, AreWithinTheBoundForEveryType) {
  for (const DType dtype : kLargeTypes) Check({.dtypes = {dtype}, .k = 512});
}

TEST_F(CudaLibraryProducts, AreWithinTheBoundForRaggedShapes) {
  for (const std::int32_t rows : {8, 9, 47, 48, 49, 100}) {
    Check({.dtypes = {DType::kQ4_K}, .n = 17, .k = 256, .rows = rows});
    Check({.dtypes = {DType::kF16}, .n = 17, .k = 131, .rows = rows});
  }
}

TEST_F(CudaLibraryProducts, AddTheBiasAndTheResidual) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kQ8_0}) {
    Check({.dtypes = {dtype}, .bias = true});
    Check({.dtypes = {dtype}, .residual = true});
    Check({.dtypes = {dtype}, .bias = true, .residual = true});
  }
}

// 65 504 is the largest F16.
TEST_F(CudaLibraryProducts, KeepActivationsThatF16WouldNotHold) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kQ6_K}) {
    for (const float size : {1e6F, 1e-6F}) {
      Check({.dtypes = {dtype}, .size = size});
      Check({.dtypes = {dtype}, .residual = true, .size = size});
    }
  }
}

TEST_F(CudaLibraryProducts, TakeAMatrixInPartsWhereScratchIsSmaller) {
  for (const DType dtype : {DType::kF16, DType::kQ4_K}) {
    for (const bool residual : {false, true}) {
      Check({.dtypes = {dtype}, .n = 75, .residual = residual, .part_bytes = 2 * 32 * 256});
    }
  }
}

TEST_F(CudaLibraryProducts, ShareActivationsAmongMatricesOfAnyTypes) {
  Check({.dtypes = {DType::kQ4_K, DType::kF16, DType::kQ6_K, DType::kBF16}, .bias = true});
}

TEST_F(CudaLibraryProducts, LeaveWhatIsNotTheirs) {
  Start({.dtypes = {DType::kQ4_K, DType::kF32, DType::kBF16}});
  MatmulParams params = Params();
  const std::byte* const of_f32 = params.matrices[1].w;
  ASSERT_EQ(library_->Take(&params, stream_.get()), cudaSuccess);
  ASSERT_EQ(params.num_matrices, 1);
  EXPECT_EQ(params.matrices[0].w, of_f32);

  params = Params();
  params.max_rows = 7;  // fewer than the least
  ASSERT_EQ(library_->Take(&params, stream_.get()), cudaSuccess);
  EXPECT_EQ(params.num_matrices, 3);

  params = Params();
  params.matrices[0].w += 16;  // weights that nobody named
  EXPECT_FALSE(library_->Serves(params.matrices[0].w, WeightForm::kQ4_K, 20));
  ASSERT_EQ(cudaStreamSynchronize(stream_.get()), cudaSuccess);
}

TEST_F(CudaLibraryProducts, AFaultOfOneRowStaysThere) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kQ4_K}) {
    operands_.clear();
    Start({.dtypes = {dtype}});
    x_[Size(3 * case_.k + 17)] = std::numeric_limits<float>::quiet_NaN();
    x_[Size(5 * case_.k + 18)] = std::numeric_limits<float>::infinity();
    PlaceRows();
    MatmulParams params = Params();
    ASSERT_EQ(library_->Take(&params, stream_.get()), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_.get()), cudaSuccess);
    const std::vector<float> out = operands_[0].out->Read();
    for (std::int64_t row = 0; row < case_.rows; ++row) {
      for (std::int64_t i = 0; i < case_.n; ++i) {
        EXPECT_EQ(std::isfinite(out[Size(row * (case_.n + kPadding) + i)]), row != 3 && row != 5)
            << "row " << row << ", output " << i;
      }
    }
  }
}

TEST_F(CudaLibraryProducts, SayWhyTheLibraryFailed) {
  Start({.dtypes = {DType::kQ4_K}});
  emulation::FailCublasLater(emulation::CublasCall::kGemm, 0, CUBLAS_STATUS_EXECUTION_FAILED);
  MatmulParams params = Params();
  EXPECT_NE(library_->Take(&params, stream_.get()), cudaSuccess);
  EXPECT_EQ(library_->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(std::string(library_->status().message()),
            "CUDA: cuBLAS: multiplying: CUBLAS_STATUS_EXECUTION_FAILED");
}

TEST_F(CudaLibraryProducts, TakeNoMemoryWhereStepsAreTooSmallForThem) {
  const auto products = LibraryProducts::Open({.library = library()}).value();
  ProgramDims dims;
  dims.num_heads = 32;
  dims.head_dim = 128;
  dims.hidden = 2048;
  dims.vocab = 151'936;
  dims.num_experts = 128;
  BackendLimits limits;
  limits.max_tokens = 256;
  EXPECT_EQ(products->Bytes(dims, limits), 0);
  limits.max_tokens = 4096;
  const std::int64_t bytes = products->Bytes(dims, limits);
  // Weights and workspace, 16-bit rows of 4 096 values, and rows of floats to be added.
  const std::int64_t mebibyte = std::int64_t{1} << 20;
  EXPECT_GE(bytes, (16 + 32 + 32 + 32) * mebibyte);
  EXPECT_LE(bytes, (16 + 32 + 32 + 32 + 1) * mebibyte);
  // A large vocabulary comes in parts.
  limits.max_logit_rows = 4096;
  EXPECT_EQ(products->Bytes(dims, limits), bytes + 16 * mebibyte);
}

}  // namespace
}  // namespace millrace::cuda

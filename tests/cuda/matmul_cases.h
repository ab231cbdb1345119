// Products on the (emulated) GPU against the CPU's scalar level, bit for bit: operands, the way
// rows are chosen, what is added, and what must stay as it was. Test code; not thread-safe.
#ifndef MILLRACE_TESTS_CUDA_MATMUL_CASES_H_
#define MILLRACE_TESTS_CUDA_MATMUL_CASES_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/quantize.h"
#include "kernels/cuda/activations.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/weight_layout.h"
#include "tests/cuda/activation_rows.h"
#include "tests/cuda/device_array.h"
#include "tests/kernels/random_weights.h"

namespace millrace::testing {

struct MatmulCase {
  std::vector<DType> dtypes;    // of each matrix
  std::vector<std::int32_t> n;  // rows of each
  std::int64_t k = 256;
  std::int32_t rows = 1;                     // dense rows, or pairs
  std::int32_t experts = 0;                  // pairs, each with its own expert
  std::vector<std::int32_t> rows_of_expert;  // sorted pairs: rows of each expert
  bool gather = false;                       // permuted rows of x and of y
  std::int32_t rows_per_x = 1;               // pairs of a token share its row
  bool bias = false;
  bool residual = false;
  bool output = true;  // y, which may be absent where there is a residual
  bool spare = true;   // the launch is for more rows than there are
  std::uint32_t seed = 1;
};

inline void PrintTo(const MatmulCase& c, std::ostream* out) {
  for (std::size_t i = 0; i < c.dtypes.size(); ++i) {
    *out << Info(c.dtypes[i]).name << " n " << c.n[i] << ", ";
  }
  *out << "k " << c.k << ", rows " << c.rows << ", experts " << c.experts << ", seed " << c.seed;
  for (const std::int32_t rows : c.rows_of_expert) *out << " " << rows;
}

// What a product's weights and activations are made of; NaNs and extremes come by changing them.
class MatmulOperands {
 public:
  MatmulOperands(DType dtype, std::int32_t n, std::int64_t k, std::int32_t experts,
                 std::int64_t x_count, std::mt19937* rng)
      : dtype_(dtype),
        n_(n),
        k_(k),
        experts_(std::max(1, experts)),
        x_count_(x_count),
        file_(Size(experts_ * n * RowBytes(dtype, k))),
        x_(Size(x_count * x_bytes())) {
    FillWeights(dtype, file_.data(), std::int64_t{experts_} * n * k, *rng);
    std::normal_distribution<float> normal(0.0F, 1.0F);
    for (std::int64_t r = 0; r < x_count; ++r) {
      std::vector<float> row(Size(k));
      for (float& value : row) value = normal(*rng);
      SetActivations(r, row);
    }
  }

  DType dtype() const { return dtype_; }
  ActivationFormat format() const { return Info(dtype_).activation; }
  std::byte* weight_row(std::int32_t expert, std::int64_t i) {
    return file_.data() + (std::int64_t{expert} * n_ + i) * RowBytes(dtype_, k_);
  }
  void SetActivations(std::int64_t row, const std::vector<float>& values) {
    cpu::SelectQuantize(format(), cpu::Isa::kScalar)
        .fn(values.data(), k_, x_.data() + row * x_bytes());
  }

  std::int64_t expert_bytes() const { return cuda::LaidOutBytes(dtype_, n_, k_); }
  std::vector<std::byte> LaidOut() {
    std::vector<std::byte> out(Size(experts_ * expert_bytes()));
    for (std::int32_t e = 0; e < experts_; ++e) {
      cuda::LayOutWeights(dtype_, weight_row(e, 0), n_, k_, out.data() + e * expert_bytes());
    }
    return out;
  }
  // What has no meaning in a row is 0xFF: NaNs.
  std::vector<std::byte> DeviceRows() const {
    const std::int64_t bytes = cuda::ActivationLayoutOf(format(), k_).row_bytes;
    std::vector<std::byte> out(Size(x_count_ * bytes), std::byte{0xFF});
    for (std::int64_t r = 0; r < x_count_; ++r) {
      ToDeviceRow(format(), k_, x_.data() + r * x_bytes(), out.data() + r * bytes);
    }
    return out;
  }

  // [n] by the scalar level.
  std::vector<float> Product(std::int32_t expert, std::int64_t x_row) {
    std::vector<float> y(Size(n_));
    cpu::MatmulParams params;
    params.w = weight_row(expert, 0);
    params.w_tile_bytes = RowBytes(dtype_, k_);
    params.k = k_;
    params.n_end = n_;
    params.x = x_.data() + x_row * x_bytes();
    params.x_row_bytes = x_bytes();
    params.m = 1;
    params.y = y.data();
    params.y_stride = n_;
    cpu::SelectMatmul(dtype_, cpu::Isa::kScalar).fn(params);
    return y;
  }

 private:
  static std::size_t Size(std::int64_t size) { return static_cast<std::size_t>(size); }
  std::int64_t x_bytes() const { return cpu::ActivationRowBytes(format(), k_); }

  DType dtype_;
  std::int32_t n_;
  std::int64_t k_;
  std::int32_t experts_;
  std::int64_t x_count_;
  std::vector<std::byte> file_;
  std::vector<std::byte> x_;
};

inline constexpr std::int32_t kSpareRows = 3;  // of y, which nobody writes
inline constexpr std::int32_t kPadding = 5;    // floats behind each row of y

// A product with all that the device needs.
class MatmulRun {
 public:
  using Launch = std::function<cudaError_t(const cuda::MatmulParams&)>;

  explicit MatmulRun(const MatmulCase& c) : case_(c), rng_(c.seed) {
    rows_ = c.rows_of_expert.empty()
                ? c.rows
                : std::accumulate(c.rows_of_expert.begin(), c.rows_of_expert.end(), 0);
    const std::int32_t x_count = rows_ + 2;
    for (std::size_t i = 0; i < c.dtypes.size(); ++i) {
      operands.emplace_back(c.dtypes[i], c.n[i], c.k, num_experts(), x_count, &rng_);
    }
    ChooseRows(x_count);
  }

  std::vector<MatmulOperands> operands;

  // Runs and compares every matrix's outputs.
  void Check(const Launch& launch) {
    std::vector<Device> devices(operands.size());
    cuda::MatmulParams params = Params();
    for (std::size_t i = 0; i < operands.size(); ++i) Place(i, &devices[i], &params);
    DeviceArray<std::int32_t> count(std::vector<std::int32_t>{rows_ / case_.rows_per_x});
    DeviceArray<std::int32_t> experts(NotEmpty(experts_));
    DeviceArray<std::int32_t> offsets(NotEmpty(offsets_));
    DeviceArray<std::int32_t> x_rows(NotEmpty(x_rows_));
    DeviceArray<std::int32_t> y_rows(NotEmpty(y_rows_));
    if (case_.rows_of_expert.empty()) {
      params.count = count.data();
      params.rows_per_count = case_.rows_per_x;
    } else {
      params.expert_offsets = offsets.data();
      params.num_experts = num_experts();
    }
    if (case_.experts > 0) params.experts = experts.data();
    if (case_.gather) {
      params.x_rows = x_rows.data();
      params.y_rows = y_rows.data();
    }
    ASSERT_EQ(launch(params), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (std::size_t i = 0; i < operands.size(); ++i) Compare(i, &devices[i]);
  }

 private:
  struct Device {
    std::unique_ptr<DeviceArray<std::byte>> w, x;
    std::unique_ptr<DeviceArray<float>> y, bias, add_to;
    std::vector<float> bias_values, added_to;
  };

  static std::vector<std::int32_t> NotEmpty(std::vector<std::int32_t> values) {
    if (values.empty()) values.push_back(-1);
    return values;
  }
  std::int32_t num_experts() const {
    return case_.rows_of_expert.empty() ? case_.experts
                                        : static_cast<std::int32_t>(case_.rows_of_expert.size());
  }

  void ChooseRows(std::int32_t x_count) {
    std::uniform_int_distribution<std::int32_t> any_expert(0, std::max(1, case_.experts) - 1);
    for (std::int32_t j = 0; j < rows_ && case_.experts > 0; ++j) {
      experts_.push_back(any_expert(rng_));
    }
    offsets_.push_back(0);
    for (const std::int32_t rows : case_.rows_of_expert) offsets_.push_back(offsets_.back() + rows);
    if (!case_.gather) return;
    std::uniform_int_distribution<std::int32_t> any_x(0, x_count - 1);
    for (std::int32_t j = 0; j < rows_; ++j) x_rows_.push_back(any_x(rng_));
    y_rows_.resize(static_cast<std::size_t>(rows_ + kSpareRows));
    std::iota(y_rows_.begin(), y_rows_.end(), 0);
    std::shuffle(y_rows_.begin(), y_rows_.end(), rng_);
    y_rows_.resize(static_cast<std::size_t>(rows_));
  }

  cuda::MatmulParams Params() const {
    cuda::MatmulParams params;
    params.num_matrices = static_cast<int>(operands.size());
    params.k = case_.k;
    params.max_rows = rows_ + (case_.spare ? 2 * case_.rows_per_x : 0);
    params.rows_per_x = case_.rows_per_x;
    params.chained = true;
    return params;
  }

  std::int32_t ExpertOf(std::int32_t j) const {
    if (case_.experts > 0) return experts_[static_cast<std::size_t>(j)];
    std::int32_t e = 0;
    while (!case_.rows_of_expert.empty() && offsets_[static_cast<std::size_t>(e) + 1] <= j) ++e;
    return e;
  }
  std::int32_t XRow(std::int32_t j) const {
    return case_.gather ? x_rows_[static_cast<std::size_t>(j)] : j / case_.rows_per_x;
  }
  std::int32_t YRow(std::int32_t j) const {
    return case_.gather ? y_rows_[static_cast<std::size_t>(j)] : j;
  }
  std::size_t YSize(std::size_t i) const {
    return static_cast<std::size_t>((rows_ + kSpareRows) * (case_.n[i] + kPadding));
  }

  std::vector<float> RandomValues(std::size_t count) {
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::vector<float> values(count);
    for (float& value : values) value = normal(rng_);
    return values;
  }

  void Place(std::size_t i, Device* device, cuda::MatmulParams* params) {
    MatmulOperands& o = operands[i];
    device->w = std::make_unique<DeviceArray<std::byte>>(o.LaidOut());
    device->x = std::make_unique<DeviceArray<std::byte>>(o.DeviceRows());
    cuda::MatmulMatrix& matrix = params->matrices[i];
    matrix.w = device->w->data();
    matrix.expert_bytes = o.expert_bytes();
    matrix.form = cuda::FormOf(o.dtype());
    matrix.n = case_.n[i];
    matrix.x = device->x->data();
    matrix.y_stride = case_.n[i] + kPadding;
    if (case_.output) {
      device->y = std::make_unique<DeviceArray<float>>(YSize(i));
      device->y->Poison();
      matrix.y = device->y->data();
    }
    if (case_.bias) {
      device->bias_values = RandomValues(static_cast<std::size_t>(case_.n[i]));
      device->bias = std::make_unique<DeviceArray<float>>(device->bias_values);
      matrix.bias = device->bias->data();
    }
    if (case_.residual) {
      device->added_to = RandomValues(YSize(i));
      device->add_to = std::make_unique<DeviceArray<float>>(device->added_to);
      matrix.add_to = device->add_to->data();
    }
  }

  void Compare(std::size_t i, Device* device) {
    // 0xFF is what nobody writes.
    std::vector<float> y(YSize(i), std::bit_cast<float>(0xFFFFFFFFU));
    for (std::int32_t j = 0; j < rows_; ++j) {
      std::vector<float> row = operands[i].Product(ExpertOf(j), XRow(j));
      for (std::int32_t c = 0; c < case_.n[i]; ++c) {
        const auto at = static_cast<std::size_t>(YRow(j) * (case_.n[i] + kPadding) + c);
        float value = row[static_cast<std::size_t>(c)];
        if (case_.bias) value = value + device->bias_values[static_cast<std::size_t>(c)];
        y[at] = value;
        if (case_.residual) device->added_to[at] = device->added_to[at] + value;
      }
    }
    if (case_.output) ExpectSame(device->y->Read(), y, i);
    if (case_.residual) ExpectSame(device->add_to->Read(), device->added_to, i);
  }

  // A NaN equals any NaN, but only those that nobody wrote are all ones.
  void ExpectSame(const std::vector<float>& got, const std::vector<float>& wanted, std::size_t i) {
    const auto stride = static_cast<std::size_t>(case_.n[i] + kPadding);
    for (std::size_t at = 0; at < wanted.size(); ++at) {
      const auto a = std::bit_cast<std::uint32_t>(got[at]);
      const auto b = std::bit_cast<std::uint32_t>(wanted[at]);
      const bool both_nan = std::isnan(got[at]) && std::isnan(wanted[at]);
      const bool same = a == b || (both_nan && a != 0xFFFFFFFFU && b != 0xFFFFFFFFU);
      ASSERT_TRUE(same) << ::testing::PrintToString(case_) << ": matrix " << i << ", row "
                        << at / stride << ", output " << at % stride << ": " << got[at] << ", not "
                        << wanted[at];
    }
  }

  MatmulCase case_;
  std::mt19937 rng_;
  std::int32_t rows_;
  std::vector<std::int32_t> experts_, offsets_, x_rows_, y_rows_;
};

inline void CheckMatmul(const MatmulCase& c, const MatmulRun::Launch& launch) {
  MatmulRun(c).Check(launch);
}

// The ends of what a type's integers can be: every weight and scale at one end (`ones`), halves as
// given.
inline void FillExtremeRow(DType dtype, bool ones, float half, std::byte* row, std::int64_t k) {
  const DTypeInfo& info = Info(dtype);
  for (std::int64_t b = 0; b < k / info.block_values; ++b) {
    std::byte* block = row + b * info.block_bytes;
    std::memset(block, ones ? 0xFF : 0x00, static_cast<std::size_t>(info.block_bytes));
    // Signed fields: -128 and 127 are the ends, not -1.
    if (dtype == DType::kQ8_0) std::memset(block + 2, ones ? 0x80 : 0x7F, 32);
    if (dtype == DType::kQ6_K) std::memset(block + 192, ones ? 0x7F : 0x80, 16);
    // The largest of IQ4_XS's values is nibble 0, with scales of 31 and of -32.
    if (dtype == DType::kIQ4_XS) std::memset(block + 8, 0x00, 128);
    for (const std::size_t offset : HalfOffsets(dtype)) StoreHalf(block + offset, half);
  }
}

// Weights and activations at their ends, of either sign.
inline void FillExtremes(MatmulRun* run, const MatmulCase& c, std::int64_t x_count) {
  for (MatmulOperands& o : run->operands) {
    for (std::int32_t i = 0; i < c.n[0]; ++i) {
      const float half = i % 4 < 2 ? 65504.0F : 0x1p-24F;
      FillExtremeRow(o.dtype(), i % 2 == 0, half, o.weight_row(0, i), c.k);
    }
    for (std::int64_t r = 0; r < x_count; ++r) {
      o.SetActivations(
          r, std::vector<float>(static_cast<std::size_t>(c.k), r % 2 == 0 ? 127.0F : -127.0F));
    }
  }
}

inline std::vector<DType> QuantisedTypes() {
  std::vector<DType> types;
  for (const DTypeInfo& info : kDTypes) {
    if (info.block_values > 1) types.push_back(info.dtype);
  }
  return types;
}

inline std::string TypeName(const ::testing::TestParamInfo<DType>& info) {
  return std::string(Info(info.param).name);
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CUDA_MATMUL_CASES_H_

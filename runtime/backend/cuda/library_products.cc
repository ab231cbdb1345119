#include "runtime/backend/cuda/library_products.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/dequantize.h"
#include "kernels/cuda/half_rows.h"
#include "runtime/backend/carver.h"
#include "runtime/backend/cuda/library_plan.h"

namespace millrace::cuda {
namespace {

// Rows of k values of a part of a matrix.
std::int32_t PartRows(std::int64_t k, std::int64_t values) {
  return static_cast<std::int32_t>(std::max<std::int64_t>(1, values / HalfStride(k) / kTileRows) *
                                   kTileRows);
}

struct Shape {
  std::int64_t n;
  std::int64_t k;
};

// The matrices that may be served in steps of `limits`.
std::vector<Shape> ShapesOf(const ProgramDims& d, const BackendLimits& limits,
                            std::int32_t fewest_rows) {
  const std::int64_t heads = std::int64_t{d.num_heads} * d.head_dim;
  std::vector<Shape> shapes = {{heads, d.hidden}, {d.hidden, heads}};
  if (d.num_experts == 0) {
    shapes.push_back({d.ffn, d.hidden});
    shapes.push_back({d.hidden, d.ffn});
  }
  if (limits.max_logit_rows >= fewest_rows) shapes.push_back({d.vocab, d.hidden});
  return shapes;
}

}  // namespace

std::vector<const std::byte*> LibraryWeights(const Program& program, const WeightStore& weights) {
  std::vector<const std::byte*> out;
  const auto add = [&](std::initializer_list<WeightId> ids) {
    for (const WeightId id : ids) out.push_back(weights.Get(id).bytes.data());
  };
  for (const Stage& stage : program.stages) {
    if (const auto* qkv = std::get_if<NormQkvStage>(&stage)) add({qkv->q, qkv->k, qkv->v});
    if (const auto* projection = std::get_if<OutputProjectionStage>(&stage)) {
      add({projection->output});
    }
    if (const auto* ffn = std::get_if<DenseFfnStage>(&stage)) add({ffn->gate, ffn->up, ffn->down});
    if (const auto* head = std::get_if<NormHeadStage>(&stage)) add({head->head});
  }
  return out;
}

LibraryProducts::LibraryProducts(LibraryOptions options, std::unique_ptr<Cublas> cublas)
    : options_(std::move(options)), cublas_(std::move(cublas)) {}

absl::StatusOr<std::unique_ptr<LibraryProducts>> LibraryProducts::Open(
    const LibraryOptions& options) {
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<Cublas> cublas, Cublas::Open(options.library));
  return std::unique_ptr<LibraryProducts>(new LibraryProducts(options, std::move(cublas)));
}

bool LibraryProducts::MayServe(std::int32_t tokens) const {
  return tokens >= FewestLibraryRows(options_.least_rows);
}

LibraryProducts::Scratch LibraryProducts::Carve(const ProgramDims& dims,
                                                const BackendLimits& limits, std::byte* memory,
                                                std::int64_t* bytes) const {
  Scratch scratch;
  *bytes = 0;
  if (!MayServe(limits.max_tokens)) return scratch;
  std::int64_t longest = 0;
  for (const Shape& shape : ShapesOf(dims, limits, FewestLibraryRows(options_.least_rows))) {
    const std::int64_t stride = HalfStride(shape.k);
    const std::int64_t rows = std::min<std::int64_t>(
        RoundUp(shape.n, kTileRows),
        PartRows(shape.k, options_.part_bytes / std::int64_t{sizeof(std::uint16_t)}));
    scratch.weight_values = std::max(scratch.weight_values, rows * stride);
    longest = std::max(longest, stride);
  }
  const std::int64_t tokens = std::max(limits.max_tokens, limits.max_logit_rows);
  Carver carver(memory, kPieceAlignment);
  scratch.weights = carver.Take<std::uint16_t>(scratch.weight_values);
  scratch.x = carver.Take<std::uint16_t>(tokens * longest);
  scratch.scales = carver.Take<float>(tokens);
  scratch.products = carver.Take<float>(tokens * dims.hidden);
  scratch.workspace = carver.Take<std::byte>(options_.workspace_bytes);
  *bytes = carver.used();
  return scratch;
}

std::int64_t LibraryProducts::Bytes(const ProgramDims& dims, const BackendLimits& limits) const {
  std::int64_t bytes = 0;
  Carve(dims, limits, nullptr, &bytes);
  return bytes;
}

absl::Status LibraryProducts::Prepare(const ProgramDims& dims, const BackendLimits& limits,
                                      std::vector<const std::byte*> weights, cudaStream_t stream) {
  MILLRACE_ASSIGN_OR_RETURN(
      memory_, DeviceMemory::Allocate(Bytes(dims, limits), "scratch of products by cuBLAS"));
  std::int64_t bytes = 0;
  scratch_ = Carve(dims, limits, memory_.data(), &bytes);
  hidden_ = dims.hidden;
  weights_ = std::move(weights);
  std::sort(weights_.begin(), weights_.end());
  if (bytes == 0) return absl::OkStatus();
  return cublas_->Use(stream, scratch_.workspace, options_.workspace_bytes);
}

bool LibraryProducts::Serves(const std::byte* weights, WeightForm form, std::int32_t rows) const {
  return PlanLibrary(form, rows, options_.least_rows).use &&
         std::binary_search(weights_.begin(), weights_.end(), weights);
}

cudaError_t LibraryProducts::MultiplyPart(const MatmulParams& params, const MatmulMatrix& matrix,
                                          std::int32_t first, std::int32_t count,
                                          cudaStream_t stream) {
  DequantizeParams dequantize;
  dequantize.form = matrix.form;
  dequantize.w = matrix.w;
  dequantize.k = params.k;
  dequantize.first_row = first;
  dequantize.rows = count;
  dequantize.out = scratch_.weights;
  dequantize.chained = params.chained;
  const cudaError_t error = LaunchDequantize(dequantize, stream);
  if (error != cudaSuccess) return error;

  CublasProduct product;
  product.type = HalfTypeOf(matrix.form);
  product.w = scratch_.weights;
  product.x = scratch_.x;
  product.n = count;
  product.rows = params.max_rows;
  product.k = params.k;
  product.y_stride = matrix.y_stride;
  if (matrix.add_to == nullptr) {
    product.y = matrix.y + first;
  } else if (product.type == HalfType::kBF16) {
    product.y = matrix.add_to + first;
    product.beta = 1.0F;
  } else {
    product.y = scratch_.products + first;
    product.y_stride = hidden_;
  }
  status_ = cublas_->Multiply(product);
  return status_.ok() ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t LibraryProducts::Multiply(const MatmulParams& params, const MatmulMatrix& matrix,
                                      Rows* rows, cudaStream_t stream) {
  MILLRACE_CHECK((matrix.y == nullptr) != (matrix.add_to == nullptr), "one place for a product");
  const HalfType type = HalfTypeOf(matrix.form);
  if (rows->x != matrix.x || rows->type != type) {
    HalfRowsParams half;
    half.x = matrix.x;
    half.k = params.k;
    half.rows = params.max_rows;
    half.type = type;
    half.out = scratch_.x;
    half.scales = scratch_.scales;
    half.chained = params.chained;
    const cudaError_t error = LaunchHalfRows(half, stream);
    if (error != cudaSuccess) return error;
    *rows = {matrix.x, type};
  }
  const std::int32_t part = PartRows(params.k, scratch_.weight_values);
  for (std::int32_t first = 0; first < matrix.n; first += part) {
    const cudaError_t error =
        MultiplyPart(params, matrix, first, std::min(part, matrix.n - first), stream);
    if (error != cudaSuccess) return error;
  }
  // BF16's products are where they belong, but for a bias.
  if (type == HalfType::kBF16 && matrix.bias == nullptr) return cudaSuccess;
  FinishProductParams finish;
  finish.product = matrix.y != nullptr ? matrix.y : matrix.add_to;
  finish.stride = matrix.y_stride;
  finish.bias = matrix.bias;
  finish.rows = params.max_rows;
  finish.n = matrix.n;
  finish.chained = params.chained;
  if (type == HalfType::kF16) {
    finish.scales = scratch_.scales;
    if (matrix.add_to != nullptr) {
      finish.product = scratch_.products;
      finish.stride = hidden_;
      finish.add_to = matrix.add_to;
      finish.add_stride = matrix.y_stride;
    }
  }
  return LaunchFinishProduct(finish, stream);
}

cudaError_t LibraryProducts::Take(MatmulParams* params, cudaStream_t stream) {
  Rows rows;
  int kept = 0;
  for (int m = 0; m < params->num_matrices; ++m) {
    const MatmulMatrix matrix = params->matrices[static_cast<std::size_t>(m)];
    if (!Serves(matrix.w, matrix.form, params->max_rows)) {
      params->matrices[static_cast<std::size_t>(kept++)] = matrix;
      continue;
    }
    const cudaError_t error = Multiply(*params, matrix, &rows, stream);
    if (error != cudaSuccess) return error;
  }
  params->num_matrices = kept;
  return cudaSuccess;
}

}  // namespace millrace::cuda

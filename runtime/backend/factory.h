// Picks and makes a backend. Thread-safe.
#ifndef MILLRACE_RUNTIME_BACKEND_FACTORY_H_
#define MILLRACE_RUNTIME_BACKEND_FACTORY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/weight_cache_options.h"

namespace millrace {

// What --cpu-isa takes, in words and as a check; the machine may still lack the level.
inline constexpr char kCpuIsaChoices[] = "auto, scalar, avx2, avx2-vnni or avx512";
bool IsCpuIsaChoice(std::string_view cpu_isa);

// The workers that --threads asks for: 0 means all cores this process may use, and more than those
// are never used, since threads that meet at barriers only wait for each other's cores.
int ThreadsToUse(int threads);

// What --device takes, in words and as a check.
inline constexpr char kDeviceChoices[] = "auto, cpu, cuda or cuda:N";
bool IsDeviceChoice(std::string_view device);
// The number of the CUDA device that a choice names, 0 where it leaves that open; nothing for cpu.
std::optional<std::int32_t> CudaDeviceOf(std::string_view device);

// What --matmul takes: how large products are computed on a GPU. exact: with the CPU's bits,
// whatever else is in the step. cublas: by NVIDIA's library, where steps are large.
inline constexpr char kMatmulChoices[] = "exact or cublas";
inline constexpr char kMatmulHelp[] =
    "On a GPU, large products: exact (a request's bits depend on it alone), or by cublas, which "
    "rounds to 16 bits, gives other bits in other company, and must be installed";
// INVALID_ARGUMENT naming the flag for others, and for cublas with --device cpu.
absl::Status CheckMatmul(std::string_view matmul, std::string_view device);

// `device` is one of kDeviceChoices. auto is the first CUDA device where the CUDA module
// (runtime/backend/cuda/module.h) lies beside the program and finds one, else the CPU, and a line
// of log says why; cuda:N fails where there is none. `threads` as ThreadsToUse takes it; `cpu_isa`
// is one of kCpuIsaChoices. `matmul` is one of kMatmulChoices; the CPU never stands in for a GPU
// that is to use cuBLAS. INVALID_ARGUMENT naming the flag for others and for a level that this
// machine lacks.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& device, int threads,
                                                     const std::string& cpu_isa,
                                                     const WeightCacheOptions& weight_cache = {},
                                                     const std::string& matmul = "exact");

}  // namespace millrace

#endif  // MILLRACE_RUNTIME_BACKEND_FACTORY_H_

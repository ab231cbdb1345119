# Every kernel, compiled twice: by nvcc for GPUs (kernels/cuda) and by the C++ compiler against an
# emulated GPU for tests (tests/cuda). Sources join the list by name.
set(MILLRACE_CUDA_KERNELS
)
list(TRANSFORM MILLRACE_CUDA_KERNELS PREPEND "${CMAKE_CURRENT_LIST_DIR}/")

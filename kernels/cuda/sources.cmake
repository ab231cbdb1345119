# Every kernel, compiled twice: by nvcc for GPUs (kernels/cuda) and by the C++ compiler against an
# emulated GPU for tests (tests/cuda). Sources join the list by name.
set(MILLRACE_CUDA_KERNELS
  attention.cu
  attention_merge.cu
  dequantize.cu
  embed.cu
  half_rows.cu
  int8_peak.cu
  matmul.cu
  matmul_float.cu
  matmul_tensor.cu
  matmul_vector.cu
  moe_plan.cu
  norm.cu
  rope_append.cu
  route.cu
  router.cu
  sampling.cu
  sampling_choose.cu
  swiglu.cu
)
list(TRANSFORM MILLRACE_CUDA_KERNELS PREPEND "${CMAKE_CURRENT_LIST_DIR}/")

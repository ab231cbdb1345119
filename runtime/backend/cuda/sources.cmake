# The CUDA backend but for its module, compiled twice: for GPUs (runtime/backend) and against an
# emulated one for tests (tests/cuda). Sources join the list by name.
set(MILLRACE_CUDA_BACKEND
  completion_waiter.cc
  cublas.cc
  cuda_backend.cc
  cuda_status.cc
  device.cc
  device_report.cc
  executor.cc
  executor_ffn.cc
  library_products.cc
  resources.cc
  step_buffers.cc
  step_graphs.cc
  step_shape.cc
  step_tables.cc
  weight_store.cc
  weight_uploader.cc
)
list(TRANSFORM MILLRACE_CUDA_BACKEND PREPEND "${CMAKE_CURRENT_LIST_DIR}/")

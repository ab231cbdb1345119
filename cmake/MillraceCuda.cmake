# Finds nvcc and prepares CUDA as a language where MILLRACE_CUDA allows it; afterwards MILLRACE_CUDA is
# ON or OFF. Sanitized builds leave it out: their tests run kernels on the emulated GPU alone.

include_guard(GLOBAL)
include(CheckLanguage)

if(MILLRACE_CUDA STREQUAL "AUTO" AND MILLRACE_SANITIZE)
  set(MILLRACE_CUDA OFF)
endif()
if(MILLRACE_CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    # Where the toolkit's own packages put it, often without a PATH to it.
    find_program(MILLRACE_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
    if(MILLRACE_NVCC)
      set(CMAKE_CUDA_COMPILER "${MILLRACE_NVCC}")
    endif()
  endif()
  set(CMAKE_CUDA_ARCHITECTURES "${MILLRACE_CUDA_ARCHITECTURES}")
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    # CMake 3.25 does not know that nvcc speaks C++20.
    if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
    if(MILLRACE_CCACHE)
      set(CMAKE_CUDA_COMPILER_LAUNCHER "${MILLRACE_CCACHE}")
    endif()
    # Rounding as docs/numerics.md has it; constexpr functions of kernels/*.h on the device.
    set(MILLRACE_CUDA_KERNEL_OPTIONS
        -fmad=false -prec-div=true -prec-sqrt=true -ftz=false --expt-relaxed-constexpr -Werror=all-warnings)
    find_package(CUDAToolkit REQUIRED)
    # Compiled with, never linked: runtime/backend/cuda/cublas.h.
    find_path(MILLRACE_CUBLAS_INCLUDE cublas_v2.h PATHS ${CUDAToolkit_INCLUDE_DIRS} NO_DEFAULT_PATH)
    if(NOT MILLRACE_CUBLAS_INCLUDE)
      message(FATAL_ERROR "cublas_v2.h is not in ${CUDAToolkit_INCLUDE_DIRS}: install libcublas-dev of CUDA 13, or set MILLRACE_CUDA to OFF")
    endif()
    set(MILLRACE_CUDA ON)
  elseif(MILLRACE_CUDA STREQUAL "AUTO")
    set(MILLRACE_CUDA OFF)
  else()
    message(FATAL_ERROR "MILLRACE_CUDA is ON and no nvcc was found: put it on the PATH or set CUDA_HOME")
  endif()
endif()
message(STATUS "CUDA: ${MILLRACE_CUDA}")

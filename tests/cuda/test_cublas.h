// The cuBLAS that a test of CUDA opens: the emulated GPU's stand-in, or in the self test the one
// that is installed. A test that wants to say which it is, or what goes wrong with it, needs the
// emulated GPU (tests/cuda/selftest/left_out.h).
#ifndef MILLRACE_TESTS_CUDA_TEST_CUBLAS_H_
#define MILLRACE_TESTS_CUDA_TEST_CUBLAS_H_

#include <cuda_runtime.h>

#include <string>

#include "gtest/gtest.h"

#ifdef MILLRACE_CUDA_EMULATION
#include "tests/cuda/emulation/cublas_machine.h"
#else
#include "tests/cuda/selftest/real_cublas.h"
#endif

namespace millrace::testing {

// Tests of what cuBLAS computes; where it is not installed they are skipped and say so.
class WithCublas : public ::testing::Test {
 protected:
  void SetUp() override {
    library_ = emulation::CublasLibrary();
    if (const std::string why = emulation::WhyNoCublas(); !why.empty()) GTEST_SKIP() << why;
  }
  const std::string& library() const { return library_; }

 private:
  std::string library_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CUDA_TEST_CUBLAS_H_

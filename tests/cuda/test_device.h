// The machine that a test of CUDA runs on. Tests are written for the emulated GPU, where they say
// what it is and what goes wrong on it (tests/cuda/emulation/machine.h). The self test compiles the
// same tests for a real GPU: there the machine is what it is, and a test that wants another fails
// and says so (tests/cuda/selftest/left_out.h names those that are left out).
#ifndef MILLRACE_TESTS_CUDA_TEST_DEVICE_H_
#define MILLRACE_TESTS_CUDA_TEST_DEVICE_H_

#include <cuda_runtime.h>

#ifdef MILLRACE_CUDA_EMULATION
#include "tests/cuda/emulation/machine.h"
#else
#include "tests/cuda/selftest/real_machine.h"
#endif

#endif  // MILLRACE_TESTS_CUDA_TEST_DEVICE_H_

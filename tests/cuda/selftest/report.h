// The self test's one table: a row for each suite of tests, then what failed and why. It ends the
// program when the device is lost, since nothing after that can pass. Driven by GoogleTest.
#ifndef MILLRACE_TESTS_CUDA_SELFTEST_REPORT_H_
#define MILLRACE_TESTS_CUDA_SELFTEST_REPORT_H_

#include <cuda_runtime.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace millrace::selftest {

class Report : public ::testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const ::testing::TestPartResult& part) override {
    if (part.skipped()) skipped_ = part.message();
    // The first one says it; the rest of a broken test is noise.
    if (part.failed() && failure_.empty()) failure_ = part.summary();
  }

  void OnTestEnd(const ::testing::TestInfo& test) override {
    Row& row = rows_[Kernel(test.test_suite_name())];
    ++row.cases;
    row.milliseconds += test.result()->elapsed_time();
    const cudaError_t lost = cudaDeviceSynchronize();
    if (lost != cudaSuccess && failure_.empty()) failure_ = cudaGetErrorString(lost);
    if (test.result()->Failed() || lost != cudaSuccess) {
      ++row.failed;
      failures_.push_back(std::string(test.test_suite_name()) + "." + test.name() + "\n    " +
                          failure_);
    }
    if (test.result()->Skipped()) {
      not_run_.push_back(std::string(test.test_suite_name()) + "." + test.name() + ": " + skipped_);
    }
    failure_.clear();
    skipped_.clear();
    if (lost == cudaSuccess) return;
    Print();
    std::printf("\nthe device is lost (%s): the tests after the last one above did not run\n",
                cudaGetErrorName(lost));
    std::fflush(stdout);
    std::_Exit(1);
  }

  void OnTestProgramEnd(const ::testing::UnitTest&) override { Print(); }

 private:
  struct Row {
    int cases = 0;
    int failed = 0;
    ::testing::TimeInMillis milliseconds = 0;
  };

  // "Types/CudaMatmul" as "CudaMatmul".
  static std::string Kernel(const std::string& suite) {
    return suite.substr(suite.find('/') == std::string::npos ? 0 : suite.find('/') + 1);
  }

  // Tests compare bit for bit, so the worst difference of those that pass is none; those of cuBLAS
  // have bounds of their own.
  void Print() const {
    std::printf("%-28s %7s %7s %12s %9s\n", "kernel", "cases", "failed", "difference", "seconds");
    int cases = 0;
    for (const auto& [name, row] : rows_) {
      cases += row.cases;
      std::printf("%-28s %7d %7d %12s %9.2f\n", name.c_str(), row.cases, row.failed,
                  row.failed == 0 ? "0" : "see below", static_cast<double>(row.milliseconds) / 1e3);
    }
    std::printf("%d cases, %zu failed\n", cases, failures_.size());
    for (const std::string& test : not_run_) std::printf("not run: %s\n", test.c_str());
    for (const std::string& failure : failures_) std::printf("\n%s\n", failure.c_str());
  }

  std::map<std::string, Row> rows_;
  std::vector<std::string> failures_;
  std::vector<std::string> not_run_;  // skipped, with why
  std::string failure_;               // of the test that runs
  std::string skipped_;               // why, of the test that runs
};

}  // namespace millrace::selftest

#endif  // MILLRACE_TESTS_CUDA_SELFTEST_REPORT_H_

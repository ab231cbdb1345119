// millrace-cuda-selftest: the tests of tests/cuda on a real GPU. Every kernel against the CPU's
// scalar level and whole models against the CPU backend, bit for bit; one table.
//
//   millrace-cuda-selftest [--gtest_filter=...] [--gtest_output=json:FILE]
//
// Started where the repository's tests/golden and models lie. Ends with 0 where all passed, 1 where
// one failed, 77 where there is no device (and one line that says why).
#include <cstdio>
#include <filesystem>
#include <string>

#include "gtest/gtest.h"
#include "runtime/backend/cuda/device_report.h"
#include "tests/cuda/selftest/left_out.h"
#include "tests/cuda/selftest/report.h"

namespace millrace::selftest {
namespace {

constexpr int kNoDevice = 77;  // as tests say that they were skipped

bool Exists(std::string_view name) {
  const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const ::testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) {
      if (std::string(suite.name()) + "." + suite.GetTestInfo(t)->name() == name) return true;
    }
  }
  return false;
}

// Takes the tests away that need the emulated GPU; false if one of them does not exist.
bool LeaveOut() {
  std::string filter = GTEST_FLAG_GET(filter);
  filter += filter.find('-') == std::string::npos ? "-" : ":";
  for (const std::string_view name : kLeftOut) {
    if (!Exists(name)) {
      std::fprintf(stderr, "millrace-cuda-selftest: left_out.h names %s, which is no test\n",
                   std::string(name).c_str());
      return false;
    }
    filter += std::string(name) + ":";
  }
  GTEST_FLAG_SET(filter, filter);
  return true;
}

std::string Version(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int Run() {
  if (!LeaveOut()) return 1;
  const auto device = cuda::DescribeDevice(0);
  if (!device.ok()) {
    std::printf("millrace-cuda-selftest: no test was run: %s\n",
                std::string(device.status().message()).c_str());
    return kNoDevice;
  }
  if (!std::filesystem::exists("tests/golden/models")) {
    std::fprintf(stderr, "millrace-cuda-selftest: start it at the root of the repository\n");
    return 1;
  }
  std::printf("%s (%s), %.1f of %.1f GB free, driver for CUDA %s, runtime %s\n\n",
              device->name.c_str(), device->isa.c_str(),
              static_cast<double>(device->free_bytes) / 1e9,
              static_cast<double>(device->total_bytes) / 1e9,
              Version(device->driver_version).c_str(), Version(device->runtime_version).c_str());
  ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new Report);  // GoogleTest's from now on
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace millrace::selftest

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc > 1) {
    std::fprintf(stderr, "millrace-cuda-selftest: unknown argument '%s'\n", argv[1]);
    return 2;
  }
  return millrace::selftest::Run();
}

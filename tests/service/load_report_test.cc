// What is told to balancers and to the scaler, from the same snapshot of the engine; and both
// services before there is a model, on a real server.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "externalscaler/externalscaler.grpc.pb.h"
#include "service/load_reporter.h"
#include "service/orca_service.h"
#include "service/scaler_load.h"
#include "service/server.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using xds::data::orca::v3::OrcaLoadReport;

LoadSnapshot Load(std::int32_t running, std::int32_t waiting, std::int64_t blocks_used) {
  LoadSnapshot load;
  load.running = running;
  load.waiting = waiting;
  load.max_running = 8;
  load.kv_blocks_total = 100;
  load.kv_blocks_used = blocks_used;
  load.kv_blocks_cached = 5;  // must count nowhere
  load.tokens_per_second = 12.5;
  return load;
}

TEST(LoadReport, TakesTheFullerOfPlacesAndCache) {
  EXPECT_DOUBLE_EQ(MakeLoadReport(Load(4, 0, 20), 0, 0).application_utilization(), 0.5);
  EXPECT_DOUBLE_EQ(MakeLoadReport(Load(4, 0, 70), 0, 0).application_utilization(), 0.7);
  EXPECT_DOUBLE_EQ(MakeLoadReport(Load(8, 4, 70), 0, 0).application_utilization(), 1.5)
      << "a queue shows among full servers";
}

TEST(LoadReport, OfAnIdleServerIsThatOfOnePlaceAndNotUnset) {
  EXPECT_DOUBLE_EQ(MakeLoadReport(Load(0, 0, 0), 1, 0).application_utilization(), 1.0 / 8);
  EXPECT_EQ(MakeLoadReport(Load(0, 0, 0), 1, 0).mem_utilization(), 0);
}

TEST(LoadReport, HasEveryFigure) {
  const OrcaLoadReport report = MakeLoadReport(Load(2, 3, 40), 6.5, 0.5);
  EXPECT_DOUBLE_EQ(report.mem_utilization(), 0.4);
  EXPECT_DOUBLE_EQ(report.rps_fractional(), 6.5);
  EXPECT_DOUBLE_EQ(report.eps(), 0.5);
  const std::map<std::string, double> named(report.named_metrics().begin(),
                                            report.named_metrics().end());
  const std::map<std::string, double> want = {{"kv_cache_usage_perc", 0.4},
                                              {"num_requests_running", 2},
                                              {"num_requests_waiting", 3},
                                              {"tokens_per_second", 12.5}};
  EXPECT_EQ(named, want);
}

TEST(LoadReport, OfNoModelIsZero) {
  const OrcaLoadReport report = MakeLoadReport(LoadSnapshot{}, 0, 0);
  EXPECT_EQ(report.application_utilization(), 0);
  EXPECT_EQ(report.mem_utilization(), 0);
}

TEST(LoadReport, FillsWholeGroupsOfBase64AndStaysTheSame) {
  for (int size = 0; size < 6; ++size) {
    OrcaLoadReport report;
    report.set_eps(0.5);
    (*report.mutable_named_metrics())[std::string(static_cast<std::size_t>(size), 'x')] = 1;
    const std::string bytes = SerializeForTrailer(report);
    EXPECT_EQ(bytes.size() % 3, 0U);
    OrcaLoadReport read;
    ASSERT_TRUE(read.ParseFromString(bytes));
    EXPECT_EQ(read.SerializeAsString(), report.SerializeAsString());
  }
}

TimePoint At(double seconds) { return TimePoint(FromSeconds(1000 + seconds)); }

TEST(RateWindow, CountsTheLastTenSeconds) {
  RateWindow rate(At(0));
  EXPECT_EQ(rate.PerSecond(At(0)), 0);
  for (int i = 0; i < 40; ++i) rate.Add(At(0.25 * i));  // 4 a second
  EXPECT_DOUBLE_EQ(rate.PerSecond(At(9.75)), 40 / 9.75);
  EXPECT_NEAR(rate.PerSecond(At(15.0)), 4 * 4 / 9.0, 1e-9) << "those of seconds 6 to 9 are left";
  EXPECT_EQ(rate.PerSecond(At(30)), 0);
  rate.Add(At(30));
  EXPECT_NEAR(rate.PerSecond(At(30.5)), 1 / 9.5, 1e-9) << "what an old second left is gone";
}

TEST(RateWindow, MakesNoRushOfTheFirstMoment) {
  RateWindow rate(At(0));
  rate.Add(At(0.001));
  EXPECT_DOUBLE_EQ(rate.PerSecond(At(0.001)), 1);
}

TEST(LoadReporter, CountsAsErrorsWhatTheServerIsToBlameFor) {
  const SteadyClock clock;
  LoadReporter reporter(&clock);
  using grpc::StatusCode;
  for (const StatusCode code : {StatusCode::OK, StatusCode::CANCELLED, StatusCode::INVALID_ARGUMENT,
                                StatusCode::DEADLINE_EXCEEDED}) {
    reporter.CountEnded(code);
  }
  EXPECT_EQ(reporter.Report().eps(), 0);
  EXPECT_GT(reporter.Report().rps_fractional(), 0);
  reporter.CountEnded(StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(reporter.Report().eps(), 0);
}

TEST(OrcaService, HonoursIntervalsWithinReason) {
  xds::service::orca::v3::OrcaLoadReportRequest request;
  EXPECT_EQ(ReportInterval(request), kDefaultReportInterval);
  auto* const interval = request.mutable_report_interval();
  EXPECT_EQ(ReportInterval(request), kMinReportInterval);
  interval->set_seconds(3);
  interval->set_nanos(500'000'000);
  EXPECT_EQ(ReportInterval(request), std::chrono::milliseconds(3500));
  interval->set_seconds(-3);
  EXPECT_EQ(ReportInterval(request), kMinReportInterval);
  interval->set_seconds(std::numeric_limits<std::int64_t>::max());
  EXPECT_LE(ReportInterval(request), std::chrono::hours(24));
}

double Scaled(const LoadSnapshot& load, const std::map<std::string, std::string>& metadata) {
  const auto targets = ParseScalerTargets(metadata);
  EXPECT_TRUE(targets.ok()) << targets.status();
  return ScalerLoad(load, *targets);
}

TEST(ScalerLoad, IsTheMostThatAnythingIsOfItsTarget) {
  EXPECT_DOUBLE_EQ(Scaled(Load(8, 0, 40), {}), 50) << "40 % of 80 %; places are not looked at";
  EXPECT_DOUBLE_EQ(Scaled(Load(8, 16, 40), {}), 200) << "16 of 8";
  EXPECT_DOUBLE_EQ(Scaled(Load(8, 16, 40), {{"targetQueue", "32"}, {"targetKvPercent", "50"}}), 80);
  EXPECT_DOUBLE_EQ(Scaled(Load(8, 0, 40), {{"targetRunningPercent", "80"}}), 125);
  EXPECT_DOUBLE_EQ(Scaled(Load(0, 0, 0), {{"targetRunningPercent", "80"}}), 0);
}

TEST(ScalerLoad, PassesOverWhatIsKedas) {
  EXPECT_DOUBLE_EQ(
      Scaled(Load(1, 4, 0), {{"scalerAddress", "millrace:50051"}, {"metricType", "Value"}}), 50);
}

TEST(ScalerLoad, NamesWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"targetQueue", "0"},         {"targetQueue", "-1"},      {"targetQueue", "many"},
      {"targetQueue", ""},          {"targetQueue", "nan"},     {"targetQueue", "inf"},
      {"targetKvPercent", "100.5"}, {"targetKvPercent", "80%"}, {"targetRunningPercent", "101"},
      {"targetKVPercent", "80"}};
  for (const auto& [key, value] : wrong) {
    const absl::Status status = ParseScalerTargets({{key, value}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key << "=" << value;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  }
}

// A server that has no model yet, asked over gRPC.
class LoadingServer : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = Server::Listen({.listen = "127.0.0.1:0", .metrics = "127.0.0.1:0"}, &clock_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(server_->grpc_address(), grpc::InsecureChannelCredentials());
  }

  const SteadyClock clock_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(LoadingServer, IsNotActiveAndHasNoLoadToScaleBy) {
  const auto stub = externalscaler::ExternalScaler::NewStub(channel_);
  {
    grpc::ClientContext context;
    externalscaler::IsActiveResponse active;
    ASSERT_TRUE(stub->IsActive(&context, {}, &active).ok());
    EXPECT_FALSE(active.result());
  }
  grpc::ClientContext context;
  externalscaler::GetMetricsResponse metrics;
  const grpc::Status status = stub->GetMetrics(&context, {}, &metrics);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << "0 would scale down";
}

TEST_F(LoadingServer, EndsStreamsWhenItShutsDown) {
  const auto scaler = externalscaler::ExternalScaler::NewStub(channel_);
  const auto orca = xds::service::orca::v3::OpenRcaService::NewStub(channel_);
  grpc::ClientContext activity_context;
  const auto activities = scaler->StreamIsActive(&activity_context, {});
  grpc::ClientContext report_context;
  const auto reports = orca->StreamCoreMetrics(&report_context, {});
  externalscaler::IsActiveResponse active;
  ASSERT_TRUE(activities->Read(&active));
  OrcaLoadReport report;
  ASSERT_TRUE(reports->Read(&report));
  server_->ShutDown(Duration::zero());
  EXPECT_FALSE(activities->Read(&active));
  EXPECT_EQ(activities->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(reports->Read(&report));
  EXPECT_EQ(reports->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace millrace

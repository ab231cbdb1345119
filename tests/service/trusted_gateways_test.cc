#include "service/trusted_gateways.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace millrace {
namespace {

TrustedGateways Networks(const std::vector<std::string>& networks) {
  auto gateways = TrustedGateways::Parse(networks);
  EXPECT_TRUE(gateways.ok()) << gateways.status();
  return *gateways;
}

TEST(TrustedGateways, TrustsNobodyByDefault) {
  EXPECT_FALSE(TrustedGateways().Trusts("ipv4:127.0.0.1:5000"));
}

TEST(TrustedGateways, TrustsTheNetworksThatAreNamed) {
  const TrustedGateways gateways = Networks({"10.0.0.0/8", "192.168.1.7", "fd00::/8"});
  EXPECT_TRUE(gateways.Trusts("ipv4:10.200.3.4:5000"));
  EXPECT_FALSE(gateways.Trusts("ipv4:11.0.0.1:5000"));
  EXPECT_TRUE(gateways.Trusts("ipv4:192.168.1.7:1"));
  EXPECT_FALSE(gateways.Trusts("ipv4:192.168.1.6:1"));
  EXPECT_TRUE(gateways.Trusts("ipv6:[fd12::1]:5000"));
  EXPECT_TRUE(gateways.Trusts("ipv6:%5Bfd12::1%5D:5000"));
  EXPECT_FALSE(gateways.Trusts("ipv6:[fe80::1]:5000"));
  EXPECT_TRUE(gateways.Trusts("ipv6:[::ffff:10.1.1.1]:5000")) << "as a listener on both sees it";
}

TEST(TrustedGateways, TrustsNoPeerThatIsNoAddress) {
  const TrustedGateways gateways = Networks({"0.0.0.0/0", "::/0"});
  for (const char* peer :
       {"", "unix:/tmp/socket", "ipv4:", "ipv4::5", "ipv6:[]:5", "ipv4:1.2.3:5", "10.0.0.1"}) {
    EXPECT_FALSE(gateways.Trusts(peer)) << peer;
  }
  EXPECT_TRUE(gateways.Trusts("ipv4:1.2.3.4:5"));
}

TEST(TrustedGateways, NamesWhatIsNoNetwork) {
  for (const char* text : {"", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "host", "10.0.0.0/x",
                           "10.0.0.0/-1", "10.0.0.0/"}) {
    const auto parsed = TrustedGateways::Parse({text});
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(parsed.status().message()), ::testing::HasSubstr("--gateway"));
  }
}

}  // namespace
}  // namespace millrace

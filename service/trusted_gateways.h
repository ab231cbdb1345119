// The peers whose word counts about whom a call is for and how urgent it is: networks that the
// operator names with --gateway. A value; thread-safe once made.
#ifndef MILLRACE_SERVICE_TRUSTED_GATEWAYS_H_
#define MILLRACE_SERVICE_TRUSTED_GATEWAYS_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

class TrustedGateways {
 public:
  TrustedGateways() = default;  // trusts nobody

  // Networks as 10.0.0.0/8, 192.168.1.7 or fd00::/8. INVALID_ARGUMENT names the one that is none.
  static absl::StatusOr<TrustedGateways> Parse(const std::vector<std::string>& networks);

  // `peer` as gRPC names it: ipv4:10.1.2.3:4567, ipv6:[::1]:4567 (also with %5B and %5D).
  bool Trusts(std::string_view peer) const;

 private:
  // IPv4 addresses are mapped into IPv6 (RFC 4291, 2.5.5.2), as a listener on both sees them.
  using Address = std::array<std::uint8_t, 16>;
  struct Network {
    Address address{};
    int prefix = 128;  // bits
  };

  static bool ParseAddress(const std::string& text, Address* address, bool* v4);

  std::vector<Network> networks_;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_TRUSTED_GATEWAYS_H_

#include "service/trusted_gateways.h"

#include <arpa/inet.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace millrace {

bool TrustedGateways::ParseAddress(const std::string& text, Address* address, bool* v4) {
  in_addr four{};
  *v4 = ::inet_pton(AF_INET, text.c_str(), &four) == 1;
  if (!*v4) return ::inet_pton(AF_INET6, text.c_str(), address->data()) == 1;
  *address = {};
  (*address)[10] = (*address)[11] = 0xFF;
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(&four);
  std::copy_n(bytes, 4, address->begin() + 12);
  return true;
}

absl::StatusOr<TrustedGateways> TrustedGateways::Parse(const std::vector<std::string>& networks) {
  TrustedGateways out;
  for (const std::string& text : networks) {
    const std::size_t slash = text.find('/');
    Network network;
    bool v4 = false;
    const bool is_address = ParseAddress(text.substr(0, slash), &network.address, &v4);
    const int most = v4 ? 32 : 128;
    int prefix = most;
    const bool is_prefix =
        slash == std::string::npos || absl::SimpleAtoi(text.substr(slash + 1), &prefix);
    if (!is_address || !is_prefix || prefix < 0 || prefix > most) {
      return absl::InvalidArgumentError(
          absl::StrCat("--gateway ", text, ": want a network, as 10.0.0.0/8 or fd00::/8"));
    }
    network.prefix = prefix + 128 - most;
    out.networks_.push_back(network);
  }
  return out;
}

bool TrustedGateways::Trusts(std::string_view peer) const {
  std::string text = absl::StrReplaceAll(std::string(peer), {{"%5B", "["}, {"%5D", "]"}});
  const std::size_t kind = text.find(':');
  const std::size_t port = text.rfind(':');
  if (networks_.empty() || kind == std::string::npos || port <= kind) return false;
  text = text.substr(kind + 1, port - kind - 1);
  if (text.size() > 2 && text.front() == '[') text = text.substr(1, text.size() - 2);
  Address address{};
  bool v4 = false;
  if (!ParseAddress(text, &address, &v4)) return false;
  return std::any_of(networks_.begin(), networks_.end(), [&](const Network& network) {
    for (int bit = 0; bit < network.prefix; ++bit) {
      const auto byte = static_cast<std::size_t>(bit / 8);
      const unsigned mask = 0x80U >> static_cast<unsigned>(bit % 8);
      if (((address[byte] ^ network.address[byte]) & mask) != 0) return false;
    }
    return true;
  });
}

}  // namespace millrace

// The small HTTP server beside gRPC: /metrics, /livez, /readyz, and the status page at /. Handlers
// run on its own threads.
#ifndef MILLRACE_SERVICE_HTTP_SERVER_H_
#define MILLRACE_SERVICE_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace millrace {

class HttpServer {
 public:
  struct Handlers {
    std::function<std::string()> metrics;
    std::function<bool()> ready;
  };

  // Listens on `address` (HOST:PORT, port 0: any free one). INVALID_ARGUMENT for what is no
  // address, UNAVAILABLE when it cannot be had; both name it.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Listen(const std::string& address,
                                                            Handlers handlers);
  virtual ~HttpServer() = default;

  // With the port it really has.
  virtual const std::string& address() const = 0;
};

// "HOST:PORT", "[V6]:PORT" into its parts. INVALID_ARGUMENT naming `address`.
struct HostPort {
  std::string host;
  int port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);
std::string FormatHostPort(const HostPort& address);

}  // namespace millrace

#endif  // MILLRACE_SERVICE_HTTP_SERVER_H_

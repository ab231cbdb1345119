// The server: listens from the start, answers NOT_SERVING while the model loads, serves, and shuts
// down in the one order there is. Owns everything on the service's side of the engine.
//
// Driven by one thread; Listen -> Serve -> ShutDown.
#ifndef MILLRACE_SERVICE_SERVER_H_
#define MILLRACE_SERVICE_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "scheduler/engine.h"
#include "service/served_model.h"
#include "service/trusted_gateways.h"

namespace millrace {

struct ServerOptions {
  std::string listen;   // HOST:PORT of gRPC; port 0: any free one
  std::string metrics;  // HOST:PORT of HTTP
  std::string version;
  TrustedGateways gateways;
};

class Server {
 public:
  // UNAVAILABLE or INVALID_ARGUMENT naming the address that cannot be had.
  static absl::StatusOr<std::unique_ptr<Server>> Listen(const ServerOptions& options,
                                                        const Clock* clock);
  virtual ~Server() = default;

  // With the ports they really have.
  virtual const std::string& grpc_address() const = 0;
  virtual const std::string& metrics_address() const = 0;

  // From now on requests are answered: health SERVING. `engine` is started, `channel` is its
  // output; both outlive the server. `at_end` is called once, on another thread, when the engine
  // has ended: after ShutDown began it, or because the device is lost.
  virtual void Serve(std::shared_ptr<const ServedModel> model, Engine* engine,
                     TokenChannel* channel, std::int32_t block_size,
                     std::function<void()> at_end) = 0;

  // Health NOT_SERVING -> no new requests -> what runs goes on for `drain` at most -> the rest is
  // cut off -> the engine ends -> its channel drains -> the pump joins -> gRPC shuts down.
  virtual void ShutDown(Duration drain) = 0;
};

}  // namespace millrace

#endif  // MILLRACE_SERVICE_SERVER_H_

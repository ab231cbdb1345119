#include "service/http_server.h"

#include <httplib.h>

#include <charconv>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status.h"
#include "base/thread_name.h"
#include "service/status_page.h"

namespace millrace {
namespace {

// A scraper and two probes at a time, and browsers: they open connections ahead of need, and each
// holds a thread until its first request or kReadSeconds.
constexpr int kThreads = 6;
// A peer that says nothing for so long is let go: kThreads of them must not block the probes for
// long.
constexpr int kReadSeconds = 5;

// As HTTP writes it. The page takes the uptime from it, for a browser's clock may be wrong.
std::string HttpDate() {
  return absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone());
}

void AnswerStatusPage(const httplib::Request&, httplib::Response& response) {
  response.set_header("Content-Security-Policy", std::string(kStatusPagePolicy));
  response.set_header("X-Content-Type-Options", "nosniff");
  response.set_header("Referrer-Policy", "no-referrer");
  // After an upgrade the page is the new server's.
  response.set_header("Cache-Control", "no-store");
  response.set_header("Connection", "close");
  response.set_content(kStatusPage.data(), kStatusPage.size(), "text/html; charset=utf-8");
}

class HttplibServer final : public HttpServer {
 public:
  explicit HttplibServer(Handlers handlers) : handlers_(std::move(handlers)) {
    // Not the library's default, SO_REUSEPORT: a second server on the same port must fail to start.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    // Made when the server begins to run, and only from then on can it be stopped.
    server_.new_task_queue = [this] {
      running_.set_value();
      return new httplib::ThreadPool(kThreads);
    };
    // Header and body leave in two writes; without this the second waits for a delayed
    // acknowledgement, 40 ms.
    server_.set_tcp_nodelay(true);
    server_.set_read_timeout(kReadSeconds);
    server_.set_write_timeout(kReadSeconds);
    server_.set_keep_alive_max_count(1000);
    server_.set_payload_max_length(4096);
    server_.set_post_routing_handler([](const httplib::Request&, httplib::Response& response) {
      response.set_header("Date", HttpDate());
    });
    server_.Get("/", AnswerStatusPage);
    server_.Get("/metrics", [this](const httplib::Request& request, httplib::Response& response) {
      // The page asks so: a thread is not held between two scrapes of a browser.
      if (request.has_param("close")) response.set_header("Connection", "close");
      response.set_content(handlers_.metrics(), "text/plain; version=0.0.4; charset=utf-8");
    });
    server_.Get("/livez", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("ok\n", "text/plain");
    });
    server_.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) {
      const bool ready = handlers_.ready();
      response.status = ready ? 200 : 503;
      response.set_content(ready ? "ok\n" : "not ready\n", "text/plain");
    });
  }

  ~HttplibServer() override {
    if (!thread_.joinable()) return;
    server_.stop();
    thread_.join();
  }

  absl::Status Bind(const HostPort& wanted) {
    HostPort got = wanted;
    if (wanted.port == 0) {
      got.port = server_.bind_to_any_port(wanted.host);
    } else if (!server_.bind_to_port(wanted.host, wanted.port)) {
      got.port = -1;
    }
    if (got.port < 0) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", FormatHostPort(wanted),
                                                 ": is it in use, or not an address of this "
                                                 "machine?"));
    }
    address_ = FormatHostPort(got);
    thread_ = std::thread([this] {
      NameThisThread("http");  // its pool's threads take the name from it
      server_.listen_after_bind();
    });
    running_.get_future().wait();
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

 private:
  const Handlers handlers_;
  httplib::Server server_;
  std::string address_;
  std::promise<void> running_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(const std::string& address) {
  const auto bad = [&address] {
    return absl::InvalidArgumentError(
        absl::StrCat("'", address.substr(0, 200), "' is no address; want HOST:PORT"));
  };
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return bad();
  HostPort out;
  out.host = address.substr(0, colon);
  if (out.host.front() == '[' && out.host.back() == ']') {
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != std::string::npos) {
    return bad();
  }
  const char* const end = address.data() + address.size();
  const auto [rest, error] = std::from_chars(address.data() + colon + 1, end, out.port);
  if (error != std::errc() || rest != end || out.port < 0 || out.port > 65535) return bad();
  return out;
}

std::string FormatHostPort(const HostPort& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return absl::StrCat(v6 ? "[" : "", address.host, v6 ? "]" : "", ":", address.port);
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Listen(const std::string& address,
                                                               Handlers handlers) {
  MILLRACE_ASSIGN_OR_RETURN(const HostPort wanted, ParseHostPort(address));
  auto server = std::make_unique<HttplibServer>(std::move(handlers));
  MILLRACE_RETURN_IF_ERROR(server->Bind(wanted));
  return server;
}

}  // namespace millrace

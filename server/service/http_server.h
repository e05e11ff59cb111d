// /metrics and /health over HTTP.
#ifndef KVSTREAM_SERVER_SERVICE_HTTP_SERVER_H_
#define KVSTREAM_SERVER_SERVICE_HTTP_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct mg_connection;
struct mg_context;

namespace kvstream {

struct HttpResponse {
  int status = 200;
  std::string content_type;
  std::string body;
};

// Answers GET and HEAD of a fixed set of paths, everything else with 404 or 405. Handlers run on
// the server's two threads, so at most two at a time; they may block. The destructor stops
// accepting and waits for handlers. Requests are limited to 16 KiB and 10 seconds.
class HttpServer {
 public:
  using Handler = std::function<HttpResponse()>;

  // `address` is HOST:PORT with a numeric host or localhost; port 0 takes a free one. UNAVAILABLE,
  // saying why and what to do, if it cannot be listened on; INVALID_ARGUMENT for an address that is
  // none.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(
      const std::string& address, std::map<std::string, Handler> handlers);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // The one listened on.
  int port() const { return port_; }

 private:
  explicit HttpServer(std::map<std::string, Handler> handlers);

  static int Handle(mg_connection* connection, void* self);
  static int LogMessage(const mg_connection* connection, const char* message);

  const std::map<std::string, Handler> handlers_;
  std::string address_;
  mg_context* context_ = nullptr;
  int port_ = 0;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_HTTP_SERVER_H_

#include "server/service/http_server.h"

#include <civetweb.h>

#include <cstring>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/service/listen_address.h"

namespace kvstream {
namespace {

void Send(mg_connection* connection, const HttpResponse& response, bool with_body) {
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            response.status, mg_get_response_code_text(connection, response.status),
            response.content_type.c_str(), response.body.size());
  if (with_body) mg_write(connection, response.body.data(), response.body.size());
}

}  // namespace

HttpServer::HttpServer(std::map<std::string, Handler> handlers) : handlers_(std::move(handlers)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(
    const std::string& address, std::map<std::string, Handler> handlers) {
  const absl::Status listenable = CheckListenable("http-listen", address);
  if (!listenable.ok()) return listenable;
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(handlers)));
  server->address_ = address;
  // civetweb takes numbers only.
  const std::string numeric =
      address.rfind("localhost:", 0) == 0 ? "127.0.0.1" + address.substr(9) : address;
  const char* options[] = {"listening_ports",
                           numeric.c_str(),
                           "num_threads",
                           "2",
                           "request_timeout_ms",
                           "10000",
                           "max_request_size",
                           "16384",
                           "enable_keep_alive",
                           "no",
                           nullptr};
  mg_callbacks callbacks = {};
  callbacks.log_message = &HttpServer::LogMessage;
  server->context_ = mg_start(&callbacks, nullptr, options);
  if (server->context_ == nullptr) {
    return absl::UnavailableError(absl::StrCat("cannot listen on --http-listen ", address,
                                               "; give a free port and a numeric address"));
  }
  mg_set_request_handler(server->context_, "/", &HttpServer::Handle, server.get());
  mg_server_port port = {};
  if (mg_get_server_ports(server->context_, 1, &port) != 1) {
    return absl::InternalError("the HTTP server does not tell its port");
  }
  server->port_ = port.port;
  return server;
}

HttpServer::~HttpServer() {
  if (context_ == nullptr) return;
  absl::Notification stopped;
  std::thread stopper([&] {
    mg_stop(context_);
    stopped.Notify();
  });
  // civetweb looks at its stop flag every two seconds, or when a connection comes.
  do {
    TouchListener(address_, port_);
  } while (!stopped.WaitForNotificationWithTimeout(absl::Milliseconds(10)));
  stopper.join();
}

int HttpServer::Handle(mg_connection* connection, void* self) {
  const mg_request_info* const request = mg_get_request_info(connection);
  const bool head = std::strcmp(request->request_method, "HEAD") == 0;
  HttpResponse response;
  const auto& handlers = static_cast<HttpServer*>(self)->handlers_;
  const auto handler = handlers.find(request->local_uri);
  if (handler == handlers.end()) {
    response = {404, "text/plain; charset=utf-8", "not found; there are /metrics and /health\n"};
  } else if (!head && std::strcmp(request->request_method, "GET") != 0) {
    response = {405, "text/plain; charset=utf-8", "only GET and HEAD\n"};
  } else {
    response = handler->second();
  }
  Send(connection, response, !head);
  return response.status;
}

// civetweb would print its complaints about clients; they are the clients' affair.
int HttpServer::LogMessage(const mg_connection* connection, const char* message) { return 1; }

}  // namespace kvstream

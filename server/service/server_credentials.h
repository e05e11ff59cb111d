// How clients' connections are protected.
#ifndef KVSTREAM_SERVER_SERVICE_SERVER_CREDENTIALS_H_
#define KVSTREAM_SERVER_SERVICE_SERVER_CREDENTIALS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/security/server_credentials.h"
#include "server/service/options.h"

namespace kvstream {

// What the files of TLS hold, checked. PEM.
struct TlsFiles {
  std::string pair;   // the certificate with its chain, then its key
  std::string roots;  // who signs clients' certificates; empty: they need none
};

// Reads options.tls_cert, tls_key and tls_client_ca. NOT_FOUND for a file that cannot be read,
// INVALID_ARGUMENT for one that does not hold what it should and for a key that is not the
// certificate's: gRPC itself would only say that it cannot listen.
absl::StatusOr<TlsFiles> ReadTlsFiles(const ServerOptions& options);

// The credentials of a server that speaks TLS, whose certificates can be replaced while it runs.
// With roots, clients must show a certificate that they, or what they signed, have signed; whether
// there are any is settled at the beginning.
//
// gRPC looks for replaced certificates at files only, once a second. These files exist in this
// process's memory alone (memfd), so that no key of ours is ever copied to a disk, and one replaces
// the other in one step. Thread-safe. Must outlive the server.
class TlsCredentials {
 public:
  // UNAVAILABLE if the system has no memory files.
  static absl::StatusOr<std::unique_ptr<TlsCredentials>> Create(const TlsFiles& files);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  // Connections that begin more than some two seconds later use these; those that are there go on.
  // INVALID_ARGUMENT if roots came or went.
  absl::Status Replace(const TlsFiles& files);

  std::shared_ptr<grpc::ServerCredentials> credentials() const { return credentials_; }

 private:
  TlsCredentials(int pair_fd, int roots_fd) : pair_fd_(pair_fd), roots_fd_(roots_fd) {}

  const int pair_fd_;
  const int roots_fd_;  // -1: none
  std::shared_ptr<grpc::ServerCredentials> credentials_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_SERVER_CREDENTIALS_H_

// How clients' connections are protected.
#ifndef KVSTREAM_SERVER_SERVICE_SERVER_CREDENTIALS_H_
#define KVSTREAM_SERVER_SERVICE_SERVER_CREDENTIALS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "grpcpp/security/server_credentials.h"
#include "server/service/options.h"

namespace kvstream {

// Plain TCP without options.tls_cert. With it TLS; with options.tls_client_ca clients must show a
// certificate that it, or what it signed, has signed. The files are read here, once.
//
// NOT_FOUND for a file that cannot be read, INVALID_ARGUMENT for one that does not hold what it
// should and for a key that is not the certificate's: gRPC itself would only say that it cannot
// listen.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerOptions& options);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_SERVER_CREDENTIALS_H_

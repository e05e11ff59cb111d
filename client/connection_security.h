// How a connection is protected, and what it tells the server about who is calling.
#ifndef KVSTREAM_CLIENT_CONNECTION_SECURITY_H_
#define KVSTREAM_CLIENT_CONNECTION_SECURITY_H_

#include <string>

namespace kvstream {

// The files are read once, when the connection is made.
struct ConnectionSecurity {
  // PEM file of those who sign the server's certificate, which must be for the host name or address
  // that the client connects to. Empty: no TLS.
  std::string tls_ca_file;
  // PEM files of the client's own certificate (chain) and its key, for a server that asks for one.
  std::string tls_cert_file;
  std::string tls_key_file;
  // The tenant's token, sent with every call; printable, at most 4096 bytes. Without TLS whoever
  // reads the network can use it. Empty: none.
  std::string token;
  // Of an admin: the tenant to list, to delete from and to see the stats of. Empty: itself.
  std::string acting_for;
};

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_CONNECTION_SECURITY_H_

// Why an address cannot be listened on, in words that say what to do. The libraries that open the
// ports do not tell.
#ifndef KVSTREAM_SERVER_SERVICE_LISTEN_ADDRESS_H_
#define KVSTREAM_SERVER_SERVICE_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kvstream {

// Tries to bind the address and lets it go again. INVALID_ARGUMENT if the host does not resolve,
// UNAVAILABLE naming the option, the address and the system's reason if it cannot be bound.
// Somebody else may still take the port after an OK.
absl::Status CheckListenable(absl::string_view option, const std::string& address);

// Whether an address that SplitHostPort takes is of this machine alone, as far as its text tells.
bool IsLoopback(const std::string& address);

// Opens and closes one connection, to wake whoever sleeps in accept there. Failing is no error.
void TouchListener(const std::string& address, int port);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_LISTEN_ADDRESS_H_

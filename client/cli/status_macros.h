// Early return on errors, for the verbs of kvstreamctl.
#ifndef KVSTREAM_CLIENT_CLI_STATUS_MACROS_H_
#define KVSTREAM_CLIENT_CLI_STATUS_MACROS_H_

#include <utility>

// Returns the status if it is not OK.
#define CLI_RETURN_IF_ERROR(expression) \
  if (absl::Status cli_status = (expression); !cli_status.ok()) return cli_status

// NOLINTBEGIN(bugprone-macro-parentheses): lhs may be a declaration, and names are pasted.
// lhs = the value of a StatusOr, or return its status.
#define CLI_ASSIGN_OR_RETURN(lhs, expression) \
  CLI_ASSIGN_OR_RETURN_IMPL(CLI_CONCAT(cli_status_or_, __LINE__), lhs, expression)
#define CLI_ASSIGN_OR_RETURN_IMPL(temporary, lhs, expression) \
  auto temporary = (expression);                              \
  if (!temporary.ok()) return temporary.status();             \
  lhs = *std::move(temporary)
#define CLI_CONCAT(a, b) CLI_CONCAT_IMPL(a, b)
#define CLI_CONCAT_IMPL(a, b) a##b
// NOLINTEND(bugprone-macro-parentheses)

#endif  // KVSTREAM_CLIENT_CLI_STATUS_MACROS_H_

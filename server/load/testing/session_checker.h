// What LoadSession and the proto promise about the order of actions, checked action by action.
#ifndef KVSTREAM_SERVER_LOAD_TESTING_SESSION_CHECKER_H_
#define KVSTREAM_SERVER_LOAD_TESTING_SESSION_CHECKER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "server/load/load_session.h"

namespace kvstream {

// Errors are INTERNAL and say what was broken.
class SessionChecker {
 public:
  explicit SessionChecker(const LoadSpec& spec);

  absl::Status OnPlan(const SendPlan& plan);
  // window and in_flight: before this data was sent.
  absl::Status OnData(const SendData& data, uint64_t in_flight, uint64_t window);
  absl::Status OnOrder(const SendOrder& order) const;
  // The session has accepted this report.
  void OnProgress(const ClientProgress& progress);
  // The store could not read what OnData was told of.
  void OnUnavailable(const SendData& data);
  absl::Status OnFinish(const Finish& finish, uint64_t bytes_sent) const;

 private:
  struct Chunk {
    int plan_level = -1;
    bool planned = false;
    bool recompute = false;
    bool by_order = false;  // the client has begun it, or will, under an order
    int complete = 0;
    uint64_t offset = 0;
  };
  const LoadSpec& spec_;
  std::vector<Chunk> chunks_;
  uint32_t begun_ = 0;  // under orders: all before it
  absl::optional<LoadTaken> taken_;
  absl::optional<uint32_t> inside_;  // chunk of a segment that was begun
  Chunk before_last_;
};

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_LOAD_TESTING_SESSION_CHECKER_H_

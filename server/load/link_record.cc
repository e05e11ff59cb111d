#include "server/load/link_record.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace kvstream {

constexpr absl::Duration LinkRecord::kFade;
constexpr absl::Duration LinkRecord::kForget;
constexpr double LinkRecord::kMaxSeconds;

void LinkRecord::Observe(absl::string_view network, double bytes_per_second, double seconds,
                         absl::Duration now) {
  if (network.empty()) return;
  if (!(bytes_per_second > 0) || !(seconds > 0) || !std::isfinite(bytes_per_second)) return;
  seconds = std::min(seconds, kMaxSeconds);
  const std::string key(network);
  absl::MutexLock lock(&mutex_);
  const auto found = by_network_.find(key);
  if (found == by_network_.end()) {
    if (networks_max_ == 0) return;
    if (entries_.size() >= networks_max_) {
      by_network_.erase(entries_.back().network);
      entries_.pop_back();
    }
    entries_.push_front({key, 0, 0, now});
    by_network_[key] = entries_.begin();
  } else {
    entries_.splice(entries_.begin(), entries_, found->second);
  }
  Entry& entry = entries_.front();
  const absl::Duration age = std::max(now - entry.at, absl::ZeroDuration());
  const double fade = age > kForget ? 0 : std::exp(-absl::FDivDuration(age, kFade));
  entry.bytes = entry.bytes * fade + bytes_per_second * seconds;
  entry.seconds = entry.seconds * fade + seconds;
  entry.at = std::max(entry.at, now);
}

double LinkRecord::Expected(absl::string_view network, absl::Duration now) const {
  absl::MutexLock lock(&mutex_);
  const auto found = by_network_.find(std::string(network));
  if (found == by_network_.end() || now - found->second->at > kForget) return 0;
  return found->second->bytes / found->second->seconds;
}

size_t LinkRecord::size() const {
  absl::MutexLock lock(&mutex_);
  return entries_.size();
}

std::string NetworkOfPeer(absl::string_view peer) {
  absl::string_view address = peer;
  if (absl::ConsumePrefix(&address, "ipv4:")) {
    const std::vector<absl::string_view> parts =
        absl::StrSplit(address.substr(0, address.rfind(':')), '.');
    if (parts.size() == 4 && parts[0] != "127") {
      return absl::StrCat("ipv4:", parts[0], ".", parts[1], ".", parts[2]);
    }
  } else if (absl::ConsumePrefix(&address, "ipv6:")) {
    if (!absl::ConsumePrefix(&address, "[")) absl::ConsumePrefix(&address, "%5B");
    const std::vector<absl::string_view> groups =
        absl::StrSplit(address.substr(0, address.find_first_of("]%")), absl::MaxSplits(':', 3));
    if (groups.size() == 4 && !groups[0].empty()) {
      return absl::StrCat("ipv6:", groups[0], ":", groups[1], ":", groups[2]);
    }
  }
  return {};
}

}  // namespace kvstream

#include "server/load/link_record.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace kvstream {

constexpr absl::Duration LinkRecord::kFade;
constexpr absl::Duration LinkRecord::kForget;
constexpr double LinkRecord::kMaxSeconds;

LinkRecord::Entry* LinkRecord::Touch(absl::string_view network, absl::Duration now) {
  if (network.empty() || networks_max_ == 0) return nullptr;
  const std::string key(network);
  const auto found = by_network_.find(key);
  if (found == by_network_.end()) {
    if (entries_.size() >= networks_max_) {
      by_network_.erase(entries_.back().network);
      entries_.pop_back();
    }
    Entry entry;
    entry.network = key;
    entry.at = now;
    entries_.push_front(std::move(entry));
    by_network_[key] = entries_.begin();
    return &entries_.front();
  }
  entries_.splice(entries_.begin(), entries_, found->second);
  Entry& entry = entries_.front();
  const absl::Duration age = std::max(now - entry.at, absl::ZeroDuration());
  const double fade = age > kForget ? 0 : std::exp(-absl::FDivDuration(age, kFade));
  entry.bytes *= fade;
  entry.seconds *= fade;
  if (age > kForget) entry.round_trip = absl::ZeroDuration();
  entry.at = std::max(entry.at, now);
  return &entry;
}

const LinkRecord::Entry* LinkRecord::Find(absl::string_view network, absl::Duration now) const {
  const auto found = by_network_.find(std::string(network));
  if (found == by_network_.end() || now - found->second->at > kForget) return nullptr;
  return &*found->second;
}

void LinkRecord::Observe(absl::string_view network, double bytes_per_second, double seconds,
                         absl::Duration now) {
  if (!(bytes_per_second > 0) || !(seconds > 0) || !std::isfinite(bytes_per_second)) return;
  seconds = std::min(seconds, kMaxSeconds);
  absl::MutexLock lock(&mutex_);
  Entry* const entry = Touch(network, now);
  if (entry == nullptr) return;
  entry->bytes += bytes_per_second * seconds;
  entry->seconds += seconds;
}

void LinkRecord::ObserveRoundTrip(absl::string_view network, absl::Duration round_trip,
                                  absl::Duration now) {
  if (round_trip <= absl::ZeroDuration() || round_trip > absl::Hours(1)) return;
  absl::MutexLock lock(&mutex_);
  Entry* const entry = Touch(network, now);
  if (entry == nullptr) return;
  const bool first = entry->round_trip == absl::ZeroDuration();
  entry->round_trip = first ? round_trip : (entry->round_trip + round_trip) / 2;
}

double LinkRecord::Expected(absl::string_view network, absl::Duration now) const {
  absl::MutexLock lock(&mutex_);
  const Entry* const entry = Find(network, now);
  return entry == nullptr || !(entry->seconds > 0) ? 0 : entry->bytes / entry->seconds;
}

absl::Duration LinkRecord::RoundTrip(absl::string_view network, absl::Duration now) const {
  absl::MutexLock lock(&mutex_);
  const Entry* const entry = Find(network, now);
  return entry == nullptr ? absl::ZeroDuration() : entry->round_trip;
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

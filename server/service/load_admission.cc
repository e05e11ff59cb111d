#include "server/service/load_admission.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

constexpr absl::Duration kRetryMin = absl::Milliseconds(50);
constexpr absl::Duration kRetryMax = absl::Seconds(5);

}  // namespace

absl::string_view LoadRefusalLabel(LoadRefusal reason) {
  switch (reason) {
    case LoadRefusal::kLoads:
      return "loads";
    case LoadRefusal::kLoadsPerPeer:
      return "loads_per_peer";
    case LoadRefusal::kLoadsPerTenant:
      return "loads_per_tenant";
    case LoadRefusal::kInFlightBytes:
      return "in_flight_bytes";
    case LoadRefusal::kChunks:
      return "chunks";
  }
  return "unknown";
}

LoadAdmission::Place& LoadAdmission::Place::operator=(Place&& other) noexcept {
  if (this != &other) {
    Release();
    admission_ = std::exchange(other.admission_, nullptr);
    host_ = std::move(other.host_);
    tenant_ = std::exchange(other.tenant_, nullptr);
  }
  return *this;
}

void LoadAdmission::Place::Release() {
  if (admission_ != nullptr) std::exchange(admission_, nullptr)->Leave(host_);
  if (tenant_ != nullptr) std::exchange(tenant_, nullptr)->Leave();
}

bool TenantLoads::Enter() {
  int loads = in_flight();
  do {
    const int most = limit();
    if (most > 0 && loads >= most) return false;
  } while (!in_flight_.compare_exchange_weak(loads, loads + 1, std::memory_order_relaxed));
  return true;
}

LoadAdmission::LoadAdmission(int per_peer, uint64_t in_flight_bytes_max,
                             std::function<uint64_t()> in_flight_bytes)
    : per_peer_(per_peer),
      in_flight_bytes_max_(in_flight_bytes_max),
      in_flight_bytes_(std::move(in_flight_bytes)) {}

absl::StatusOr<LoadAdmission::Place> LoadAdmission::Enter(absl::string_view host,
                                                          TenantLoads* tenant,
                                                          LoadRefusal* reason) {
  if (in_flight_bytes_() >= in_flight_bytes_max_) {
    *reason = LoadRefusal::kInFlightBytes;
    return absl::ResourceExhaustedError(
        absl::StrCat("the server's loads have ", in_flight_bytes_max_,
                     " bytes in flight (--max-in-flight-bytes); try again later"));
  }
  absl::MutexLock lock(&mutex_);
  int& loads = loads_[std::string(host)];
  if (per_peer_ > 0 && loads >= per_peer_) {
    *reason = LoadRefusal::kLoadsPerPeer;
    return absl::ResourceExhaustedError(absl::StrCat(
        "this host has ", per_peer_, " loads in flight (--max-loads-per-peer); try again later"));
  }
  if (tenant != nullptr && !tenant->Enter()) {
    if (loads == 0) loads_.erase(std::string(host));
    *reason = LoadRefusal::kLoadsPerTenant;
    return absl::ResourceExhaustedError(
        absl::StrCat("this tenant has ", tenant->limit(),
                     " loads in flight (max-loads in the tenants file, or "
                     "--max-loads-per-tenant); try again later"));
  }
  ++loads;
  return Place(this, std::string(host), tenant);
}

void LoadAdmission::Leave(const std::string& host) {
  absl::MutexLock lock(&mutex_);
  const auto found = loads_.find(host);
  if (found != loads_.end() && --found->second <= 0) loads_.erase(found);
}

void LoadAdmission::OnEnd(absl::Duration took) {
  absl::MutexLock lock(&mutex_);
  mean_ += (std::min(took, absl::Minutes(10)) - mean_) / 16;
}

absl::Duration LoadAdmission::RetryAfter(int loads_in_flight, absl::Duration now) {
  absl::MutexLock lock(&mutex_);
  const absl::Duration mean = std::max(mean_, absl::Milliseconds(1));
  const double age = absl::FDivDuration(std::max(now - refused_at_, absl::ZeroDuration()), mean);
  refused_ *= std::exp(-age);
  const absl::Duration after = mean * ((1 + refused_) / std::max(loads_in_flight, 1));
  refused_ += 1;
  refused_at_ = std::max(refused_at_, now);
  return std::min(std::max(after, kRetryMin), kRetryMax);
}

std::string HostOfPeer(absl::string_view peer) {
  if (!absl::StartsWith(peer, "ipv4:") && !absl::StartsWith(peer, "ipv6:")) {
    return std::string(peer);
  }
  return std::string(peer.substr(0, peer.rfind(':')));
}

}  // namespace kvstream

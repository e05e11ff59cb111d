#include "server/load/link_groups.h"

#include <algorithm>
#include <utility>

namespace kvstream {

// Members of both links have the same id.
class LinkGroups::Gate final : public LinkGate {
 public:
  // link and egress: null where there is none.
  Gate(LinkGroups* groups, Link* link, Link* egress, LinkShare::MemberId id, absl::Duration now)
      : groups_(groups), link_(link), egress_(egress), id_(id), now_(now) {}

  ~Gate() override {
    Wakes wakes;
    {
      absl::MutexLock lock(&groups_->mutex_);
      const absl::Duration now = groups_->Later(now_);
      groups_->in_flight_ -= in_flight_;
      for (Link* link : {link_, egress_}) {
        if (link == nullptr) continue;
        link->share.Leave(id_, now);
        link->wakes.erase(id_);
        CollectWakes(link, now, &wakes);
      }
      if (link_ != nullptr && link_->share.size() == 0) {
        groups_->links_.erase(std::string(link_->name));  // a copy: the name goes with the link
      }
    }
    Wake(wakes);
  }

  bool Admit(uint64_t bytes, const SendDemand& demand, absl::Duration now) override {
    Wakes wakes;
    bool admitted = true;
    {
      absl::MutexLock lock(&groups_->mutex_);
      now_ = now = groups_->Later(now);
      if (in_flight_ > 0 && groups_->in_flight_ + bytes > groups_->options_.in_flight_bytes_max) {
        // Not for long, or the server is too small; whose turn it is does not matter then.
        ask_again_at_ = now + LinkShare::kPoll;
        return false;
      }
      for (Link* link : {link_, egress_}) {
        if (link == nullptr || link->share.Ask(id_, bytes, demand, now)) continue;
        ask_again_at_ = link->share.AskAgainAt(bytes, now);
        admitted = false;
        break;
      }
      if (admitted) {
        in_flight_ += bytes;
        groups_->in_flight_ += bytes;
      }
      for (Link* link : {link_, egress_}) {
        if (link == nullptr) continue;
        if (admitted) link->share.Commit(id_, bytes, now);
        CollectWakes(link, now, &wakes);
      }
    }
    Wake(wakes);
    return admitted;
  }

  absl::Duration AskAgainAt() const override { return ask_again_at_; }

  bool shared() const override {
    absl::MutexLock lock(&groups_->mutex_);
    return (link_ != nullptr && link_->share.size() > 1) ||
           (egress_ != nullptr && egress_->share.size() > 1);
  }

  void OnUnsent(uint64_t bytes, absl::Duration now) override {
    Wakes wakes;
    {
      absl::MutexLock lock(&groups_->mutex_);
      now_ = now = groups_->Later(now);
      in_flight_ -= bytes;
      groups_->in_flight_ -= bytes;
      for (Link* link : {link_, egress_}) {
        if (link == nullptr) continue;
        link->share.OnUnsent(id_, bytes, now);
        CollectWakes(link, now, &wakes);
      }
    }
    Wake(wakes);
  }

  void OnAcknowledged(uint64_t bytes, const SendDemand& demand, absl::Duration now) override {
    Wakes wakes;
    {
      absl::MutexLock lock(&groups_->mutex_);
      now_ = now = groups_->Later(now);
      in_flight_ -= bytes;
      groups_->in_flight_ -= bytes;
      for (Link* link : {link_, egress_}) {
        if (link == nullptr) continue;
        link->share.OnAcknowledged(id_, bytes, demand, now);
        CollectWakes(link, now, &wakes);
      }
    }
    Wake(wakes);
  }

  BandwidthEstimate Expect(const BandwidthEstimate& own, absl::Duration now) override {
    absl::MutexLock lock(&groups_->mutex_);
    now = groups_->Later(now);
    BandwidthEstimate expected = own;
    if (link_ != nullptr) expected = link_->share.Expect(id_, expected, now);
    if (egress_ != nullptr) expected = egress_->share.Expect(id_, expected, now);
    return expected;
  }

  absl::Duration QueueDelay(absl::Duration now) override {
    absl::MutexLock lock(&groups_->mutex_);
    return link_ != nullptr ? link_->share.QueueDelay(groups_->Later(now)) : absl::ZeroDuration();
  }

  LinkShareView View(absl::Duration now) override {
    absl::MutexLock lock(&groups_->mutex_);
    Link* const link = link_ != nullptr ? link_ : egress_;
    return link != nullptr ? link->share.View(id_, groups_->Later(now)) : LinkShareView();
  }

  BandwidthEstimate LinkEstimate(absl::Duration now) override {
    absl::MutexLock lock(&groups_->mutex_);
    return link_ != nullptr ? link_->share.estimate(groups_->Later(now)) : BandwidthEstimate();
  }

 private:
  static void Wake(const Wakes& wakes) {
    for (const auto& wake : wakes) (*wake)();
  }

  LinkGroups* const groups_;
  Link* const link_;
  Link* const egress_;
  const LinkShare::MemberId id_;
  uint64_t in_flight_ = 0;
  absl::Duration now_;  // of the newest call
  absl::Duration ask_again_at_;
};

LinkGroups::LinkGroups(const Options& options, absl::Duration now)
    : options_(options), latest_(now) {
  if (options.egress_bytes_per_second <= 0) return;
  LinkShareOptions share;
  share.fixed_bytes_per_second = options.egress_bytes_per_second;
  egress_ = std::make_unique<Link>("", share, now);
}

std::unique_ptr<LinkGate> LinkGroups::Join(const std::string& link, double hint,
                                           std::function<void()> wake, absl::Duration now) {
  absl::MutexLock lock(&mutex_);
  now = Later(now);
  const auto shared_wake = std::make_shared<const std::function<void()>>(std::move(wake));
  const LinkShare::MemberId id = next_id_++;
  Link* shared = nullptr;
  if (!link.empty()) {
    std::unique_ptr<Link>& entry = links_[link];
    if (entry == nullptr) {
      LinkShareOptions options;
      options.window_bytes_min = options_.window_bytes_min;
      options.window_bytes_max = options_.window_bytes_max;
      options.hint_bytes_per_second = hint;
      entry = std::make_unique<Link>(link, options, now);
    }
    shared = entry.get();
  }
  for (Link* joined : {shared, egress_.get()}) {
    if (joined == nullptr) continue;
    joined->share.Join(id, now);
    joined->wakes.emplace(id, shared_wake);
  }
  return std::make_unique<Gate>(this, shared, egress_.get(), id, now);
}

absl::Duration LinkGroups::Later(absl::Duration now) {
  latest_ = std::max(latest_, now);
  return latest_;
}

void LinkGroups::CollectWakes(Link* link, absl::Duration now, Wakes* wakes) {
  while (const absl::optional<LinkShare::MemberId> id = link->share.NextToWake(now)) {
    wakes->push_back(link->wakes.at(*id));
  }
}

uint64_t LinkGroups::in_flight_bytes() const {
  absl::MutexLock lock(&mutex_);
  return in_flight_;
}

size_t LinkGroups::loads(const std::string& link) const {
  absl::MutexLock lock(&mutex_);
  const auto found = links_.find(link);
  return found == links_.end() ? 0 : found->second->share.size();
}

size_t LinkGroups::links() const {
  absl::MutexLock lock(&mutex_);
  return links_.size();
}

}  // namespace kvstream

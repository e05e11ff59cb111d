#include "server/service/options.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/service/units.h"

namespace kvstream {
namespace {

// What a load needs of a chunk that another daemon removed stays for a minute, and from its lease
// on, which is written 30 s after the load began at the latest. Others cannot know this option, so
// that it has to fit what they do.
constexpr absl::Duration kRadosStalenessMax = absl::Seconds(20);

OptionField TextField(absl::string_view name, absl::string_view metavar, absl::string_view help,
                      std::string ServerOptions::*member) {
  return {name, metavar, help,
          [member](absl::string_view text, ServerOptions& options) {
            options.*member = std::string(text);
            return absl::OkStatus();
          },
          [member](const ServerOptions& options) { return options.*member; }};
}

template <typename Integer>
OptionField CountField(absl::string_view name, absl::string_view help,
                       Integer ServerOptions::*member) {
  return {
      name, "N", help,
      [member](absl::string_view text, ServerOptions& options) {
        Integer value = 0;
        if (!absl::SimpleAtoi(text, &value)) {
          return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not a whole number"));
        }
        options.*member = value;
        return absl::OkStatus();
      },
      [member](const ServerOptions& options) { return absl::StrCat(options.*member); }};
}

OptionField SizeField(absl::string_view name, absl::string_view help,
                      uint64_t ServerOptions::*member) {
  return {name, "SIZE", help,
          [member](absl::string_view text, ServerOptions& options) {
            const absl::StatusOr<uint64_t> bytes = ParseByteSize(text);
            if (bytes.ok()) options.*member = *bytes;
            return bytes.status();
          },
          [member](const ServerOptions& options) { return FormatByteSize(options.*member); }};
}

OptionField DelayField(absl::string_view name, absl::string_view help,
                       absl::Duration ServerOptions::*member) {
  return {name, "DURATION", help,
          [member](absl::string_view text, ServerOptions& options) {
            const absl::StatusOr<absl::Duration> delay = ParseDelay(text);
            if (delay.ok()) options.*member = *delay;
            return delay.status();
          },
          [member](const ServerOptions& options) { return absl::FormatDuration(options.*member); }};
}

template <typename Enum>
OptionField ChoiceField(absl::string_view name, absl::string_view metavar, absl::string_view help,
                        Enum ServerOptions::*member,
                        std::vector<std::pair<absl::string_view, Enum>> choices) {
  return {
      name, metavar, help,
      [member, choices, metavar](absl::string_view text, ServerOptions& options) {
        for (const auto& [choice, value] : choices) {
          if (text == choice) {
            options.*member = value;
            return absl::OkStatus();
          }
        }
        return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not one of ", metavar));
      },
      [member, choices](const ServerOptions& options) {
        for (const auto& [choice, value] : choices) {
          if (options.*member == value) return std::string(choice);
        }
        return std::string();
      }};
}

template <typename T>
std::string Text(T value) {
  return absl::StrCat(value);
}
std::string Text(absl::Duration value) { return absl::FormatDuration(value); }

template <typename T>
absl::Status CheckRange(absl::string_view name, T value, T least, T most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--", name, " is ", Text(value), "; it must be from ", Text(least), " to ", Text(most)));
}

absl::Status CheckAddress(absl::string_view name, absl::string_view address) {
  std::string host;
  int port = 0;
  const absl::Status status = SplitHostPort(address, host, port);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": ", status.message()));
}

constexpr uint64_t kTerabyte = uint64_t{1} << 40;

}  // namespace

absl::Status SplitHostPort(absl::string_view text, std::string& host, int& port) {
  const size_t colon = text.rfind(':');
  const absl::string_view before = colon == absl::string_view::npos ? "" : text.substr(0, colon);
  int parsed = -1;
  const bool bare_ipv6 = !before.empty() && before[0] != '[' && before.find(':') != before.npos;
  if (before.empty() || bare_ipv6 || !absl::SimpleAtoi(text.substr(colon + 1), &parsed) ||
      parsed < 0 || parsed > 65535) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" is not HOST:PORT; write for example 127.0.0.1:7411 or [::1]:7411"));
  }
  host = std::string(before);
  port = parsed;
  return absl::OkStatus();
}

absl::Status ServerOptions::Validate() const {
  absl::Status status = CheckAddress("listen", listen);
  status.Update(CheckAddress("http-listen", http_listen));
  if (tls_cert.empty() != tls_key.empty()) {
    status.Update(absl::InvalidArgumentError("give --tls-cert and --tls-key, or neither"));
  }
  if (!tls_client_ca.empty() && tls_cert.empty()) {
    status.Update(absl::InvalidArgumentError(
        "--tls-client-ca needs --tls-cert: without TLS clients show no certificate"));
  }
  if ((store == StoreKind::kRocksDb || store == StoreKind::kTiered) && data_dir.empty()) {
    status.Update(
        absl::InvalidArgumentError("--data-dir is empty; name a directory or take --store memory"));
  }
  status.Update(CheckRange<uint64_t>("block-cache-bytes", block_cache_bytes, 8 << 20, kTerabyte));
  status.Update(CheckRange<uint64_t>("info-cache-bytes", info_cache_bytes, 0, kTerabyte));
  if (capacity_bytes != 0) {
    status.Update(
        CheckRange<uint64_t>("capacity-bytes", capacity_bytes, 64 << 20, 1024 * kTerabyte));
  }
  if (store != StoreKind::kRocksDb &&
      !(backup_dir.empty() && restore_from.empty() && salvage_from.empty())) {
    status.Update(absl::InvalidArgumentError(
        "--backup-dir, --restore-from and --salvage-from are for --store rocksdb"));
  }
  if (!restore_from.empty() && !salvage_from.empty()) {
    status.Update(
        absl::InvalidArgumentError("--restore-from and --salvage-from cannot both be given"));
  }
  status.Update(CheckRange<uint64_t>("memory-store-bytes", memory_store_bytes, 1, 64 * kTerabyte));
  const bool ceph = store == StoreKind::kRados || store == StoreKind::kTiered;
  if (ceph && (rados_pool.empty() || rados_user.empty())) {
    status.Update(absl::InvalidArgumentError("--rados-pool and --rados-user must not be empty"));
  }
  if (rados_capacity_bytes != 0) {
    status.Update(CheckRange<uint64_t>("rados-capacity-bytes", rados_capacity_bytes, 64 << 20,
                                       1024 * 1024 * kTerabyte));
  }
  if (rados_capacity_bytes != 0 && !ceph) {
    status.Update(
        absl::InvalidArgumentError("--rados-capacity-bytes is for --store rados and tiered"));
  }
  if (rados_shards > 4096 || (rados_shards & (rados_shards - 1)) != 0) {
    status.Update(absl::InvalidArgumentError(
        "--rados-shards must be a power of two up to 4096, or 0 for those that there are"));
  }
  if (rados_shards != 0 && !ceph) {
    status.Update(absl::InvalidArgumentError("--rados-shards is for --store rados and tiered"));
  }
  if (store == StoreKind::kRados && capacity_bytes != 0 && rados_capacity_bytes != 0 &&
      capacity_bytes != rados_capacity_bytes) {
    status.Update(absl::InvalidArgumentError(
        "with --store rados, --capacity-bytes and --rados-capacity-bytes are one: give one"));
  }
  if (store == StoreKind::kTiered && capacity_bytes == 0) {
    status.Update(absl::InvalidArgumentError(
        "--store tiered needs --capacity-bytes, which bounds the tier in --data-dir"));
  }
  status.Update(CheckRange("rados-timeout", rados_timeout, absl::Seconds(1), absl::Minutes(10)));
  status.Update(
      CheckRange("rados-staleness", rados_staleness, absl::ZeroDuration(), kRadosStalenessMax));
  status.Update(CheckRange("max-loads", max_loads, 1, 100000));
  status.Update(CheckRange<int64_t>("max-load-chunks", max_load_chunks, 1, int64_t{1} << 32));
  status.Update(CheckRange("max-loads-per-peer", max_loads_per_peer, 0, 100000));
  status.Update(CheckRange("max-loads-per-tenant", max_loads_per_tenant, 0, 100000));
  status.Update(
      CheckRange<uint64_t>("max-in-flight-bytes", max_in_flight_bytes, 1 << 20, 16 * kTerabyte));
  status.Update(
      CheckRange<uint64_t>("egress-bytes-per-second", egress_bytes_per_second, 0, kTerabyte));
  status.Update(CheckRange("max-puts", max_puts, 1, 100000));
  status.Update(CheckRange("max-puts-per-tenant", max_puts_per_tenant, 0, 100000));
  status.Update(CheckRange("max-requests", max_requests, 1, 100000));
  status.Update(CheckRange<uint64_t>("put-buffer-bytes", put_buffer_bytes, 1, kTerabyte));
  // The stores refuse more than 1 GiB a value.
  status.Update(CheckRange<uint64_t>("max-chunk-bytes", max_chunk_bytes, 1, uint64_t{1} << 30));
  status.Update(CheckRange<uint64_t>("max-profile-bytes", max_profile_bytes, 1, uint64_t{1} << 30));
  status.Update(CheckRange<uint64_t>("profile-cache-bytes", profile_cache_bytes, 0, kTerabyte));
  // The protocol promises frames of at most 256 KiB.
  status.Update(CheckRange<uint64_t>("frame-bytes", frame_bytes, 4 << 10, 1 << 20));
  status.Update(CheckRange<uint64_t>("window-bytes-max", window_bytes_max, 64 << 10, 1 << 30));
  status.Update(
      CheckRange<uint64_t>("window-bytes-min", window_bytes_min, 4 << 10, window_bytes_max));
  status.Update(CheckRange("read-threads", read_threads, 1, 1024));
  status.Update(CheckRange("write-threads", write_threads, 1, 1024));
  status.Update(CheckRange("client-idle-timeout", client_idle_timeout, absl::Milliseconds(10),
                           absl::Hours(24)));
  status.Update(CheckRange("drain-timeout", drain_timeout, absl::ZeroDuration(), absl::Hours(24)));
  status.Update(CheckRange("default-ttl", default_ttl, absl::ZeroDuration(), kMaxTtl));
  status.Update(
      CheckRange("expiry-interval", expiry_interval, absl::Milliseconds(10), absl::Hours(24)));
  if (status.ok() && put_buffer_bytes < max_chunk_bytes) {
    status = absl::InvalidArgumentError(
        absl::StrCat("--put-buffer-bytes is ", FormatByteSize(put_buffer_bytes),
                     "; it must hold at least one chunk of --max-chunk-bytes (",
                     FormatByteSize(max_chunk_bytes), ")"));
  }
  if (status.ok() && put_buffer_bytes_per_tenant > 0 &&
      put_buffer_bytes_per_tenant < max_chunk_bytes) {
    status = absl::InvalidArgumentError(absl::StrCat(
        "--put-buffer-bytes-per-tenant is ", FormatByteSize(put_buffer_bytes_per_tenant),
        "; it must hold at least one chunk of --max-chunk-bytes (", FormatByteSize(max_chunk_bytes),
        "), or be 0"));
  }
  bool known_level = false;
  for (absl::string_view level : {"trace", "debug", "info", "warn", "error", "off"}) {
    known_level = known_level || log_level == level;
  }
  if (!known_level) {
    status.Update(absl::InvalidArgumentError(absl::StrCat(
        "--log-level is \"", log_level, "\"; it must be trace, debug, info, warn, error or off")));
  }
  return status;
}

const std::vector<OptionField>& OptionFields() {
  using O = ServerOptions;
  static const auto* const fields = new std::vector<OptionField>{
      TextField("listen", "HOST:PORT", "gRPC address; port 0 takes a free one", &O::listen),
      TextField("http-listen", "HOST:PORT", "HTTP address of /metrics and /health",
                &O::http_listen),
      TextField("ports-file", "FILE", "write the chosen ports there as JSON", &O::ports_file),
      TextField("tls-cert", "FILE", "PEM certificate (chain) of this server; turns on TLS",
                &O::tls_cert),
      TextField("tls-key", "FILE", "PEM key of --tls-cert", &O::tls_key),
      TextField("tls-client-ca", "FILE",
                "PEM certificates that sign clients' certificates; clients must then show one",
                &O::tls_client_ca),
      TextField("tenants-file", "FILE", "YAML: who may call, with which quota", &O::tenants_file),
      ChoiceField<StoreKind>("store", "rocksdb|memory|rados|tiered", "where chunks are kept",
                             &O::store,
                             {{"rocksdb", StoreKind::kRocksDb},
                              {"memory", StoreKind::kMemory},
                              {"rados", StoreKind::kRados},
                              {"tiered", StoreKind::kTiered}}),
      TextField("data-dir", "DIR", "directory of the rocksdb store; made if it does not exist",
                &O::data_dir),
      SizeField("block-cache-bytes", "RocksDB's cache of payload in memory", &O::block_cache_bytes),
      SizeField("info-cache-bytes", "cache of what is known of chunks", &O::info_cache_bytes),
      SizeField("capacity-bytes",
                "most bytes in --data-dir, with --store rados as --rados-capacity-bytes, with "
                "--store memory of payload; evicts to stay below; 0: none",
                &O::capacity_bytes),
      ChoiceField<bool>("sync-writes", "true|false",
                        "rocksdb: acknowledge a write once the disk has it", &O::sync_writes,
                        {{"true", true}, {"false", false}}),
      ChoiceField<bool>("drop-damaged-log", "true|false",
                        "rocksdb: open a damaged store and lose what follows the damage",
                        &O::drop_damaged_log, {{"true", true}, {"false", false}}),
      TextField("backup-dir", "DIR", "rocksdb: where kvstreamctl backup may make backups",
                &O::backup_dir),
      TextField("restore-from", "DIR", "rocksdb: make --data-dir from this backup, and exit",
                &O::restore_from),
      TextField("salvage-from", "DIR",
                "rocksdb: make --data-dir from what can be read of this damaged store, and exit",
                &O::salvage_from),
      SizeField("memory-store-bytes", "most payload that the memory store accepts",
                &O::memory_store_bytes),
      TextField("rados-conf", "FILE", "rados: ceph.conf; empty: where librados looks for it",
                &O::rados_conf),
      TextField("rados-user", "NAME", "rados: the Ceph user, without \"client.\"", &O::rados_user),
      TextField("rados-pool", "POOL", "rados: the pool, replicated", &O::rados_pool),
      TextField("rados-namespace", "NAME", "rados: namespace of the store within the pool",
                &O::rados_namespace),
      DelayField("rados-timeout", "rados: what is not answered by then fails", &O::rados_timeout),
      DelayField("rados-staleness",
                 "rados: how long this daemon may not know what another one changed",
                 &O::rados_staleness),
      SizeField(
          "rados-capacity-bytes",
          "rados: most payload of all daemons in the namespace, without copies; they evict to "
          "stay below; 0: this one does not",
          &O::rados_capacity_bytes),
      CountField("rados-shards",
                 "rados: parts of the index, settled when the store is made; 0: those that it has, "
                 "256 in a new one",
                 &O::rados_shards),
      CountField("max-loads", "loads in flight", &O::max_loads),
      CountField("max-load-chunks", "chunks of all loads in flight together", &O::max_load_chunks),
      CountField("max-loads-per-peer", "loads in flight of one host; 0: no limit",
                 &O::max_loads_per_peer),
      CountField("max-loads-per-tenant",
                 "loads in flight of one tenant whose entry does not say; 0: no limit",
                 &O::max_loads_per_tenant),
      SizeField("max-in-flight-bytes", "unacknowledged bytes of all loads together",
                &O::max_in_flight_bytes),
      ChoiceField<LinkSharing>("link-sharing", "network|host|off",
                               "which loads share a link, and so are scheduled together",
                               &O::link_sharing,
                               {{"network", LinkSharing::kNetwork},
                                {"host", LinkSharing::kHost},
                                {"off", LinkSharing::kOff}}),
      SizeField("egress-bytes-per-second", "what this machine can send a second; 0: not known",
                &O::egress_bytes_per_second),
      CountField("max-puts", "uploads in flight", &O::max_puts),
      CountField("max-puts-per-tenant",
                 "uploads in flight of one tenant whose entry does not say; 0: no limit",
                 &O::max_puts_per_tenant),
      CountField("max-requests", "other calls in flight", &O::max_requests),
      SizeField("put-buffer-bytes", "unfinished uploads of all clients together",
                &O::put_buffer_bytes),
      SizeField("put-buffer-bytes-per-tenant",
                "unfinished uploads of one tenant whose entry does not say; 0: no limit",
                &O::put_buffer_bytes_per_tenant),
      SizeField("max-chunk-bytes", "largest chunk, all levels together", &O::max_chunk_bytes),
      SizeField("max-profile-bytes", "largest profile", &O::max_profile_bytes),
      SizeField("profile-cache-bytes", "parsed profiles kept in memory", &O::profile_cache_bytes),
      DelayField("default-ttl", "how long chunks are kept whose upload does not say; 0: for ever",
                 &O::default_ttl),
      DelayField("expiry-interval", "how often to look for chunks that have expired",
                 &O::expiry_interval),
      SizeField("frame-bytes", "payload of one message of a load", &O::frame_bytes),
      SizeField("window-bytes-min", "unacknowledged bytes of a load before any estimate",
                &O::window_bytes_min),
      SizeField("window-bytes-max", "unacknowledged bytes of a load at most", &O::window_bytes_max),
      CountField("read-threads", "threads that read the store", &O::read_threads),
      CountField("write-threads", "threads that write the store", &O::write_threads),
      DelayField("client-idle-timeout", "end calls whose client shows no progress for so long",
                 &O::client_idle_timeout),
      DelayField("drain-timeout", "time for calls in flight after SIGTERM", &O::drain_timeout),
      ChoiceField<bool>("exit-when-read-only", "true|false",
                        "stop with status 4 once only a restart lets the store take writes again",
                        &O::exit_when_read_only, {{"true", true}, {"false", false}}),
      TextField("log-level", "trace|debug|info|warn|error|off", "least severity that is logged",
                &O::log_level),
      ChoiceField<LogFormat>("log-format", "text|json", "form of the log lines on stderr",
                             &O::log_format,
                             {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}),
  };
  return *fields;
}

}  // namespace kvstream

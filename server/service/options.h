// Everything about kvstreamd that an operator can set, with its defaults. docs/operations.md
// explains each with its risk.
#ifndef KVSTREAM_SERVER_SERVICE_OPTIONS_H_
#define KVSTREAM_SERVER_SERVICE_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace kvstream {

// Longest time that a chunk may be asked to be kept.
inline constexpr absl::Duration kMaxTtl = absl::Hours(24 * 36525);  // 100 years

// Tiered: a RocksDB cache of segments before Ceph.
enum class StoreKind { kRocksDb, kMemory, kRados, kTiered };
enum class LogFormat { kText, kJson };
// Which loads are taken to share a link: those to one network (NetworkOfPeer), those to one host,
// or none.
enum class LinkSharing { kNetwork, kHost, kOff };

// Plain data. The defaults are valid; Validate() is the one place that knows the ranges.
struct ServerOptions {
  // host:port; port 0 takes a free one. IPv6 hosts in brackets.
  std::string listen = "127.0.0.1:7411";
  std::string http_listen = "127.0.0.1:7412";
  // Empty: none. Else the chosen ports are written there as JSON once both are open.
  std::string ports_file;

  // Empty: no TLS. PEM files: the server's certificate with its chain, its key, and who signs
  // clients' certificates (empty: they need none).
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;
  // Empty: everybody is the one unnamed tenant. Else see tenants_file.h.
  std::string tenants_file;

  StoreKind store = StoreKind::kRocksDb;
  std::string data_dir = "/var/lib/kvstream";
  uint64_t block_cache_bytes = uint64_t{256} << 20;
  // RocksDB: infos of chunks in memory, some 200 bytes each.
  uint64_t info_cache_bytes = uint64_t{64} << 20;
  // RocksDB: what all files in data_dir may have; the store evicts to stay below. 0: no bound,
  // which a tier must have. With store rados: as rados_capacity_bytes. With store memory: what
  // payload and profiles may have, in place of memory_store_bytes.
  uint64_t capacity_bytes = 0;
  // RocksDB: a write is acknowledged once the disk has it.
  bool sync_writes = true;
  // RocksDB: open a store whose log is damaged and lose what follows the damage.
  bool drop_damaged_log = false;
  // RocksDB: where Backup may make backups; empty: nowhere.
  std::string backup_dir;
  // RocksDB: not empty: makes data_dir from this backup and exits.
  std::string restore_from;
  // RocksDB: not empty: makes data_dir from what can be read of this damaged store and exits.
  std::string salvage_from;
  // Payload that the memory store accepts before it refuses more; it evicts nothing.
  uint64_t memory_store_bytes = uint64_t{4} << 30;
  // Ceph: ceph.conf (empty: where librados looks), the user without "client.", the pool, the
  // namespace of the objects in it.
  std::string rados_conf;
  std::string rados_user = "admin";
  std::string rados_pool = "kvstream";
  std::string rados_namespace;
  // Ceph: what is not answered by then fails with UNAVAILABLE.
  absl::Duration rados_timeout = absl::Seconds(10);
  // Ceph: how long this daemon may not know what another one deleted or changed.
  absl::Duration rados_staleness = absl::Seconds(5);
  // Ceph: what the data of all daemons may have in the namespace, copies not counted; they evict
  // together to stay below. 0: this daemon makes no room, and takes what others leave.
  uint64_t rados_capacity_bytes = 0;
  // Ceph: of the index, a power of two up to 4096, settled when the store is made; 0: as many as it
  // has, 256 if it is to be made.
  uint32_t rados_shards = 0;

  int max_loads = 1024;
  // Chunks of all loads in flight together: bounds what they keep in memory.
  int64_t max_load_chunks = int64_t{1} << 20;
  // Loads of one host; 0: no limit of its own.
  int max_loads_per_peer = 0;
  // Loads of one tenant whose entry does not say; 0: no limit of its own.
  int max_loads_per_tenant = 0;
  // Sent but unacknowledged bytes of all loads together.
  uint64_t max_in_flight_bytes = uint64_t{4} << 30;
  LinkSharing link_sharing = LinkSharing::kNetwork;
  // What this machine can send, shared out among all loads; 0: not known.
  uint64_t egress_bytes_per_second = 0;
  int max_puts = 64;
  // Uploads of one tenant whose entry does not say, and their unfinished bytes; 0: no limit of its
  // own.
  int max_puts_per_tenant = 0;
  uint64_t put_buffer_bytes_per_tenant = 0;
  // Calls in flight other than Load and Put (Lookup, List, Delete, Stats, profiles).
  int max_requests = 256;
  // Bytes of unfinished uploads (chunks and profiles) of all clients together.
  uint64_t put_buffer_bytes = uint64_t{2} << 30;
  uint64_t max_chunk_bytes = uint64_t{256} << 20;
  uint64_t max_profile_bytes = uint64_t{1} << 30;
  // Parsed profiles kept for Put and GetProfile. The newest is kept even if it alone is larger.
  uint64_t profile_cache_bytes = uint64_t{1} << 30;

  // How long chunks are kept whose upload does not say; 0: for ever.
  absl::Duration default_ttl = absl::ZeroDuration();
  // How often the server looks for chunks that have expired.
  absl::Duration expiry_interval = absl::Seconds(5);

  // Payload of one SegmentData message.
  uint64_t frame_bytes = uint64_t{1} << 20;
  // Sent but unacknowledged bytes of one load, before any estimate and at most.
  uint64_t window_bytes_min = uint64_t{64} << 10;
  uint64_t window_bytes_max = uint64_t{128} << 20;

  int read_threads = 8;
  int write_threads = 4;

  // A client that owes something and shows no progress for so long loses its call.
  absl::Duration client_idle_timeout = absl::Seconds(30);
  // Loads and uploads in flight get so long to end after SIGTERM.
  absl::Duration drain_timeout = absl::Seconds(30);
  // Stops, as at SIGTERM, once the store takes no writes any more until a restart.
  bool exit_when_read_only = false;

  // trace, debug, info, warn, error or off.
  std::string log_level = "info";
  LogFormat log_format = LogFormat::kText;

  // INVALID_ARGUMENT naming the option, its value and the range.
  absl::Status Validate() const;
};

// One option by name, for every source that carries text: flags, environment, YAML, --print-config.
struct OptionField {
  absl::string_view name;     // "data-dir"; flag --data-dir, environment KVSTREAM_DATA_DIR
  absl::string_view metavar;  // "DIR"
  absl::string_view help;
  // INVALID_ARGUMENT if the text cannot be read; ranges are Validate()'s.
  std::function<absl::Status(absl::string_view text, ServerOptions& options)> set;
  // Text that `set` reads back.
  std::function<std::string(const ServerOptions& options)> get;
};

// In the order of --help. Built once; never changes.
const std::vector<OptionField>& OptionFields();

// Splits "host:port", "[::1]:port". INVALID_ARGUMENT if there is no port or it is above 65535.
absl::Status SplitHostPort(absl::string_view text, std::string& host, int& port);

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_OPTIONS_H_

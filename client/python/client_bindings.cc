#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/atomic_file.h"
#include "client/client.h"
#include "client/load_trace.h"
#include "client/load_trace_json.h"
#include "client/monotonic_clock.h"
#include "client/python/bindings.h"
#include "client/python/device_arrays.h"
#include "client/python/errors.h"
#include "client/python/kv_arrays.h"

namespace kvstream {
namespace {

namespace py = pybind11;

// How often a load looks for Ctrl-C: asking needs the GIL, which another thread may hold.
constexpr absl::Duration kSignalPeriod = absl::Milliseconds(100);

py::bytes IdBytes(const std::array<uint8_t, 32>& id) {
  return py::bytes(reinterpret_cast<const char*>(id.data()), id.size());
}

std::array<uint8_t, 32> ToId(const std::string& bytes) {
  std::array<uint8_t, 32> id;
  if (bytes.size() != id.size()) {
    throw py::value_error(absl::StrCat("an id has 32 bytes, not ", bytes.size()));
  }
  std::copy(bytes.begin(), bytes.end(), id.begin());
  return id;
}

std::vector<ChunkId> ToIds(const std::vector<std::string>& ids) {
  std::vector<ChunkId> chunk_ids;
  chunk_ids.reserve(ids.size());
  for (const std::string& id : ids) chunk_ids.push_back(ToId(id));
  return chunk_ids;
}

ContextIdentity Identity(const std::string& model, const std::string& adapter,
                         const py::bytes& tenant_salt, const std::vector<py::bytes>& extra_keys) {
  ContextIdentity identity;
  identity.model = model;
  identity.adapter = adapter;
  identity.tenant_salt = std::string(tenant_salt);
  for (const py::bytes& key : extra_keys) identity.extra_keys.push_back(std::string(key));
  return identity;
}

template <typename T>
T Named(const std::string& name, const char* what,
        std::initializer_list<std::pair<const char*, T>> names) {
  for (const auto& [known, value] : names) {
    if (name == known) return value;
  }
  std::string all;
  for (const auto& [known, value] : names)
    absl::StrAppend(&all, all.empty() ? "'" : ", '", known, "'");
  throw py::value_error(absl::StrCat(what, " '", name, "' is none of ", all));
}

ClientPolicy ToPolicy(const std::string& name) {
  return Named<ClientPolicy>(name, "policy",
                             {{"default", ClientPolicy::kDefault},
                              {"deadline", ClientPolicy::kDeadline},
                              {"fastest", ClientPolicy::kFastest},
                              {"cachegen", ClientPolicy::kCacheGen},
                              {"fixed", ClientPolicy::kFixed},
                              {"recompute", ClientPolicy::kRecompute}});
}

ClientRecomputeAbility ToAbility(const std::string& name) {
  return Named<ClientRecomputeAbility>(name, "ability",
                                       {{"none", ClientRecomputeAbility::kNone},
                                        {"suffix", ClientRecomputeAbility::kSuffix},
                                        {"any", ClientRecomputeAbility::kAny},
                                        {"front", ClientRecomputeAbility::kFront}});
}

absl::Duration ToDuration(double seconds, const char* what) {
  if (!(seconds > 0) || std::isinf(seconds)) {
    throw py::value_error(std::string(what) + " must be a positive number");
  }
  return absl::Seconds(seconds);
}

// The first Python exception of a call's callbacks, on whichever thread. Its members need the GIL,
// which also guards them.
class Raised {
 public:
  // Runs a callback. False if it raised; then the load is to be ended.
  template <typename Function>
  bool Run(const Function& function) {
    try {
      function();
      return true;
    } catch (py::error_already_set&) {
      if (first_ == nullptr) first_ = std::current_exception();
      return false;
    }
  }
  void Rethrow() const {
    if (first_ != nullptr) std::rethrow_exception(first_);
  }
  bool any() const { return first_ != nullptr; }

 private:
  std::exception_ptr first_;
};

void CheckHostArguments(bool on_device, const DeviceArguments& arguments) {
  if (!on_device && arguments.any()) {
    throw py::value_error(
        "stream, device, first_layer and first_head are for arrays in GPU memory");
  }
}

class PyClient {
 public:
  PyClient(const std::string& server, double rpc_timeout, int decode_threads, int encode_threads,
           const std::string& tls_ca, const std::string& tls_cert, const std::string& tls_key,
           const std::string& token) {
    Client::Options options;
    options.server = server;
    options.rpc_timeout = ToDuration(rpc_timeout, "rpc_timeout");
    options.decode_threads = decode_threads;
    options.encode_threads = encode_threads;
    options.security = {tls_ca, tls_cert, tls_key, token, ""};
    client_ = ValueOrThrow(Client::Create(std::move(options)));
  }

  // Runs a call of the client without the GIL.
  template <typename Function>
  auto Call(const Function& function) {
    py::gil_scoped_release release;
    return function(*client_);
  }

  PutResult Put(const std::shared_ptr<Profile>& profile, const py::object& tokens,
                const py::object& kv, const std::string& model, const std::string& adapter,
                const py::bytes& tenant_salt, const std::vector<py::bytes>& extra_keys,
                const py::object& progress, const py::object& stream, const py::object& device,
                double ttl_seconds) {
    const std::vector<int32_t> ids = TokenIds(tokens);
    const absl::Duration ttl = absl::Seconds(ttl_seconds);
    const DeviceArguments arguments{stream, device, py::none(), py::none()};
    const bool on_device = IsDeviceKv(kv);
    CheckHostArguments(on_device, arguments);
    DeviceArrays source;
    Borrowed<KvView> host;
    if (on_device) {
      source = ViewDeviceKv(kv, arguments, profile->geometry(), false);
    } else {
      host = ViewKv(kv, profile->geometry());
    }
    const ContextIdentity identity = Identity(model, adapter, tenant_salt, extra_keys);
    Raised raised;
    std::function<void(int64_t)> report;
    if (!progress.is_none()) {
      report = [&](int64_t stored) {
        py::gil_scoped_acquire gil;
        if (!raised.any()) raised.Run([&] { progress(stored); });
      };
    }
    absl::StatusOr<PutResult> result = Call([&](Client& client) {
      return on_device ? client.PutFromDevice(profile, identity, ids, source.target, report, ttl)
                       : client.Put(profile, identity, ids, host.view, report, ttl);
    });
    raised.Rethrow();
    return ValueOrThrow(std::move(result));
  }

  LookupResult Lookup(const std::shared_ptr<Profile>& profile, const py::object& tokens,
                      const std::string& model, const std::string& adapter,
                      const py::bytes& tenant_salt, const std::vector<py::bytes>& extra_keys) {
    const std::vector<int32_t> ids = TokenIds(tokens);
    const ContextIdentity identity = Identity(model, adapter, tenant_salt, extra_keys);
    return ValueOrThrow(
        Call([&](Client& client) { return client.Lookup(*profile, identity, ids); }));
  }

  py::tuple Load(const std::shared_ptr<Profile>& profile, const py::object& tokens,
                 const std::string& model, const std::string& adapter, const py::bytes& tenant_salt,
                 const std::vector<py::bytes>& extra_keys, const py::object& deadline_ms,
                 const std::string& policy, int level, int floor_level, double floor_below_share,
                 const std::string& ability, const py::object& recompute, bool recompute_can_stop,
                 double prefill_seconds_per_token, double prefill_seconds_per_token_pair,
                 double bandwidth_hint, const py::object& out, const py::object& progress,
                 const py::object& trace, const DeviceArguments& device_arguments) {
    const std::vector<int32_t> ids = TokenIds(tokens);
    const ContextIdentity identity = Identity(model, adapter, tenant_salt, extra_keys);
    if (!recompute.is_none() && out.is_none()) {
      throw py::value_error("recompute writes into the arrays given as out: there are none");
    }
    const py::object kv =
        out.is_none()
            ? py::object(AllocateKv(profile->geometry(), static_cast<int64_t>(ids.size())))
            : out;
    const bool on_device = IsDeviceKv(kv);
    CheckHostArguments(on_device, device_arguments);
    DeviceArrays device;
    Borrowed<MutableKvView> host;
    if (on_device) {
      device = ViewDeviceKv(kv, device_arguments, profile->geometry(), true);
    } else {
      host = ViewMutableKv(kv, profile->geometry());
    }

    LoadOptions options;
    options.policy = ToPolicy(policy);
    if (!deadline_ms.is_none()) {
      options.deadline = ToDuration(deadline_ms.cast<double>() / 1000, "deadline_ms");
    }
    options.level = level;
    options.floor_level = floor_level;
    options.floor_below_share = floor_below_share;
    options.ability = ToAbility(ability);
    options.prefill_seconds_per_token = prefill_seconds_per_token;
    options.prefill_seconds_per_token_pair = prefill_seconds_per_token_pair;
    options.bandwidth_hint_bytes_per_second = bandwidth_hint;

    Raised raised;
    bool interrupted = false;  // of the calling thread
    if (recompute.is_none()) {
      if (recompute_can_stop) throw py::value_error("recompute_can_stop without recompute");
    } else {
      py::object superseded;
      if (recompute_can_stop) {
        options.recompute_watch = std::make_shared<RecomputeWatch>();
        superseded =
            py::cpp_function([watch = options.recompute_watch] { return watch->superseded(); });
      }
      options.recompute = [&, superseded](int64_t first_token, int64_t count) {
        py::gil_scoped_acquire gil;
        bool stopped = false;
        const bool returned = raised.Run([&] {
          if (recompute_can_stop) {
            const py::object answer = recompute(first_token, count, superseded);
            stopped = answer.is(py::bool_(false));
          } else {
            recompute(first_token, count);
          }
        });
        if (!returned) return absl::AbortedError("the recompute callback raised an exception");
        return stopped ? absl::CancelledError("the recompute callback stopped") : absl::OkStatus();
      };
    }
    if (!progress.is_none()) {
      options.progress = [&](uint32_t ready, uint32_t chunks) {
        py::gil_scoped_acquire gil;
        if (!raised.Run([&] { progress(ready, chunks); })) interrupted = true;
      };
    }
    // Python runs signal handlers on its main thread only.
    const py::module_ threading = py::module_::import("threading");
    const bool watch_signals =
        threading.attr("current_thread")().is(threading.attr("main_thread")());
    absl::Duration looked = MonotonicNow();
    options.cancelled = [&] {
      const absl::Duration now = MonotonicNow();
      if (watch_signals && !interrupted && now - looked >= kSignalPeriod) {
        looked = now;
        py::gil_scoped_acquire gil;
        interrupted = !raised.Run([] {
          if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        });
      }
      return interrupted;
    };
    const bool traced = !trace.is_none();
    const std::string trace_path =
        traced ? py::module_::import("os").attr("fspath")(trace).cast<std::string>() : "";
    const auto load = [&](Client& client) {
      return on_device ? client.LoadToDevice(profile, identity, ids, options, device.target)
                       : client.Load(profile, identity, ids, options, host.view);
    };
    absl::Status written;
    absl::StatusOr<LoadResult> result = Call([&](Client& client) {
      const LoadTrace::Request request = TracedRequest(*profile, ids.size(), options);
      // A request of an impossible size has no story; the client says why.
      if (!traced || request.chunks == 0 || request.chunks > LoadTrace::kChunksMax) {
        return load(client);
      }
      LoadTraceRecorder recorder(request);
      options.observer = &recorder;
      const absl::Duration began = MonotonicNow();
      absl::StatusOr<LoadResult> loaded = load(client);
      const LoadTrace story = std::move(recorder).Finish(loaded, MonotonicNow() - began);
      written = WriteFileAtomically(trace_path, LoadTraceToJson(story));
      return loaded;
    });
    raised.Rethrow();
    if (result.ok() && !written.ok()) result = written;
    return py::make_tuple(kv, ValueOrThrow(std::move(result)));
  }

 private:
  std::unique_ptr<Client> client_;
};

void RegisterResults(py::module_& module) {
  py::class_<PutResult>(module, "PutResult", "What a put has stored.")
      .def_readonly("chunks_stored", &PutResult::chunks_stored)
      .def_readonly("chunks_existing", &PutResult::chunks_existing)
      .def_readonly("bytes_stored", &PutResult::bytes_stored);
  py::class_<LookupResult>(module, "LookupResult", "The longest stored prefix of a context.")
      .def_readonly("matched_chunks", &LookupResult::matched_chunks)
      .def_readonly("matched_tokens", &LookupResult::matched_tokens)
      .def_readonly("level_bytes", &LookupResult::level_bytes);
  py::class_<LoadedChunk>(module, "LoadedChunk", "How one chunk came; level None: recomputed.")
      .def_property_readonly("level",
                             [](const LoadedChunk& chunk) -> py::object {
                               if (!chunk.level.has_value()) return py::none();
                               return py::int_(*chunk.level);
                             })
      .def_readonly("tokens", &LoadedChunk::tokens)
      .def_readonly("bytes", &LoadedChunk::bytes);
  py::class_<LoadResult>(module, "LoadResult", "How a load went.")
      .def_property_readonly(
          "load_delay", [](const LoadResult& r) { return absl::ToDoubleSeconds(r.load_delay); })
      .def_readonly("bytes", &LoadResult::bytes)
      .def_readonly("goodput_bytes_per_second", &LoadResult::goodput_bytes_per_second)
      .def_readonly("bandwidth_estimate_bytes_per_second",
                    &LoadResult::bandwidth_estimate_bytes_per_second)
      .def_readonly("deadline_missed", &LoadResult::deadline_missed)
      .def_readonly("chunks", &LoadResult::chunks)
      .def_readonly("recomputed_tokens", &LoadResult::recomputed_tokens)
      .def_property_readonly("recompute_seconds", [](const LoadResult& r) {
        return absl::ToDoubleSeconds(r.recompute_time);
      });
}

py::dict StatsDict(const ServerStats& stats) {
  py::dict out;
  out["version"] = stats.version;
  out["uptime_seconds"] = absl::ToDoubleSeconds(stats.uptime);
  out["store"] = stats.store;
  out["chunks"] = stats.chunks;
  out["payload_bytes"] = stats.payload_bytes;
  out["disk_bytes"] = stats.disk_bytes;
  out["capacity_bytes"] = stats.capacity_bytes;
  out["evicted_segments"] = stats.evicted_segments;
  out["evicted_bytes"] = stats.evicted_bytes;
  out["evicted_chunks"] = stats.evicted_chunks;
  out["expired_chunks"] = stats.expired_chunks;
  out["pins"] = stats.pins;
  out["pinned_bytes"] = stats.pinned_bytes;
  py::list profiles;
  for (const ProfileId& id : stats.profile_ids) profiles.append(IdBytes(id));
  out["profile_ids"] = profiles;
  out["loads_in_flight"] = stats.loads_in_flight;
  out["loads_finished"] = stats.loads_finished;
  out["loads_failed"] = stats.loads_failed;
  out["load_bytes_sent"] = stats.load_bytes_sent;
  out["chunks_by_level"] = stats.chunks_by_level;
  out["chunks_recomputed"] = stats.chunks_recomputed;
  out["store_writes"] = std::string(StoreWritesName(stats.store_writes));
  out["damaged_files"] = stats.damaged_files;
  out["tenant"] = stats.tenant;
  out["tenant_bytes"] = stats.tenant_bytes;
  out["tenant_quota_bytes"] = stats.tenant_quota_bytes;
  return out;
}

py::tuple ListPageTuple(const ListPage& page) {
  py::list chunks;
  for (const ListedChunk& listed : page.chunks) {
    py::dict chunk;
    chunk["id"] = IdBytes(listed.id);
    chunk["parent_id"] =
        listed.info.parent.has_value() ? py::object(IdBytes(*listed.info.parent)) : py::none();
    chunk["profile_id"] = IdBytes(listed.info.profile_id);
    chunk["model"] = listed.info.model;
    chunk["first_token"] = listed.info.first_token;
    chunk["tokens"] = listed.info.tokens;
    chunk["segment_bytes"] = listed.info.segment_bytes;
    chunk["created"] = absl::ToDoubleSeconds(listed.info.created - absl::UnixEpoch());
    chunk["expires"] = py::none();
    if (listed.info.expires != absl::InfiniteFuture()) {
      chunk["expires"] = absl::ToDoubleSeconds(listed.info.expires - absl::UnixEpoch());
    }
    chunks.append(chunk);
  }
  return py::make_tuple(chunks, py::bytes(page.next_page_token));
}

}  // namespace

void RegisterClient(py::module_& module) {
  RegisterResults(module);
  const py::bytes no_salt("");
  const std::vector<py::bytes> no_keys;

  module.def(
      "chunk_ids",
      [](const std::shared_ptr<Profile>& profile, const py::object& tokens,
         const std::string& model, const std::string& adapter, const py::bytes& tenant_salt,
         const std::vector<py::bytes>& extra_keys) {
        py::list ids;
        for (const ChunkId& id :
             ContextChunkIds(Identity(model, adapter, tenant_salt, extra_keys), profile->id(),
                             profile->chunk_tokens(), TokenIds(tokens))) {
          ids.append(IdBytes(id));
        }
        return ids;
      },
      py::arg("profile"), py::arg("tokens"), py::kw_only(), py::arg("model"),
      py::arg("adapter") = "", py::arg("tenant_salt") = no_salt, py::arg("extra_keys") = no_keys,
      "The ids of a context's chunks, 32 bytes each.");

  py::class_<PyClient>(module, "Client",
                       "A connection to one kvstreamd. Thread-safe; calls release the GIL.")
      .def(py::init<const std::string&, double, int, int, const std::string&, const std::string&,
                    const std::string&, const std::string&>(),
           py::arg("server"), py::kw_only(), py::arg("rpc_timeout") = 60.0,
           py::arg("decode_threads") = 1, py::arg("encode_threads") = 1, py::arg("tls_ca") = "",
           py::arg("tls_cert") = "", py::arg("tls_key") = "", py::arg("token") = "",
           "server is 'host:port'. Connects with the first call. tls_ca is a PEM file of who signs "
           "the server's certificate and turns on TLS; tls_cert and tls_key are files of the "
           "client's own; token is the tenant's.")
      .def(
          "put_profile",
          [](PyClient& self, const std::shared_ptr<Profile>& profile) {
            ThrowIfError(self.Call([&](Client& client) { return client.PutProfile(*profile); }));
          },
          py::arg("profile"), "Stores a profile; put() does so by itself where it is needed.")
      .def(
          "get_profile",
          [](PyClient& self, const std::string& id) {
            const ProfileId wanted = ToId(id);
            return AsBound(
                ValueOrThrow(self.Call([&](Client& client) { return client.GetProfile(wanted); })));
          },
          py::arg("id"), "Reads a profile back by its 32-byte id.")
      .def(
          "warm_up",
          [](PyClient& self, const std::shared_ptr<Profile>& profile, const py::object& device,
             int first_layer, int layers, int first_head, int heads) {
            if (device.is_none()) {
              ThrowIfError(self.Call([&](Client& client) { return client.WarmUp(profile); }));
              return;
            }
            const int ordinal = device.cast<int>();
            const DeviceShard shard{first_layer, layers, first_head, heads};
            ThrowIfError(self.Call(
                [&](Client& client) { return client.WarmUpDevice(profile, ordinal, shard); }));
          },
          py::arg("profile"), py::kw_only(), py::arg("device") = py::none(),
          py::arg("first_layer") = 0, py::arg("layers") = 0, py::arg("first_head") = 0,
          py::arg("heads") = 0,
          "Sets up and measures the decoder before the first load; with `device`, sets up that "
          "GPU's for a part of the model (counts of 0: all).")
      .def("put", &PyClient::Put, py::arg("profile"), py::arg("tokens"), py::arg("kv"),
           py::kw_only(), py::arg("model"), py::arg("adapter") = "",
           py::arg("tenant_salt") = no_salt, py::arg("extra_keys") = no_keys,
           py::arg("progress") = py::none(), py::arg("stream") = py::none(),
           py::arg("device") = py::none(), py::arg("ttl_seconds") = 0.0,
           "Encodes and stores the KV of a whole context; chunks that the server has are skipped. "
           "KV in GPU memory is encoded there, on `stream`. The chunks are kept for at least "
           "ttl_seconds; 0: as the server's default says.")
      .def("lookup", &PyClient::Lookup, py::arg("profile"), py::arg("tokens"), py::kw_only(),
           py::arg("model"), py::arg("adapter") = "", py::arg("tenant_salt") = no_salt,
           py::arg("extra_keys") = no_keys, "Finds the longest stored prefix.")
      .def(
          "load",
          [](PyClient& self, const std::shared_ptr<Profile>& profile, const py::object& tokens,
             const std::string& model, const std::string& adapter, const py::bytes& tenant_salt,
             const std::vector<py::bytes>& extra_keys, const py::object& deadline_ms,
             const std::string& policy, int level, int floor_level, double floor_below_share,
             const std::string& ability, const py::object& recompute, bool recompute_can_stop,
             double prefill_seconds_per_token, double prefill_seconds_per_token_pair,
             double bandwidth_hint, const py::object& out, const py::object& progress,
             const py::object& trace, const py::object& stream, const py::object& device,
             const py::object& first_layer, const py::object& first_head) {
            return self.Load(profile, tokens, model, adapter, tenant_salt, extra_keys, deadline_ms,
                             policy, level, floor_level, floor_below_share, ability, recompute,
                             recompute_can_stop, prefill_seconds_per_token,
                             prefill_seconds_per_token_pair, bandwidth_hint, out, progress, trace,
                             {stream, device, first_layer, first_head});
          },
          py::arg("profile"), py::arg("tokens"), py::kw_only(), py::arg("model"),
          py::arg("adapter") = "", py::arg("tenant_salt") = no_salt,
          py::arg("extra_keys") = no_keys, py::arg("deadline_ms") = py::none(),
          py::arg("policy") = "default", py::arg("level") = 0, py::arg("floor_level") = 0,
          py::arg("floor_below_share") = 0.0, py::arg("ability") = "none",
          py::arg("recompute") = py::none(), py::arg("recompute_can_stop") = false,
          py::arg("prefill_seconds_per_token") = 0.0,
          py::arg("prefill_seconds_per_token_pair") = 0.0,
          py::arg("bandwidth_hint_bytes_per_second") = 0.0, py::arg("out") = py::none(),
          py::arg("progress") = py::none(), py::arg("trace") = py::none(),
          py::arg("stream") = py::none(), py::arg("device") = py::none(),
          py::arg("first_layer") = py::none(), py::arg("first_head") = py::none(),
          "Loads the KV of a stored context; returns it with a LoadResult.\n\n"
          "out may be arrays in GPU memory (DLPack or __cuda_array_interface__) or a PagedKv: then "
          "the KV is decoded on the GPU, on `stream`, and is in place when this returns.\n\n"
          "recompute(first_token, count) must write those tokens' KV into out; it runs on a thread "
          "of the client's. What it raises ends the load and is raised again here. With "
          "recompute_can_stop it is called as recompute(first_token, count, superseded): once "
          "superseded() is true the tokens' bytes have come, and it may return False at once.\n\n"
          "trace: a file for the load's story, which `kvstreamctl explain` draws; also of a load "
          "that fails.")
      .def(
          "delete",
          [](PyClient& self, const std::vector<std::string>& ids, bool force) {
            const std::vector<ChunkId> chunk_ids = ToIds(ids);
            return ValueOrThrow(
                self.Call([&](Client& client) { return client.Delete(chunk_ids, force); }));
          },
          py::arg("chunk_ids"), py::kw_only(), py::arg("force") = false,
          "Deletes chunks; returns how many existed. Fails, and deletes none, if any is pinned, "
          "unless force ends their pins.")
      .def(
          "delete_matching",
          [](PyClient& self, const py::object& context_end, const std::string& model, bool dry_run,
             bool force) {
            if (context_end.is_none() == model.empty()) {
              throw py::value_error("give either context_end or model");
            }
            DeleteWhat what;
            if (!context_end.is_none()) what.context_end = ToId(context_end.cast<std::string>());
            what.model = model;
            DeleteStep sum;
            do {
              // One call a step, so that Ctrl-C ends it between two.
              const DeleteStep step = ValueOrThrow(self.Call([&](Client& client) {
                return client.DeleteMatching(what, sum.next_page_token, dry_run, force);
              }));
              if (PyErr_CheckSignals() != 0) throw py::error_already_set();
              sum.chunks += step.chunks;
              sum.payload_bytes += step.payload_bytes;
              sum.chunks_pinned += step.chunks_pinned;
              sum.next_page_token = step.next_page_token;
            } while (!sum.next_page_token.empty());
            return py::make_tuple(sum.chunks, sum.payload_bytes, sum.chunks_pinned);
          },
          py::kw_only(), py::arg("context_end") = py::none(), py::arg("model") = "",
          py::arg("dry_run") = false, py::arg("force") = false,
          "Deletes a context, from its last chunk back to where others share it, or all that "
          "list_chunks shows with a model. Returns the chunks and bytes that are gone, or with "
          "dry_run would go, and the chunks that stay because they are pinned.")
      .def(
          "renew",
          [](PyClient& self, const std::vector<std::string>& ids, double ttl_seconds) {
            const std::vector<ChunkId> chunk_ids = ToIds(ids);
            return ValueOrThrow(self.Call([&](Client& client) {
              return client.Renew(chunk_ids, absl::Seconds(ttl_seconds));
            }));
          },
          py::arg("chunk_ids"), py::arg("ttl_seconds"),
          "Keeps stored chunks for at least so long from now on; returns how many are stored.")
      .def(
          "pin",
          [](PyClient& self, const std::vector<std::string>& ids, const std::string& owner,
             double ttl_seconds) {
            const std::vector<ChunkId> chunk_ids = ToIds(ids);
            return ValueOrThrow(self.Call([&](Client& client) {
              return client.Pin(chunk_ids, owner, absl::Seconds(ttl_seconds));
            }));
          },
          py::arg("chunk_ids"), py::kw_only(), py::arg("owner"), py::arg("ttl_seconds"),
          "Keeps stored chunks from being evicted, expired or deleted for a time; returns how many "
          "are stored and now pinned.")
      .def(
          "unpin",
          [](PyClient& self, const std::vector<std::string>& ids, const py::object& owner) {
            const std::vector<ChunkId> chunk_ids = ToIds(ids);
            absl::optional<std::string> of;
            if (!owner.is_none()) of = owner.cast<std::string>();
            return ValueOrThrow(
                self.Call([&](Client& client) { return client.Unpin(chunk_ids, of); }));
          },
          py::arg("chunk_ids"), py::kw_only(), py::arg("owner"),
          "Ends the pins of an owner, or with None those of all; returns how many there were.")
      .def(
          "list_pins",
          [](PyClient& self, uint32_t page_size, const std::string& page_token,
             const std::string& owner) {
            const PinPage page = ValueOrThrow(self.Call(
                [&](Client& client) { return client.ListPins(page_size, page_token, owner); }));
            py::list pins;
            for (const ChunkPin& listed : page.pins) {
              py::dict pin;
              pin["id"] = IdBytes(listed.id);
              pin["owner"] = listed.owner;
              pin["until"] = absl::ToDoubleSeconds(listed.until - absl::UnixEpoch());
              pins.append(pin);
            }
            return py::make_tuple(pins, py::bytes(page.next_page_token));
          },
          py::arg("page_size") = 0, py::arg("page_token") = py::bytes(""), py::kw_only(),
          py::arg("owner") = "",
          "A page of pins, and the token of the next page (empty: this was the last).")
      .def(
          "list_chunks",
          [](PyClient& self, uint32_t page_size, const std::string& page_token,
             const py::object& profile_id, const std::string& model) {
            absl::optional<ProfileId> wanted;
            if (!profile_id.is_none()) wanted = ToId(profile_id.cast<std::string>());
            return ListPageTuple(ValueOrThrow(self.Call([&](Client& client) {
              return client.List(page_size, page_token, wanted, model);
            })));
          },
          py::arg("page_size") = 0, py::arg("page_token") = py::bytes(""),
          py::arg("profile_id") = py::none(), py::arg("model") = "",
          "A page of stored chunks, and the token of the next page (empty: this was the last).")
      .def(
          "stats",
          [](PyClient& self) {
            return StatsDict(
                ValueOrThrow(self.Call([](Client& client) { return client.Stats(); })));
          },
          "The server's state in figures.")
      .def(
          "ping",
          [](PyClient& self) {
            const PingResult ping =
                ValueOrThrow(self.Call([](Client& client) { return client.Ping(); }));
            return py::make_tuple(ping.serving, absl::ToDoubleSeconds(ping.round_trip));
          },
          "Whether the server is serving, and the seconds of a round trip.");
}

}  // namespace kvstream

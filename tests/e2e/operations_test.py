"""What an operator sees of the daemon: options by flag, environment and file, health, metrics, logs, graceful end."""
import json
import os
import re
import subprocess
import unittest

import harness
from harness import R, ctl

# Families that must be there once a load has run; docs/operations.md explains them.
FAMILIES = {
    "kvstream_load_delay_seconds": "histogram",
    "kvstream_load_bandwidth_estimate_bytes_per_second": "histogram",
    "kvstream_load_goodput_bytes_per_second": "histogram",
    "kvstream_bandwidth_estimator_error_ratio": "histogram",
    "kvstream_load_bytes_total": "counter",
    "kvstream_load_chunks_total": "counter",
    "kvstream_recompute_chunks_total": "counter",
    "kvstream_deadline_total": "counter",
    "kvstream_lookup_tokens_total": "counter",
    "kvstream_store_operation_seconds": "histogram",
    "kvstream_store_chunks": "gauge",
    "kvstream_store_payload_bytes": "gauge",
    "kvstream_store_disk_bytes": "gauge",
    "kvstream_loads_in_flight": "gauge",
    "kvstream_rpc_errors_total": "counter",
}


def samples(text, name):
    """{labels text: value} of one metric."""
    return {m.group(1) or "": float(m.group(2)) for m in re.finditer(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", text, re.M)}


class OperationsTest(harness.TestCase):
    def test_a_load_shows_in_health_metrics_stats_and_list(self):
        model = harness.Model(self.scratch)
        profile, context = model.profile(), model.context("a", 600)
        with harness.Daemon(self.path("data"), "--log-format", "json") as daemon:
            health = json.loads(daemon.get("/health"))
            self.assertTrue(health["ready"], health)
            self.assertEqual(ctl("put", "--server", daemon.address, "--profile", profile, "--in", context)["chunks_stored"], 3)
            looked = ctl("lookup", "--server", daemon.address, "--profile", profile, "--tokens-from", context)
            self.assertEqual(looked["matched_tokens"], 600)
            missing = ctl("lookup", "--server", daemon.address, "--profile", profile, "--tokens-from", model.context("b", 300))
            self.assertEqual(missing["matched_tokens"], 0)
            loaded = ctl("load", "--server", daemon.address, "--profile", profile, "--tokens-from", context, "--deadline", "60s",
                         "--out", self.path("out.safetensors"))
            self.assertEqual(len(loaded["chunks"]), 3)
            with self.assertRaises(harness.CtlError) as raised:
                ctl("load", "--server", daemon.address, "--profile", profile, "--tokens-from", self.path("b.safetensors"),
                    "--out", self.path("none.safetensors"))
            self.assertEqual(len(raised.exception.stderr.strip().splitlines()), 1, raised.exception.stderr)
            self.assertFalse(os.path.exists(self.path("none.safetensors")))

            text = daemon.get("/metrics")
            types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
            self.assertEqual({n: types.get(n) for n in FAMILIES}, FAMILIES)
            self.assertGreaterEqual(sum(samples(text, "kvstream_load_delay_seconds_count").values()), 1)
            self.assertEqual(sum(samples(text, "kvstream_load_bytes_total").values()), loaded["bytes"])
            self.assertEqual(sum(samples(text, "kvstream_load_chunks_total").values()), 3)
            self.assertEqual({k: v for k, v in samples(text, "kvstream_deadline_total").items() if v}, {'result="hit"': 1})
            # The 300 unknown tokens were looked up twice: by `lookup`, and by `load` to tell what of them is stored.
            self.assertEqual(samples(text, "kvstream_lookup_tokens_total"), {'result="hit"': 600, 'result="miss"': 600})
            self.assertEqual(list(samples(text, "kvstream_store_chunks").values()), [3])
            self.assertEqual(list(samples(text, "kvstream_loads_in_flight").values()), [0])
            errors = samples(text, "kvstream_rpc_errors_total")
            self.assertTrue(any("NOT_FOUND" in labels and value > 0 for labels, value in errors.items()), errors)

            stats = ctl("stats", "--server", daemon.address)
            self.assertEqual((stats["chunks"], stats["loads_finished"], stats["loads_failed"]), (3, 1, 1))
            listed = ctl("list", "--server", daemon.address)["chunks"]
            self.assertEqual(sorted(c["tokens"] for c in listed), [88, 256, 256])
            ctl("ping", "--server", daemon.address)
            self.assertEqual(daemon.stop(), 0, daemon.output())
            tokens = [str(t) for t in R.load_kv(context)[1][:600]]
            for line in daemon.output().splitlines():
                entry = json.loads(line)  # every line is one object
                self.assertNotIn(", ".join(tokens[:3]), line)
                self.assertNotIn(",".join(tokens[:3]), line)
                self.assertIsInstance(entry, dict)

    def start_with(self, *options, environment=None):
        """The daemon's ended process; for options that it must refuse."""
        return subprocess.run([harness.binary("server/kvstreamd"), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, **(environment or {})}, timeout=harness.TIMEOUT_SECONDS)

    def test_refuses_options_that_cannot_be_and_names_them(self):
        config = self.path("bad.yaml")
        with open(config, "w") as f:
            f.write("no-such-option: 1\n")
        for options, environment, named in [
            (["--no-such-flag"], {}, "no-such-flag"),
            (["--listen", "nonsense"], {}, "listen"),
            (["--listen", "127.0.0.1:99999"], {}, "listen"),
            (["--store", "tape"], {}, "store"),
            (["--max-loads", "-3"], {}, "max-loads"),
            (["--config", config], {}, "no-such-option"),
            (["--config", self.path("absent.yaml")], {}, "absent.yaml"),
            ([], {"KVSTREAM_MAX_LOADS": "many"}, "MAX_LOADS"),
        ]:
            with self.subTest(options=options, environment=environment):
                done = self.start_with(*options, environment=environment)
                self.assertGreater(done.returncode, 0)
                self.assertRegex(done.stderr.lower().replace("_", "-"), named.lower().replace("_", "-"))

    def test_flag_wins_over_environment_over_file(self):
        config = self.path("kvstreamd.yaml")
        with open(config, "w") as f:
            f.write("max-loads: 11\nmax-puts: 12\nmax-requests: 13\n")
        done = self.start_with("--config", config, "--max-loads", "31", "--print-config",
                               environment={"KVSTREAM_MAX_LOADS": "21", "KVSTREAM_MAX_PUTS": "22"})
        self.assertEqual(done.returncode, 0, done.stderr)
        for option, value in (("max-loads", 31), ("max-puts", 22), ("max-requests", 13)):
            self.assertRegex(done.stdout, rf"(?m)^{option}: \"?{value}\"?$")

    def test_both_ports_default_to_loopback(self):
        text = self.start_with("--print-config").stdout
        self.assertRegex(text, r"(?m)^listen: \"?127\.0\.0\.1:7411\"?$")
        self.assertRegex(text, r"(?m)^http-listen: \"?127\.0\.0\.1:7412\"?$")

    def test_memory_store_serves_without_a_disk(self):
        model = harness.Model(self.scratch)
        profile, context = model.profile(), model.context("a", 300)
        with harness.Daemon(self.path("data"), store="memory") as daemon:
            ctl("put", "--server", daemon.address, "--profile", profile, "--in", context)
            loaded = ctl("load", "--server", daemon.address, "--profile", profile, "--tokens-from", context, "--out", self.path("out.safetensors"))
            self.assertEqual(len(loaded["chunks"]), 2)
            self.assertEqual(ctl("stats", "--server", daemon.address)["store"], "memory")
            self.assertEqual(daemon.stop(), 0)

    def fail_for_good(self, model, profile, daemon):
        """Puts until the log cannot be written and holds too much that was not synced (--sync-writes false): only a restart helps."""
        kept = model.context("kept", 600)
        ctl("put", "--server", daemon.address, "--profile", profile, "--in", kept)
        for i in range(20):
            done = harness.run_ctl("put", "--server", daemon.address, "--profile", profile, "--in", model.context(f"more-{i}", 2000))
            if done.returncode != 0:
                return kept
        self.fail("every put was taken")

    def test_a_store_that_takes_no_writes_until_a_restart_says_so_and_serves(self):
        model = harness.Model(self.scratch, layers=4, head_size=32)
        profile = model.profile()
        unsynced = ("--sync-writes", "false", "--expiry-interval", "100ms")
        with harness.Daemon(self.path("data"), *unsynced, file_bytes_max=600_000) as daemon:
            self.assertEqual(ctl("stats", "--server", daemon.address)["store_writes"], "taken")
            kept = self.fail_for_good(model, profile, daemon)
            stats = ctl("stats", "--server", daemon.address)
            self.assertEqual((stats["store_writes"], stats["damaged_files"]), ("refused_until_restart", 0))
            self.assertIn("refused until kvstreamd is restarted", harness.run_ctl("stats", "--server", daemon.address).stdout)
            harness.wait_until(lambda: json.loads(daemon.get("/health"))["restart_needed"], "health to say that it takes a restart")
            self.load_whole(daemon, profile, kept)
            self.assertEqual(daemon.stop(), 0, daemon.output())
        # Told to, it ends by itself, with a status of its own. A restart on a disk that is well has everything.
        with harness.Daemon(self.path("other"), *unsynced, "--exit-when-read-only", "true", file_bytes_max=600_000) as daemon:
            kept = self.fail_for_good(model, profile, daemon)
            self.assertEqual(daemon.process.wait(timeout=harness.TIMEOUT_SECONDS), 4, daemon.output())
            self.assertIn("the store takes no writes until kvstreamd is restarted", daemon.output())
        with harness.Daemon(self.path("other")) as daemon:
            self.load_whole(daemon, profile, kept)
            ctl("put", "--server", daemon.address, "--profile", profile, "--in", model.context("after", 2000))
            self.assertEqual(ctl("stats", "--server", daemon.address)["store_writes"], "taken")
            self.assertEqual(daemon.stop(), 0, daemon.output())

    def load_whole(self, daemon, profile, context):
        loaded = ctl("load", "--server", daemon.address, "--profile", profile, "--tokens-from", context, "--out", self.path("whole.safetensors"))
        self.assertEqual(len(loaded["chunks"]), 3)


if __name__ == "__main__":
    unittest.main()

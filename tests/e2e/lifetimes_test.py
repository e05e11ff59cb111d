"""How long chunks stay: expiry, pins, deletions, uploads that nobody finishes; over restarts and SIGKILL, with the real binaries."""
import os
import re
import signal
import subprocess
import unittest

import harness
from harness import ctl


def metric(daemon, name):
    return float(re.search(rf"^{name} (\S+)$", daemon.get("/metrics"), re.M).group(1))


class LifetimesTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.model = harness.Model(self.scratch)
        self.profile = self.model.profile()

    def put(self, daemon, context, *more):
        return ctl("put", "--server", daemon.address, "--profile", self.profile, "--in", context, *more)

    def chunks(self, daemon):
        return ctl("list", "--server", daemon.address)["chunks"]

    def named(self, daemon, context):
        return ["--server", daemon.address, "--profile", self.profile, "--tokens-from", context]

    def test_chunks_expire_as_the_upload_or_the_daemon_says(self):
        short, long, default = (self.model.context(name, 600) for name in ("short", "long", "default"))
        with harness.Daemon(self.path("data"), "--default-ttl", "2h", "--expiry-interval", "50ms") as daemon:
            self.put(daemon, long, "--ttl", "24h", "--model", "long@1")
            self.put(daemon, default, "--model", "default@1")
            self.assertEqual({bool(c["expires"]) for c in self.chunks(daemon)}, {True})
            listed = ctl("list", "--server", daemon.address, "--model", "long@1")["chunks"]
            self.assertEqual(len(listed), 3)
            self.put(daemon, short, "--ttl", "1ms")
            harness.wait_until(lambda: metric(daemon, "kvstream_store_expired_chunks_total") == 3, "three chunks to expire")
            self.assertEqual(len(self.chunks(daemon)), 6)
            self.assertEqual(ctl("stats", "--server", daemon.address)["expired_chunks"], 3)
            # Putting a context again keeps it longer, without sending it.
            again = self.put(daemon, default, "--ttl", "48h", "--model", "default@1")
            self.assertEqual((again["chunks_stored"], again["chunks_existing"]), (0, 3))
            later = ctl("list", "--server", daemon.address, "--model", "default@1")["chunks"]
            self.assertGreater(min(c["expires"] for c in later), max(c["expires"] for c in listed))
            daemon.kill()
        # What expired while nobody served goes soon after the start.
        with harness.Daemon(self.path("data"), "--expiry-interval", "50ms") as daemon:
            self.assertEqual({c["id"]: c["expires"] for c in self.chunks(daemon)}, {c["id"]: c["expires"] for c in listed + later})

    def test_pins_survive_sigkill_and_end(self):
        context = self.model.context("pinned", 600)
        with harness.Daemon(self.path("data")) as daemon:
            self.put(daemon, context, "--ttl", "1h")
            self.assertEqual(ctl("pin", *self.named(daemon, context), "--owner", "nightly job", "--for", "1h")["chunks_pinned"], 3)
            self.assertEqual(metric(daemon, "kvstream_store_pins"), 3)
            daemon.kill()
        with harness.Daemon(self.path("data")) as daemon:
            pins = ctl("pins", "--server", daemon.address, "--owner", "nightly job")["pins"]
            self.assertEqual({p["id"] for p in pins}, {c["id"] for c in self.chunks(daemon)})
            for verb in (["delete", *self.named(daemon, context)], ["delete", "--server", daemon.address, "--id", pins[0]["id"]]):
                with self.assertRaises(harness.CtlError) as raised:
                    ctl(*verb)
                self.assertIn("nightly job", raised.exception.stderr)
            self.assertEqual(ctl("unpin", "--server", daemon.address, "--owner", "nightly job", "--everywhere")["pins_ended"], 3)
            self.assertEqual(ctl("pins", "--server", daemon.address)["pins"], [])
            ctl("pin", *self.named(daemon, context), "--owner", "other", "--for", "1h")
            self.assertEqual(ctl("delete", *self.named(daemon, context), "--force")["chunks_deleted"], 3)

    def test_a_context_or_a_model_is_deleted(self):
        context, other = self.model.context("long", 1500), self.model.context("other", 600)
        with harness.Daemon(self.path("data")) as daemon:
            self.put(daemon, context, "--model", "one@1")
            self.put(daemon, other, "--model", "two@1")
            last = max((c for c in self.chunks(daemon) if c["model"] == "one@1"), key=lambda c: c["first_token"])
            planned = ctl("delete", "--server", daemon.address, "--context", last["id"], "--dry-run")
            self.assertEqual((planned["chunks_deleted"], len(self.chunks(daemon))), (6, 9))
            done = ctl("delete", *self.named(daemon, context), "--model", "one@1", "--keep-shared")
            self.assertEqual((done["chunks_deleted"], done["payload_bytes"]), (6, planned["payload_bytes"]))
            self.assertEqual(ctl("delete", "--server", daemon.address, "--context", last["id"])["chunks_deleted"], 0)
            self.assertEqual(ctl("delete", "--server", daemon.address, "--model", "two@1", "--all-of-model", "--dry-run")["chunks_deleted"], 3)
            self.assertEqual(ctl("delete", "--server", daemon.address, "--model", "two@1", "--all-of-model")["chunks_deleted"], 3)
            self.assertEqual(self.chunks(daemon), [])
            for more in (["--all-of-model"], ["--keep-shared", "--id", last["id"]], ["--dry-run", "--id", last["id"]],
                         ["--context", last["id"], "--id", last["id"]], ["--context", last["id"], "--all-of-model"]):
                self.assertEqual(harness.run_ctl("delete", "--server", daemon.address, *more).returncode, 1, more)

    def test_what_was_deleted_during_a_load_stays_deleted_after_sigkill(self):
        context = self.model.context("loaded", 3000)
        with harness.Daemon(self.path("data")) as daemon:
            self.put(daemon, context)
            with harness.Relay(daemon.address, "--rate", "16kbit") as relay:
                load = subprocess.Popen([harness.binary("client/kvstreamctl"), "load", "--server", relay.address, "--profile", self.profile,
                                         "--tokens-from", context, "--out", self.path("out.safetensors")],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    harness.wait_until(lambda: ctl("stats", "--server", daemon.address)["loads_in_flight"] == 1, "the load to begin")
                    self.assertEqual(ctl("delete", *self.named(daemon, context))["chunks_deleted"], 12)
                    stats = ctl("stats", "--server", daemon.address)
                    self.assertEqual((stats["loads_in_flight"], stats["chunks"]), (1, 12), "the load goes on, the chunks are kept for it")
                    self.assertEqual(self.chunks(daemon), [])
                    daemon.kill()
                finally:
                    load.send_signal(signal.SIGKILL)
                    load.wait()
        with harness.Daemon(self.path("data")) as daemon:
            self.assertEqual((self.chunks(daemon), ctl("stats", "--server", daemon.address)["chunks"]), ([], 0))
            self.assertEqual(self.put(daemon, context)["chunks_stored"], 12)
            self.assertEqual(daemon.stop(), 0)

    def test_an_upload_that_dies_leaves_nothing_behind(self):
        context = self.model.context("upload", 3000)
        with harness.Daemon(self.path("data")) as daemon:
            with harness.Relay(daemon.address, "--rate", "64kbit") as relay:
                for _ in range(3):
                    put = subprocess.Popen([harness.binary("client/kvstreamctl"), "put", "--server", relay.address, "--profile", self.profile,
                                            "--in", context], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    try:
                        harness.wait_until(lambda: metric(daemon, "kvstream_put_buffer_bytes") > 0 or put.poll() is not None,
                                           "a chunk to be under way")
                        self.assertIsNone(put.poll(), "the upload ended by itself")
                    finally:
                        put.send_signal(signal.SIGKILL)
                        put.wait()
                    harness.wait_until(lambda: metric(daemon, "kvstream_puts_in_flight") == 0, "the upload to end")
                    self.assertEqual(metric(daemon, "kvstream_put_buffer_bytes"), 0)
            # Whole chunks that were stored before stay, and are not sent again.
            stored = len(self.chunks(daemon))
            again = self.put(daemon, context)
            self.assertEqual((again["chunks_existing"], again["chunks_stored"]), (stored, 12 - stored))

    def test_an_upload_that_nobody_finishes_is_ended(self):
        context = self.model.context("stalled", 3000)
        with harness.Daemon(self.path("data"), "--client-idle-timeout", "500ms") as daemon:
            with harness.Relay(daemon.address, "--rate", "64kbit") as relay:
                put = subprocess.Popen([harness.binary("client/kvstreamctl"), "put", "--server", relay.address, "--profile", self.profile,
                                        "--in", context], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    harness.wait_until(lambda: metric(daemon, "kvstream_puts_in_flight") > 0 or put.poll() is not None, "the upload to begin")
                    os.kill(put.pid, signal.SIGSTOP)  # the connection stays, and nothing comes
                    os.kill(relay.process.pid, signal.SIGSTOP)
                    harness.wait_until(lambda: metric(daemon, "kvstream_puts_in_flight") == 0, "the daemon to lose patience")
                    self.assertEqual(metric(daemon, "kvstream_put_buffer_bytes"), 0)
                finally:
                    os.kill(relay.process.pid, signal.SIGCONT)
                    put.send_signal(signal.SIGKILL)
                    put.wait()


if __name__ == "__main__":
    unittest.main()

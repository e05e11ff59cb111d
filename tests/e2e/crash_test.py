"""A daemon that is killed with SIGKILL in the middle of puts keeps all it acknowledged and shows no partial chunk afterwards."""
import os
import random
import subprocess
import threading
import unittest

import harness
import numpy as np
from harness import R, ctl

CHUNK_TOKENS = 256
ROUNDS = 5
CONTEXT_TOKENS = 1000  # four chunks, the last one shorter


class CrashTest(harness.TestCase):
    def test_sigkill_during_put_loses_nothing_acknowledged(self):
        seed = int(os.environ.get("KVSTREAM_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
        print(f"KVSTREAM_TEST_SEED={seed}")
        rng = random.Random(seed)
        model = harness.Model(self.scratch, layers=4, head_size=32, seed=7)
        profile = model.profile()
        finest = len(ctl("encode", "--profile", profile, "--in", model.context("probe", 300), "--out", self.path("probe.kvs"))["levels"]) - 1
        acknowledged, interrupted = [], []
        for round_number in range(ROUNDS):
            with harness.Daemon(self.path("data")) as daemon:
                self.check_store(daemon, profile, finest, acknowledged, interrupted)
                # Some puts are acknowledged, then chance picks the moment of death within the next one (or between two).
                contexts = [model.context(f"r{round_number}-{i}", CONTEXT_TOKENS) for i in range(6)]
                undisturbed, timer = rng.randrange(4), threading.Timer(rng.uniform(0, 0.3), daemon.process.kill)
                for i, context in enumerate(contexts):
                    if i == undisturbed:
                        timer.start()
                    done = harness.run_ctl("put", "--server", daemon.address, "--profile", profile, "--in", context)
                    (acknowledged if done.returncode == 0 else interrupted).append(context)
                    if done.returncode != 0:
                        self.assertGreater(done.returncode, 0, done.stderr)
                        self.assertTrue(done.stderr.strip(), "an error is explained on stderr")
                        break
                timer.join()
                daemon.process.wait()
        # A round that dies between two puts interrupts none; this one dies with two puts under way for certain.
        with harness.Daemon(self.path("data")) as daemon:
            contexts = [model.context(f"last-{i}", 16 * CONTEXT_TOKENS) for i in range(2)]
            puts = [subprocess.Popen([harness.binary("client/kvstreamctl"), "put", "--server", daemon.address, "--profile", profile, "--in", c],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for c in contexts]
            before = ctl("stats", "--server", daemon.address)["chunks"]
            harness.wait_until(lambda: any(p.poll() is not None for p in puts) or ctl("stats", "--server", daemon.address)["chunks"] > before,
                               "the first chunk of a put to be stored")
            daemon.kill()
            for put, context in zip(puts, contexts):
                (acknowledged if put.wait() == 0 else interrupted).append(context)
        with harness.Daemon(self.path("data")) as daemon:
            self.check_store(daemon, profile, finest, acknowledged, interrupted)
            # What was cut off can simply be put again.
            for context in interrupted:
                ctl("put", "--server", daemon.address, "--profile", profile, "--in", context)
            self.check_store(daemon, profile, finest, acknowledged + interrupted, [])
            self.assertEqual(daemon.stop(), 0)
        print(f"{len(acknowledged)} puts acknowledged, {len(interrupted)} interrupted")

    def check_store(self, daemon, profile, finest, acknowledged, interrupted):
        for context in acknowledged:
            self.assertEqual(self.stored_prefix(daemon, profile, finest, context), len(self.tokens(context)), f"{context}: acknowledged, then lost")
        for context in interrupted:
            stored = self.stored_prefix(daemon, profile, finest, context)
            self.assertTrue(stored % CHUNK_TOKENS == 0 or stored == len(self.tokens(context)), f"{context}: {stored} tokens are no whole chunks")

    def tokens(self, context):
        return R.load_kv(context)[1]

    def stored_prefix(self, daemon, profile, finest, context):
        """Tokens of the context's stored prefix, after checking that they load at the finest level, byte by byte what a local decode gives."""
        matched = ctl("lookup", "--server", daemon.address, "--profile", profile, "--tokens-from", context)["matched_tokens"]
        if matched == 0:
            return 0
        reference = context + ".decoded"
        if not os.path.exists(reference):
            ctl("encode", "--profile", profile, "--in", context, "--out", self.path("reference.kvs"))
            ctl("decode", "--profile", profile, "--in", self.path("reference.kvs"), "--level", finest, "--out", reference)
        prefix, loaded = self.path("prefix.safetensors"), self.path("loaded.safetensors")
        R.write_safetensors(prefix, {"tokens": ("I32", np.asarray(self.tokens(context)[:matched], np.int32))})
        ctl("load", "--server", daemon.address, "--profile", profile, "--tokens-from", prefix, "--policy", "fixed", "--level", finest,
            "--out", loaded)
        self.assertTrue(harness.same_kv(loaded, reference, matched), f"{context}: loaded KV differs from what was put")
        return matched


if __name__ == "__main__":
    unittest.main()

"""`load` under one deadline through links of 5 to 500 Mbit/s: the faster the link the finer, in time wherever a fixed coarsest level is.

The deadline belongs to the product's contract, so delays are compared with it; it leaves the coarsest level about half of its time on the slowest link, which
is far more than a busy machine eats.
"""
import unittest

import harness
from harness import ctl

LINKS_MBIT = (5, 20, 100, 500)
DEADLINE_SECONDS = 4.0
TOKENS = 2048


class AdaptiveLoadTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.model = harness.Model(self.scratch, layers=8, kv_heads=4, head_size=64, rank=128, seed=3)
        self.profile = self.model.profile()
        self.context = self.model.context("context", TOKENS)
        self.daemon = self.enter(harness.Daemon(self.path("data")))
        ctl("put", "--server", self.daemon.address, "--profile", self.profile, "--in", self.context)
        looked = ctl("lookup", "--server", self.daemon.address, "--profile", self.profile, "--tokens-from", self.context)
        self.level_bytes = looked["level_bytes"]

    def enter(self, manager):
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def load(self, address, *options):
        return ctl("load", "--server", address, "--profile", self.profile, "--tokens-from", self.context, *options,
                   "--out", self.path("out.safetensors"))

    def test_faster_links_get_finer_levels_and_no_deadline_is_missed_needlessly(self):
        # What the deadline's choice rests on: at 5 Mbit/s the coarsest level fits with room, the finest does not.
        slowest = LINKS_MBIT[0] * 1e6 / 8
        self.assertLess(self.level_bytes[0] / slowest, 0.6 * DEADLINE_SECONDS, self.level_bytes)
        self.assertGreater(self.level_bytes[-1] / slowest, 1.5 * DEADLINE_SECONDS, self.level_bytes)
        means = []
        for rate in LINKS_MBIT:
            with harness.Relay(self.daemon.address, "--rate", f"{rate}Mbit") as relay:
                fixed = self.load(relay.address, "--policy", "fixed", "--level", "0")
            with harness.Relay(self.daemon.address, "--rate", f"{rate}Mbit") as relay:
                adaptive = self.load(relay.address, "--deadline", f"{DEADLINE_SECONDS}s")
            levels = [chunk["level"] for chunk in adaptive["chunks"]]
            means.append(sum(levels) / len(levels))
            print(f"{rate:4d} Mbit/s: fixed level 0 {fixed['load_delay_ms']:.0f} ms; adaptive {adaptive['load_delay_ms']:.0f} ms, levels {levels}, "
                  f"{adaptive['bits_per_value']:.2f} b/v, estimate {adaptive['estimate'] * 8e-6:.1f} Mbit/s")
            self.assertEqual(len(levels), TOKENS // 256)
            if fixed["load_delay_ms"] <= DEADLINE_SECONDS * 1000:
                self.assertLessEqual(adaptive["load_delay_ms"], DEADLINE_SECONDS * 1000, f"{rate} Mbit/s: missed, the fixed coarsest level was in time")
            # The relay really is a link of that speed: no load can be faster than its bytes allow (bursts of a bucket aside).
            self.assertGreater(fixed["load_delay_ms"], 0.5 * self.level_bytes[0] * 8 / (rate * 1e3))
        self.assertEqual(means, sorted(means), "a faster link got coarser levels")
        self.assertGreater(means[-1], means[0], "no finer level on the fastest link than on the slowest")
        self.assertEqual(means[-1], len(self.level_bytes) - 1, "500 Mbit/s carries the finest level many times over")

    def recomputed(self, loaded):
        """Per chunk: whether it was recomputed."""
        return [chunk["level"] == "recompute" for chunk in loaded["chunks"]]

    def test_recomputes_when_that_is_faster_and_only_then(self):
        # kvstreamctl emulates the model: it takes the time of the prefill speed that it is told and copies the original KV.
        def load(mbit, tokens_per_second, *options):
            with harness.Relay(self.daemon.address, "--rate", f"{mbit}Mbit") as relay:
                return self.load(relay.address, "--prefill-tokens-per-second", tokens_per_second, "--recompute-from", self.context, *options)

        quick = load(5, 50000, "--recompute-ability", "any", "--policy", "fastest")
        self.assertGreater(sum(self.recomputed(quick)), len(quick["chunks"]) / 2, "the link needs seconds for what the model does in 40 ms")
        self.assertLess(quick["load_delay_ms"], self.level_bytes[0] * 8 / (LINKS_MBIT[0] * 1e3), "no sooner than streaming alone")
        original, loaded = harness.bits(self.context), harness.bits(self.path("out.safetensors"))
        for chunk, recomputed in enumerate(self.recomputed(quick)):
            tokens = slice(256 * chunk, 256 * (chunk + 1))
            same = all((original[name][tokens] == loaded[name][tokens]).all() for name in original)
            self.assertEqual(same, recomputed, f"chunk {chunk}: recomputed chunks are exact, streamed ones are not")

        slow = load(500, 100, "--recompute-ability", "any", "--policy", "fastest")
        self.assertEqual(sum(self.recomputed(slow)), 0, "the model needs 2.5 s for a chunk that the link brings in milliseconds")

        suffix = load(5, 4000, "--recompute-ability", "suffix", "--policy", "fastest")
        flags = self.recomputed(suffix)
        self.assertEqual(flags, sorted(flags), "a client that can only recompute a suffix got something else")

        # Link and model need about the same time for the whole context: sharing the chunks between them is fastest.
        both = load(5, 2048 / 2, "--recompute-ability", "any", "--policy", "fastest")
        self.assertTrue(0 < sum(self.recomputed(both)) < len(both["chunks"]), both)

        only = load(500, 50000, "--recompute-ability", "any", "--policy", "recompute")
        self.assertTrue(all(self.recomputed(only)))
        self.assertEqual(only["bytes"], 0)


if __name__ == "__main__":
    unittest.main()

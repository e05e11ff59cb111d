"""`load --trace` and `explain`: the story of real loads, written, read and drawn by the real binaries."""
import json
import os
import unittest

import harness
from harness import ctl


class ExplainTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.model = harness.Model(self.scratch, layers=4, kv_heads=4, head_size=64, rank=64, seed=5)
        self.profile = self.model.profile()
        self.context = self.model.context("context", 1280)
        daemon = harness.Daemon(self.path("data"))
        self.daemon = daemon.__enter__()
        self.addCleanup(daemon.__exit__, None, None, None)
        ctl("put", "--server", self.daemon.address, "--profile", self.profile, "--in", self.context)

    def load(self, address, *options):
        return ctl("load", "--server", address, "--profile", self.profile, "--tokens-from", self.context, "--out", self.path("out.safetensors"),
                   "--trace", self.path("trace.json"), *options)

    def trace(self):
        with open(self.path("trace.json")) as f:
            return json.load(f)

    def test_a_load_over_a_slow_link_tells_its_story(self):
        with harness.Relay(self.daemon.address, "--rate", "10Mbit") as relay:
            loaded = self.load(relay.address, "--policy", "fixed", "--level", "1")
        trace = self.trace()
        self.assertEqual(trace["kvstream_load_trace"], 1)
        self.assertEqual(trace["outcome"]["bytes"], loaded["bytes"])
        self.assertEqual(sum(trace["arrivals"]), loaded["bytes"])
        self.assertEqual(sum(event["bytes"] for event in trace["events"] if event["kind"] == "segment"), loaded["bytes"])
        self.assertEqual(trace["outcome"]["levels"], [chunk["level"] for chunk in loaded["chunks"]])
        self.assertEqual({event["chunk"] for event in trace["events"] if event["kind"] == "decode"}, set(range(5)))
        self.assertTrue(trace["server"], "this server tells its estimates")
        self.assertEqual(trace["request"]["chunks"], 5)

        story = ctl("explain", self.path("trace.json"), "--html", self.path("trace.html"))
        self.assertTrue(story["ok"])
        self.assertAlmostEqual(sum(story["spent_ms"].values()), story["delay_ms"], places=1)
        with open(self.path("trace.html")) as f:
            page = f.read()
        self.assertIn("<svg", page)
        self.assertNotIn("<script", page)
        drawn = harness.run_ctl("explain", self.path("trace.json"))
        self.assertEqual(drawn.returncode, 0)
        self.assertIn("what the delay was spent on", drawn.stdout)

    def test_recompute_is_in_the_story(self):
        loaded = self.load(self.daemon.address, "--policy", "recompute", "--recompute-ability", "any", "--prefill-tokens-per-second", "100000",
                           "--recompute-from", self.context)
        trace = self.trace()
        self.assertEqual(loaded["bytes"], 0)
        self.assertEqual(trace["outcome"]["levels"], [None] * 5)
        self.assertEqual(sum(event["chunks"] for event in trace["events"] if event["kind"] == "recompute"), 5)

    def test_without_a_load_there_is_no_trace(self):
        self.daemon.kill()
        done = harness.run_ctl("load", "--server", self.daemon.address, "--profile", self.profile, "--tokens-from", self.context,
                               "--out", self.path("out.safetensors"), "--trace", self.path("trace.json"), "--timeout", "2s")
        self.assertEqual(done.returncode, 1)
        # Nobody answered the ping before the load: there was no load and there is no story.
        self.assertFalse(os.path.exists(self.path("trace.json")))

    def test_explain_refuses_what_is_no_trace(self):
        for text in ("", "{}", '{"kvstream_load_trace": 7}', '{"kvstream_load_trace": 1, "request": "\\u001b[2J"}'):
            with open(self.path("bad.json"), "w") as f:
                f.write(text)
            done = harness.run_ctl("explain", self.path("bad.json"))
            self.assertEqual(done.returncode, 1, text)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertNotIn("\x1b", done.stderr)


if __name__ == "__main__":
    unittest.main()

"""Bytes that change on the daemon's disk: scrub names them, loads go on by recompute, a put heals them; backups come back byte by byte."""
import json
import os
import subprocess
import threading
import unittest

import harness
from harness import ctl, run_ctl


def scrub(daemon, *options):
    """(exit status, the JSON object, stderr) of kvstreamctl scrub."""
    done = run_ctl("scrub", "--server", daemon.address, "--rate", "1GB", "--format", "json", *options)
    return done.returncode, json.loads(done.stdout), done.stderr


class DamageTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.model = harness.Model(self.scratch, layers=4, head_size=32, seed=7)
        self.profile = self.model.profile()
        self.context = self.model.context("context", 1000)  # four chunks
        self.kvs, self.decoded = self.path("context.kvs"), self.path("decoded.safetensors")
        self.finest = len(ctl("encode", "--profile", self.profile, "--in", self.context, "--out", self.kvs)["levels"]) - 1
        ctl("decode", "--profile", self.profile, "--in", self.kvs, "--level", self.finest, "--out", self.decoded)
        self.database = os.path.join(self.path("data"), "db")

    def put(self, daemon, context=None):
        return ctl("put", "--server", daemon.address, "--profile", self.profile, "--in", context or self.context)

    def load(self, daemon, *options):
        out = self.path("loaded.safetensors")
        done = run_ctl("load", "--server", daemon.address, "--profile", self.profile, "--tokens-from", self.context, "--policy", "fixed",
                       "--level", self.finest, "--out", out, "--format", "json", *options)
        return done, out

    def spoil_a_segment(self):
        """Flips a bit of some segment in a table of a daemon that is not running."""
        with open(self.kvs, "rb") as f:
            encoded = f.read()
        for name in sorted(os.listdir(self.database)):
            if not name.endswith(".sst"):
                continue
            with open(os.path.join(self.database, name), "r+b") as table:
                data = table.read()
                for offset in range(len(encoded) // 2, len(encoded) - 64, 997):
                    at = data.find(encoded[offset:offset + 64])
                    if at >= 0:
                        table.seek(at + 32)
                        table.write(bytes([data[at + 32] ^ 0x10]))
                        return name
        self.fail("no table holds a piece of the encoded context")

    def test_scrub_finds_loads_recompute_and_a_put_heals(self):
        for _ in range(2):  # the second start moves the log's content to tables
            with harness.Daemon(self.path("data")) as daemon:
                self.put(daemon)
                status, found, _ = scrub(daemon)
                self.assertEqual((status, found["chunks"], found["damage"]), (0, 4, []))
                self.assertEqual(daemon.stop(), 0)
        table = self.spoil_a_segment()
        with harness.Daemon(self.path("data"), "--backup-dir", self.scratch) as daemon:
            status, found, stderr = scrub(daemon)
            self.assertEqual(status, 1)
            self.assertIn("--delete-damaged", stderr)
            self.assertEqual((found["chunks"], found["damaged_chunks"], found["damaged_files"], found["chunks_deleted"]), (4, 1, 1, 0), found)
            chunk = next(d for d in found["damage"] if d["chunk"])
            self.assertIsInstance(chunk["level"], int)
            self.assertTrue(next(d for d in found["damage"] if d["file"])["file"].endswith(table), found)
            self.assertIn(chunk["chunk"], daemon.output())

            done, _ = self.load(daemon)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(chunk["chunk"][:16], done.stderr, "the error names the chunk")
            done, out = self.load(daemon, "--recompute-ability", "any", "--prefill-tokens-per-second", "1000000",
                                  "--recompute-from", self.decoded)
            self.assertEqual(done.returncode, 0, done.stderr)
            levels = [c["level"] for c in json.loads(done.stdout)["chunks"]]
            self.assertEqual(levels.count("recompute"), 1, levels)
            self.assertTrue(harness.same_kv(out, self.decoded))

            # A backup would carry the damage on; a restore does not take it.
            backup = ctl("backup", "damaged", "--server", daemon.address)
            refused = self.restore(backup["path"], self.path("restored"))
            self.assertEqual(refused.returncode, 1)
            self.assertIn("damaged", refused.stderr)
            self.assertFalse(os.path.exists(self.path("restored")))

            status, found, stderr = scrub(daemon, "--delete-damaged")
            self.assertEqual((found["damaged_chunks"], found["chunks_deleted"]), (1, 1), found)
            self.assertEqual(ctl("stats", "--server", daemon.address)["chunks"], 3)
            self.assertEqual(self.put(daemon)["chunks_stored"], 1)
            done, out = self.load(daemon)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(harness.same_kv(out, self.decoded))
            _, found, _ = scrub(daemon)
            self.assertEqual((found["chunks"], found["damaged_chunks"]), (4, 0), found)
            self.assertEqual(daemon.stop(), 0)

    def test_a_salvage_makes_a_store_without_damage(self):
        for _ in range(2):  # the second start moves the log's content to tables
            with harness.Daemon(self.path("data")) as daemon:
                self.put(daemon)
                self.assertEqual(daemon.stop(), 0)
        self.spoil_a_segment()
        os.mkdir(self.path("new"))
        done = self.make_store("--salvage-from", self.database, os.path.join(self.path("new"), "db"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, "salvaged [34] chunks ")
        self.assertRegex(done.stderr, "(kept [0-9]+ of [0-9]+ levels of|lost) chunk [0-9a-f]{64}: ")
        with harness.Daemon(self.path("new")) as daemon:
            self.assertEqual(scrub(daemon)[0], 0)
            self.put(daemon)
            done, out = self.load(daemon)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(harness.same_kv(out, self.decoded))
            self.assertEqual(daemon.stop(), 0)

    def make_store(self, how, source, data_dir):
        return subprocess.run([harness.binary("server/kvstreamd"), how, source, "--data-dir", data_dir], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=harness.TIMEOUT_SECONDS)

    def restore(self, backup, data_dir):
        return self.make_store("--restore-from", backup, data_dir)

    def test_a_backup_amid_puts_comes_back_byte_by_byte(self):
        others = [self.model.context(f"other-{i}", 600) for i in range(4)]
        with harness.Daemon(self.path("data"), "--backup-dir", self.scratch) as daemon:
            self.put(daemon)
            writer = threading.Thread(target=lambda: [self.put(daemon, other) for other in others])
            writer.start()
            backup = ctl("backup", "monday", "--server", daemon.address)
            writer.join()
            self.assertEqual(backup["path"], self.path("monday"))
            for name in "monday", "../up", ".hidden", "":
                self.assertNotEqual(run_ctl("backup", "--server", daemon.address, name).returncode, 0, name)
            self.assertEqual(daemon.stop(), 0)
        os.rename(self.path("data"), self.path("lost"))
        os.mkdir(self.path("data"))
        done = self.restore(backup["path"], self.database)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("restored ", done.stdout)
        self.assertEqual(self.restore(backup["path"], self.database).returncode, 1, "a restore overwrites nothing")
        with harness.Daemon(self.path("data")) as daemon:
            done, out = self.load(daemon)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(harness.same_kv(out, self.decoded))
            self.assertEqual(scrub(daemon)[0], 0)
            refused = run_ctl("backup", "--server", daemon.address, "x")
            self.assertIn("--backup-dir", refused.stderr)
            self.assertEqual(daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main()

"""Truncated, bit-flipped and hostile files and bytes: an error that names what is wrong, never a crash, never wrong KV."""
import json
import os
import random
import socket
import unittest

import harness
import http2
from harness import ctl, run_ctl

SEED = 20261121


class HostileFilesTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        print(f"seed {SEED}")
        self.rng = random.Random(SEED)
        self.model = harness.Model(self.scratch)
        self.profile = self.model.profile()
        self.context = self.model.context("context", 300)
        self.kvs = self.path("context.kvs")
        self.finest = len(ctl("encode", "--profile", self.profile, "--in", self.context, "--out", self.kvs)["levels"]) - 1
        self.bad, self.out = self.path("bad-file"), self.path("out")

    def write(self, data):
        with open(self.bad, "wb") as f:
            f.write(data)

    def truncations(self, data):
        for length in sorted({0, 1, 7, 8, 9, 64, len(data) // 3, len(data) - 1}):
            yield f"cut to {length} of {len(data)} bytes", data[:length]

    def flips(self, data, count, end=None):
        for position in sorted(self.rng.sample(range(end or len(data)), count)):
            bit = self.rng.randrange(8)
            yield f"bit {bit} of byte {position} flipped", data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1:]

    def run_on(self, *args):
        """kvstreamctl on a hostile file: it must not die of a signal or of a sanitizer's report."""
        if os.path.exists(self.out):
            os.unlink(self.out)
        done = run_ctl(*args)
        self.assertGreaterEqual(done.returncode, 0, f"killed by a signal\n{done.stderr}")
        self.assertNotIn("Sanitizer", done.stderr)
        self.assertNotIn("runtime error", done.stderr)
        return done

    def refuses(self, *args, naming=None):
        done = self.run_on(*args)
        self.assertNotEqual(done.returncode, 0, "accepted")
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, f"one line on stderr: {done.stderr}")
        if naming:
            self.assertIn(naming, done.stderr)
        self.assertFalse(os.path.exists(self.out), "an output file was left behind")

    def test_damaged_kvs_is_refused(self):
        with open(self.kvs, "rb") as f:
            data = f.read()
        for what, damaged in [*self.truncations(data), *self.flips(data, 40), ("a byte added", data + b"\0")]:
            with self.subTest(what=what):
                self.write(damaged)
                self.refuses("decode", "--profile", self.profile, "--in", self.bad, "--level", self.finest, "--out", self.out, naming="bad-file")

    def test_damaged_profile_is_refused(self):
        with open(self.profile, "rb") as f:
            data = f.read()
        for what, damaged in [*self.truncations(data), *self.flips(data, 40), ("a byte added", data + b"\0")]:
            with self.subTest(what=what):
                self.write(damaged)
                self.refuses("decode", "--profile", self.bad, "--in", self.kvs, "--level", "0", "--out", self.out, naming="bad-file")

    def test_kvs_of_another_profile_is_refused(self):
        other = self.model.profile("other")
        self.refuses("decode", "--profile", other, "--in", self.kvs, "--level", "0", "--out", self.out)

    def test_truncated_safetensors_is_refused(self):
        with open(self.context, "rb") as f:
            data = f.read()
        for what, damaged in self.truncations(data):
            with self.subTest(what=what):
                self.write(damaged)
                self.refuses("encode", "--profile", self.profile, "--in", self.bad, "--out", self.out, naming="bad-file")

    def test_flipped_safetensors_header_never_crashes(self):
        # A flip in the header's text can leave a valid file (metadata, a blank); in the KV itself nothing can be noticed: safetensors has no checksum.
        with open(self.context, "rb") as f:
            data = f.read()
        header = 8 + int.from_bytes(data[:8], "little")
        for what, damaged in self.flips(data, 40, header):
            with self.subTest(what=what):
                self.write(damaged)
                self.run_on("encode", "--profile", self.profile, "--in", self.bad, "--out", self.out)

    def test_lying_safetensors_is_refused(self):
        with open(self.context, "rb") as f:
            data = f.read()
        length = int.from_bytes(data[:8], "little")
        header, payload = json.loads(data[8:8 + length]), data[8 + length:]

        def lie(**change):
            entry = {**header["layers.1.key"], **change}
            text = json.dumps({**header, "layers.1.key": entry}).encode()
            return len(text).to_bytes(8, "little") + text + payload

        lies = {
            "header longer than any file": (1 << 62).to_bytes(8, "little") + data[8:],
            "header that is no object": b"\x02\0\0\0\0\0\0\0[]",
            "nesting without end": (100000).to_bytes(8, "little") + b"[" * 100000,
            "shape of another model": lie(shape=[300, 2, 17]),
            "shape whose product overflows": lie(shape=[1 << 32, 1 << 32, 1 << 32]),
            "negative shape": lie(shape=[-300, 2, 16]),
            "offsets beyond the file": lie(data_offsets=[0, 1 << 60]),
            "offsets in the wrong order": lie(data_offsets=[100, 0]),
            "fewer tokens than the others": lie(shape=[299, 2, 16], data_offsets=[0, 299 * 64]),
            "element type that is no 16-bit float": lie(dtype="F64"),
            "a layer missing": json_file({k: v for k, v in header.items() if k != "layers.1.key"}, payload),
        }
        for what, damaged in lies.items():
            with self.subTest(what=what):
                self.write(damaged)
                self.refuses("encode", "--profile", self.profile, "--in", self.bad, "--out", self.out, naming="bad-file")

    def test_hostile_config_is_refused_by_key(self):
        with open(self.model.config) as f:
            good = json.load(f)
        for key, value in [("num_hidden_layers", -1), ("num_hidden_layers", "two"), ("num_hidden_layers", 10 ** 12), ("num_key_value_heads", 0),
                           ("head_dim", 1 << 40), ("num_attention_heads", None), ("rope_theta", -5), ("rope_theta", "many"),
                           ("rope_scaling", {"rope_type": "unheard_of"})]:
            with self.subTest(key=key, value=value):
                self.write(json.dumps({**good, key: value}).encode())
                # num_attention_heads is not needed where head_dim and num_key_value_heads are given.
                check = self.run_on if key == "num_attention_heads" else self.refuses
                check("profile", "build", "--config", self.bad, "--kv", self.context, "--out", self.out)
        for what, text in [("empty", b""), ("no JSON", b"\xff\xfe{"), ("cut", json.dumps(good).encode()[:-20]), ("an array", b"[1,2]"),
                           ("deep", b"[" * 200000)]:
            with self.subTest(what=what):
                self.write(text)
                self.refuses("profile", "build", "--config", self.bad, "--kv", self.context, "--out", self.out, naming="bad-file")


class HostileBytesTest(harness.TestCase):
    METHODS = ["PutProfile", "GetProfile", "Put", "Lookup", "Load", "Delete", "List", "Stats", "NoSuchMethod"]

    def test_daemon_survives_garbage_on_both_ports(self):
        print(f"seed {SEED}")
        rng = random.Random(SEED)
        model = harness.Model(self.scratch)
        profile, context = model.profile(), model.context("context", 300)
        with harness.Daemon(self.path("data")) as daemon:
            ctl("put", "--server", daemon.address, "--profile", profile, "--in", context)
            for address in (daemon.address, daemon.http.split("//")[1]):
                for garbage in self.garbage(rng):
                    self.send(address, garbage)
            bodies = {
                "random bytes": lambda: http2.message(rng.randbytes(rng.randrange(1, 300))),
                "random bytes, many": lambda: http2.message(rng.randbytes(60000)),
                "a length beyond the limit": lambda: http2.message(b"abc", declared=0xFFFFFFFF),
                "a message cut short": lambda: http2.message(b"\x0a\x20" + bytes(10), declared=1000),
                "nothing": lambda: b"",
                # field 1 (start), in it field 2 (chunk_ids or model) 30,000 times, empty; 60,000 is e0 d4 03 as a varint
                "repeated fields": lambda: http2.message(b"\x0a\xe0\xd4\x03" + b"\x12\x00" * 30000),
                "a field longer than the message": lambda: http2.message(b"\x0a\xff\xff\xff\xff\x07"),
            }
            for method in self.METHODS:
                for what, body in bodies.items():
                    with self.subTest(method=method, what=what):
                        last = http2.call(daemon.address, f"/kvstream.v1.KVStream/{method}", body(), harness.TIMEOUT_SECONDS)
                        self.assertTrue(daemon.alive(), daemon.output())
                        self.assertEqual(last, http2.HEADERS, "the call ends with a status, not with a broken connection")
            # The daemon is unimpressed: what was stored is still served and it ends in good order.
            self.assertTrue(json.loads(daemon.get("/health"))["ready"])
            loaded = ctl("load", "--server", daemon.address, "--profile", profile, "--tokens-from", context, "--policy", "fixed", "--level", "0",
                         "--out", self.path("out.safetensors"))
            self.assertEqual([c["level"] for c in loaded["chunks"]], [0, 0])
            self.assertEqual(daemon.stop(), 0, daemon.output())
            self.assertNotIn("Sanitizer", daemon.output())

    def garbage(self, rng):
        yield b""
        yield b"\0" * 100000
        yield rng.randbytes(50000)
        yield b"GET / HTTP/1.1\r\n\r\n"
        yield b"GET /metrics HTTP/9.9\r\nContent-Length: -1\r\n\r\n"
        yield b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\n\r\n"
        yield b"POST /health HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nx"
        yield b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n"
        yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(5000)
        yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2.frame(4, 0, 0, b"\xff" * 6) + http2.frame(1, 4, 1, rng.randbytes(300))

    def send(self, address, data):
        """Sends the bytes and leaves; the server's answer, if any, is not read."""
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=harness.TIMEOUT_SECONDS) as connection:
            try:
                connection.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass


def json_file(header, payload):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


if __name__ == "__main__":
    unittest.main()

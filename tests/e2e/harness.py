"""What the end-to-end tests share: the real binaries as processes on free ports, synthetic KV caches, one verb call of kvstreamctl.

Every process that a test starts is ended by the context manager that started it. Waiting is on events (a file that appears, a line on a pipe,
a process that ends), with TIMEOUT_SECONDS as the bound past which a test fails; no result depends on a duration.
"""
import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import numpy as np

ROOT = os.environ.get("KVSTREAM_TEST_ROOT") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "reference_lm"))
import reference_lm as R  # noqa: E402

TIMEOUT_SECONDS = 240  # for anything that must happen; generous, for sanitizer builds on a busy machine


def binary(name):
    """Path of "server/kvstreamd" and the like, from Bazel's runfiles or from bazel-bin of the checkout."""
    for path in (os.path.join(ROOT, name), os.path.join(ROOT, "bazel-bin", name)):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise RuntimeError(f"{name} is not built; run the test with bazel, or bazel build //{name.replace('/', ':')}")


class CtlError(Exception):
    """kvstreamctl ended with a non-zero status."""

    def __init__(self, args, status, stderr):
        super().__init__(f"kvstreamctl {' '.join(args)}: exit status {status}: {stderr.strip()}")
        self.status, self.stderr = status, stderr


def run_ctl(*args):
    """The completed process of kvstreamctl ARGS, whatever its status."""
    return subprocess.run([binary("client/kvstreamctl"), *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", timeout=TIMEOUT_SECONDS)


def ctl(*args):
    """Runs kvstreamctl ARGS --format json; returns its object, raises CtlError."""
    args = [*map(str, args), "--format", "json"]
    done = run_ctl(*args)
    if done.returncode != 0:
        raise CtlError(args, done.returncode, done.stderr)
    return json.loads(done.stdout)


def wait_until(condition, what):
    """Polls until condition() is true; for events that have no descriptor to wait on."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {TIMEOUT_SECONDS} s for {what}")
        select.select([], [], [], 0.02)


class Daemon:
    """A kvstreamd process on free loopback ports. Its data directory survives restarts.

    With `file_bytes_max` the kernel refuses it every write that would make a file longer: a disk that fails, without any privilege.
    """

    def __init__(self, data_dir, *options, store="rocksdb", environment=None, file_bytes_max=None):
        self.data_dir, self.options, self.store, self.environment = data_dir, options, store, environment or {}
        self.file_bytes_max = file_bytes_max
        self.process = None

    def _limit(self):
        # Else the signal ends the process; it gets EFBIG.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes_max, self.file_bytes_max))

    def start(self):
        os.makedirs(self.data_dir, exist_ok=True)
        ports_file = os.path.join(self.data_dir, "..", f"ports-{os.path.basename(self.data_dir)}.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(ports_file)
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            [binary("server/kvstreamd"), "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--ports-file", ports_file,
             "--store", self.store, "--data-dir", os.path.join(self.data_dir, "db"), *self.options],
            stdout=self.log, stderr=subprocess.STDOUT, env={**os.environ, **self.environment},
            preexec_fn=self._limit if self.file_bytes_max else None)
        wait_until(lambda: os.path.exists(ports_file) or self.process.poll() is not None, "kvstreamd to open its ports")
        if self.process.poll() is not None:
            raise RuntimeError(f"kvstreamd ended with status {self.process.returncode} at its start:\n{self.output()}")
        with open(ports_file) as f:
            ports = json.load(f)
        self.address, self.http = f"127.0.0.1:{ports['grpc']}", f"http://127.0.0.1:{ports['http']}"
        return self

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        """SIGKILL: nothing in the process gets a chance to flush."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=TIMEOUT_SECONDS)

    def get(self, path):
        with urllib.request.urlopen(self.http + path, timeout=TIMEOUT_SECONDS) as response:
            return response.read().decode()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.kill()
        self.log.close()


class Relay:
    """`kvstreamctl relay`: a link of a given speed in front of an address."""

    def __init__(self, to, *options):
        self.to, self.options = to, options

    def __enter__(self):
        self.process = subprocess.Popen([binary("client/kvstreamctl"), "relay", "--listen", "127.0.0.1:0", "--to", self.to, *self.options,
                                         "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        readable, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_SECONDS)
        line = self.process.stdout.readline() if readable else ""
        if not line:
            self.process.kill()
            raise RuntimeError(f"kvstreamctl relay printed no address: {self.process.stderr.read()}")
        self.address = json.loads(line)["listen"]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


class Model:
    """A made-up model: a config.json, KV caches of the statistics that real ones have (channel means, low rank, RoPE), a built profile."""

    def __init__(self, directory, layers=2, kv_heads=2, head_size=16, rank=8, seed=1):
        self.directory, self.layers, self.kv_heads, self.head_size = directory, layers, kv_heads, head_size
        self.rng = np.random.default_rng(seed)
        self.values_per_token = 2 * layers * kv_heads * head_size
        channels = 2 * kv_heads * head_size
        self.means = self.rng.normal(0, 1, (layers, channels)).astype(np.float32)
        self.mixing = (self.rng.normal(0, 1, (layers, rank, channels)) / np.sqrt(rank)).astype(np.float32)
        self.config = self.path("config.json")
        with open(self.config, "w") as f:
            json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": kv_heads * head_size,
                       "num_hidden_layers": layers, "num_attention_heads": kv_heads, "num_key_value_heads": kv_heads, "head_dim": head_size,
                       "max_position_embeddings": 131072, "rope_theta": 10000.0, "torch_dtype": "bfloat16", "vocab_size": 1000,
                       "intermediate_size": 64, "rms_norm_eps": 1e-5}, f)

    def path(self, name):
        return os.path.join(self.directory, name)

    def _rotate(self, x):
        """x [tokens, heads, head_size] turned to positions 0, 1, ..."""
        half = self.head_size // 2
        angle = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(half) / half)
        cos, sin = np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def context(self, name, tokens):
        """Writes a fresh random context of so many tokens; returns its path."""
        kv = []
        for layer in range(self.layers):
            x = self.rng.normal(0, 1, (tokens, self.mixing.shape[1])).astype(np.float32) @ self.mixing[layer]
            x = (x + 0.1 * self.rng.normal(0, 1, x.shape) + self.means[layer]).astype(np.float32).reshape(tokens, 2, self.kv_heads, self.head_size)
            kv.append((self._rotate(x[:, 0]), x[:, 1]))
        path = self.path(name + ".safetensors")
        R.save_kv(path, kv, self.rng.integers(0, 1000, tokens), "BF16", "test")
        return path

    def profile(self, name="test", *options):
        """Builds a profile from fresh contexts; returns its path."""
        samples = [self.context(f"{name}-sample-{i}", 512) for i in range(2)]
        path = self.path(name + ".kvprofile")
        ctl("profile", "build", "--config", self.config, "--kv", *samples, "--out", path, *options)
        return path


def bits(path):
    """The KV tensors of a safetensors file as raw 16-bit patterns: {name: uint16 array}."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    return {name: np.frombuffer(data[slice(*entry["data_offsets"])], np.uint16).reshape(entry["shape"])
            for name, entry in header.items() if name.startswith("layers.")}


def same_kv(path, other, tokens=None):
    """True if two files hold the same KV bit by bit (of the first `tokens` tokens of `other`)."""
    a, b = bits(path), bits(other)
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n][:tokens]) for n in a)


class TestCase(unittest.TestCase):
    """A test with a scratch directory, made anew for every test."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="kvstream-e2e-", dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(scratch.cleanup)
        self.scratch = scratch.name

    def path(self, name):
        return os.path.join(self.scratch, name)

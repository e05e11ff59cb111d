"""kvstreamctl as a user meets it: files through profile build, encode and decode; errors of every verb; the relay. Standard library only."""
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import unittest

KVSTREAMCTL = os.environ["KVSTREAMCTL"]
TIMEOUT_SECONDS = 120
SEED = 20261121
LAYERS, KV_HEADS, HEAD_SIZE = 2, 2, 8
VALUES_PER_TOKEN = 2 * LAYERS * KV_HEADS * HEAD_SIZE


def run(*args, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith("KVSTREAM_")}
    return subprocess.run([KVSTREAMCTL, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**env, **environment}, timeout=TIMEOUT_SECONDS)


def write_safetensors(path, tensors):
    """tensors: {name: (dtype, shape, bytes)}"""
    header, payload = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(payload), len(payload) + len(data)]}
        payload += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + payload)


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    length = struct.unpack("<Q", data[:8])[0]
    payload = data[8 + length:]
    return {name: (t["dtype"], t["shape"], payload[t["data_offsets"][0]:t["data_offsets"][1]])
            for name, t in json.loads(data[8:8 + length]).items() if name != "__metadata__"}


def floats(data):
    return struct.unpack(f"<{len(data) // 2}e", data)


class KvstreamctlTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        cls.addClassCleanup(cls.scratch.cleanup)
        print(f"seed {SEED}")
        cls.rng = random.Random(SEED)
        cls.config = cls.path("config.json")
        with open(cls.config, "w") as f:
            json.dump({"model_type": "llama", "num_hidden_layers": LAYERS, "num_attention_heads": 2 * KV_HEADS, "num_key_value_heads": KV_HEADS,
                       "hidden_size": 2 * KV_HEADS * HEAD_SIZE, "torch_dtype": "bfloat16"}, f)
        cls.context = cls.write_context("context.safetensors", 300)
        cls.profile = cls.path("m.kvprofile")
        cls.built = cls.ok("profile", "build", "--config", cls.config, "--kv", cls.context, cls.write_context("more.safetensors", 200),
                           "--queries", cls.write_queries(), "--out", cls.profile)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.scratch.name, name)

    @classmethod
    def write_context(cls, name, tokens, layers=LAYERS):
        """Channels of different scales, F16, with tokens."""
        def tensor():
            values = [cls.rng.gauss(i % HEAD_SIZE, 1 / (1 + i % HEAD_SIZE)) for i in range(tokens * KV_HEADS * HEAD_SIZE)]
            return ("F16", [tokens, KV_HEADS, HEAD_SIZE], struct.pack(f"<{len(values)}e", *values))
        tensors = {f"layers.{i}.{kind}": tensor() for i in range(layers) for kind in ("key", "value")}
        ids = [cls.rng.randrange(1000) for _ in range(tokens)]
        tensors["tokens"] = ("I32", [tokens], struct.pack(f"<{tokens}i", *ids))
        write_safetensors(cls.path(name), tensors)
        return cls.path(name)

    @classmethod
    def write_queries(cls):
        count = 10 * 2 * KV_HEADS * HEAD_SIZE
        write_safetensors(cls.path("queries.safetensors"), {
            f"layers.{i}.query": ("F32", [10, 2 * KV_HEADS, HEAD_SIZE], struct.pack(f"<{count}f", *(cls.rng.gauss(0, 1) for _ in range(count))))
            for i in range(LAYERS)})
        return cls.path("queries.safetensors")

    @classmethod
    def ok(cls, *args, **environment):
        """Exactly one JSON object on stdout and nothing on stderr."""
        done = run(*args, "--format", "json", **environment)
        assert done.returncode == 0, (args, done.returncode, done.stderr)
        assert done.stderr == "", done.stderr
        assert len(done.stdout.splitlines()) == 1, done.stdout
        return json.loads(done.stdout)

    def fails(self, *args, naming, **environment):
        for form in ([], ["--format", "json"]):
            done = run(*args, *form, **environment)
            self.assertGreater(done.returncode, 0, done)
            self.assertEqual(done.stdout, "")
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertTrue(done.stderr.startswith("kvstreamctl"), done.stderr)
            self.assertIn(naming, done.stderr)

    # ------------------------------------------------------------ profiles

    def test_profile_build_reports_what_describe_reads(self):
        self.assertEqual(self.built["dtype"], "F16", "the KV files decide, not the configuration")
        self.assertEqual(self.built["values_per_token"], VALUES_PER_TOKEN)
        self.assertEqual(self.built["sample_tokens"], 500)
        self.assertGreaterEqual(len(self.built["steps"]), 4)
        described = self.ok("describe", "--profile", self.profile)
        self.assertEqual(described, {k: self.built[k] for k in described})
        self.assertIn(described["profile_id"], run("describe", "--profile", self.profile).stdout)

    def test_every_kind_of_group_builds(self):
        ids = set()
        for group in ("head", "layer", "1", "2", "model"):
            out = self.path(f"group-{group}.kvprofile")
            built = self.ok("profile", "build", "--config", self.config, "--kv", self.context, "--group", group, "--out", out)
            ids.add((built["groups"], built["group"]))
        self.assertGreaterEqual(len(ids), 3, ids)

    def test_a_profile_without_samples_still_works(self):
        out = self.path("plain.kvprofile")
        built = self.ok("profile", "build", "--config", self.config, "--out", out)
        self.assertFalse(built["calibrated"])
        self.assertEqual(built["dtype"], "BF16")

    def test_profile_build_warns_of_too_few_tokens(self):
        short = self.write_context("short.safetensors", 30)
        out = self.path("short.kvprofile")
        arguments = ("profile", "build", "--config", self.config, "--kv", short, "--group", "model", "--out", out)
        warnings = self.ok(*arguments)["warnings"]
        self.assertEqual(len(warnings), 1)
        self.assertIn("lost at every level", warnings[0])
        self.assertIn("Warning: " + warnings[0], run(*arguments).stdout)
        self.assertEqual(self.built["warnings"], [])

    def test_latents_of_mla_travel_through_files(self):
        config, kv = self.path("deepseek.json"), self.path("latent.safetensors")
        with open(config, "w") as f:
            json.dump({"model_type": "deepseek_v3", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "kv_lora_rank": 24,
                       "qk_rope_head_dim": 8, "torch_dtype": "bfloat16"}, f)
        tokens = 200
        latents = {f"layers.{i}.latent": ("F16", [tokens, 1, 32], struct.pack(f"<{32 * tokens}e", *(self.rng.gauss(0, 1) for _ in range(32 * tokens))))
                   for i in range(2)}
        write_safetensors(kv, {**latents, "tokens": ("I32", [tokens], struct.pack(f"<{tokens}i", *range(tokens)))})
        profile, kvs, back = self.path("latent.kvprofile"), self.path("latent.kvs"), self.path("latent-back.safetensors")
        built = self.ok("profile", "build", "--config", config, "--kv", kv, "--out", profile)
        self.assertEqual([built[k] for k in ("planes", "kv_heads", "head_size", "dtype", "values_per_token")], [1, 1, 32, "F16", 64])
        self.assertEqual(built["rope"]["rotary_offset"], 24)
        self.assertIn("2 layers x a latent of 32", run("describe", "--profile", profile).stdout)
        self.ok("encode", "--profile", profile, "--in", kv, "--out", kvs)
        self.ok("decode", "--profile", profile, "--in", kvs, "--out", back)
        decoded = read_safetensors(back)
        self.assertEqual(set(decoded), set(latents) | {"tokens"})
        for name, (dtype, shape, data) in latents.items():
            self.assertEqual(decoded[name][:2], (dtype, shape))
            self.assertLess(max(abs(a - b) for a, b in zip(floats(data), floats(decoded[name][2]))), 0.1)
        self.fails("encode", "--profile", profile, "--in", self.context, "--out", kvs, naming="layers.0.latent is missing")

    def test_profile_build_errors(self):
        out = self.path("never.kvprofile")
        self.fails("profile", naming="subcommand is required")
        self.fails("profile", "build", "--config", self.config, naming="--out is required")
        build = ["profile", "build", "--out", out, "--kv", self.context, "--config"]
        self.fails(*build, self.path("absent.json"), naming="absent.json")
        self.fails(*build, self.context, naming="is not valid JSON")
        self.fails(*build, self.config, "--group", "7", naming="--group")
        self.fails(*build, self.config, "--group", "wide", naming="--group")
        self.fails(*build, self.config, "--queries", self.context, naming="layers.0.query is missing")
        self.fails(*build, self.config, "--kv", self.path("absent.safetensors"), naming="absent.safetensors")
        self.fails(*build, self.config, "--steps", "1,2", naming="step")
        self.fails(*build, self.config, "--kv", self.write_context("deep.safetensors", 10, layers=3), naming="layers.2.key is one too many")
        self.assertFalse(os.path.exists(out))

    # ------------------------------------------------------------ encode and decode

    def test_levels_cost_more_and_come_closer_to_the_original(self):
        kvs = self.path("context.kvs")
        encoded = self.ok("encode", "--profile", self.profile, "--in", self.context, "--out", kvs)
        levels = encoded["levels"]
        self.assertEqual(len(levels), len(self.built["steps"]))
        for level in levels:
            self.assertAlmostEqual(level["bits_per_value"], level["bytes"] * 8 / (300 * VALUES_PER_TOKEN), places=9)
        self.assertLessEqual(levels[-1]["bytes"], os.path.getsize(kvs))
        self.assertEqual(os.path.getsize(kvs), encoded["file_bytes"])
        original, errors = read_safetensors(self.context), []
        for level in range(len(levels)):
            out = self.path("decoded.safetensors")
            decoded = self.ok("decode", "--profile", self.profile, "--in", kvs, "--level", level, "--out", out)
            self.assertEqual((decoded["level"], decoded["tokens"], decoded["bytes"]), (level, 300, levels[level]["bytes"]))
            tensors = read_safetensors(out)
            self.assertEqual({n: (t[0], t[1]) for n, t in tensors.items()}, {n: (t[0], t[1]) for n, t in original.items()})
            self.assertEqual(tensors["tokens"], original["tokens"])
            errors.append(sum((a - b) ** 2 for name in tensors if name != "tokens"
                              for a, b in zip(floats(tensors[name][2]), floats(original[name][2]))))
        self.assertEqual(errors, sorted(errors, reverse=True))
        self.assertGreater(errors[0], 10 * errors[-1])
        finest = self.ok("decode", "--profile", self.profile, "--in", kvs, "--out", out)
        self.assertEqual(finest["level"], len(levels) - 1)

    def test_threads_do_not_change_a_byte(self):
        files = []
        for threads in (1, 3):
            out = self.path(f"threads-{threads}.kvs")
            self.ok("encode", "--profile", self.profile, "--in", self.context, "--out", out, "--threads", threads)
            with open(out, "rb") as f:
                files.append(f.read())
        self.assertEqual(files[0], files[1])

    def test_encode_and_decode_print_for_people(self):
        kvs = self.path("people.kvs")
        done = run("encode", "--profile", self.profile, "--in", self.context, "--out", kvs)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("bits per value", done.stdout)
        done = run("decode", "--profile", self.profile, "--in", kvs, "--level", "0", "--out", self.path("people.safetensors"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("level 0", done.stdout)

    def test_encode_and_decode_errors(self):
        out, kvs = self.path("never"), self.path("errors.kvs")
        self.ok("encode", "--profile", self.profile, "--in", self.context, "--out", kvs)
        self.fails("encode", naming="required")
        self.fails("encode", "--profile", self.context, "--in", self.context, "--out", out, naming="context.safetensors")
        self.fails("encode", "--profile", self.profile, "--in", self.config, "--out", out, naming="config.json")
        self.fails("encode", "--profile", self.profile, "--in", self.context, "--out", out, "--threads", "0", naming="--threads")
        bare = read_safetensors(self.context)
        del bare["tokens"]
        write_safetensors(self.path("bare.safetensors"), bare)
        self.fails("encode", "--profile", self.profile, "--in", self.path("bare.safetensors"), "--out", out, naming="tensor tokens is missing")
        self.fails("encode", "--profile", self.profile, "--in", self.context, "--out", self.path("no/folder/x.kvs"), naming="no/folder/x.kvs")
        decode = ["decode", "--profile", self.profile, "--out", out]
        self.fails(*decode, "--in", kvs, "--level", len(self.built["steps"]), naming="--level is")
        self.fails(*decode, "--in", kvs, "--level", "-1", naming="--level")
        self.fails(*decode, "--in", kvs, "--level", "fine", naming="--level")
        self.fails(*decode, "--in", self.context, "--level", "0", naming="context.safetensors")
        self.fails(*decode, "--in", self.path("absent.kvs"), "--level", "0", naming="absent.kvs")
        other = self.path("other.kvprofile")
        self.ok("profile", "build", "--config", self.config, "--kv", self.context, "--group", "model", "--out", other)
        self.fails("decode", "--profile", other, "--in", kvs, "--level", "0", "--out", out, naming="was encoded with profile")
        self.assertFalse(os.path.exists(out))
        self.assertEqual([n for n in os.listdir(self.scratch.name) if ".tmp." in n], [])

    # ------------------------------------------------------------ verbs that need a server

    def test_verbs_say_that_no_server_is_there(self):
        with socket.socket() as taken:  # bound, but nobody listens
            taken.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{taken.getsockname()[1]}"
            out = self.path("unloaded.safetensors")
            tokens = ["--profile", self.profile, "--tokens-from", self.context]
            for verb in (["put", "--profile", self.profile, "--in", self.context], ["lookup", *tokens], ["load", *tokens, "--out", out],
                         ["stats"], ["list"], ["delete", *tokens], ["ping"], ["describe"]):
                with self.subTest(verb=verb[0]):
                    self.fails(*verb, "--server", nobody, "--timeout", "2s", naming=nobody)
                    self.fails(*verb, "--timeout", "2s", naming=nobody, KVSTREAM_SERVER=nobody)
            self.assertFalse(os.path.exists(out))

    def test_options_of_server_verbs_are_checked_before_any_call(self):
        out = self.path("unloaded.safetensors")
        load = ["load", "--profile", self.profile, "--tokens-from", self.context, "--out", out]
        for more, naming in [(["--deadline", "soon"], "\"soon\" is no duration"), (["--deadline", "0"], "--deadline"),
                             (["--policy", "luck"], "--policy"), (["--policy", "fixed"], "--policy fixed needs --level"),
                             (["--policy", "deadline"], "needs --deadline"), (["--level", "9"], "--level is 9"),
                             (["--policy", "fastest", "--level", "1"], "--floor-level"), (["--floor-level", "9"], "--floor-level is 9"),
                             (["--floor-below-share", "0.5"], "--floor-below-share needs"), (["--floor-below-share", "2"], "--floor-below-share"),
                             (["--policy", "recompute"], "--recompute-ability"), (["--recompute-ability", "any"], "--prefill-tokens-per-second"),
                             (["--bandwidth-hint", "50"], "\"50\" is no rate"), (["--server", "nowhere"], "\"nowhere\" is no host:port"),
                             (["--timeout", "0"], "--timeout"),
                             (["--recompute-ability", "any", "--prefill-tokens-per-second", "9", "--recompute-from",
                               self.path("more.safetensors")], "its tokens are not those of")]:
            with self.subTest(more=more):
                self.fails(*load, *more, naming=naming)
        self.fails("put", "--profile", self.profile, "--in", self.queries_file(), naming="layers.0.key is missing")
        self.fails("lookup", "--profile", self.profile, "--tokens-from", self.queries_file(), naming="tensor tokens is missing")
        self.fails("delete", naming="say what to delete")
        self.fails("delete", "--id", "xyz", naming="\"xyz\" is no id")
        self.fails("delete", "--id", "00" * 32, "--tokens-from", self.context, naming="not both")
        self.fails("delete", "--all-of-model", naming="needs --model")
        self.fails("delete", "--context", "xyz", naming="\"xyz\" is no id")
        self.fails("delete", "--context", "00" * 32, "--keep-shared", naming="not several")
        self.fails("delete", "--dry-run", "--id", "00" * 32, naming="--dry-run goes with")
        self.fails("pin", "--owner", "a", "--for", "1h", naming="say what to pin")
        self.fails("pin", "--id", "00" * 32, "--for", "1h", naming="--owner")
        self.fails("pin", "--id", "00" * 32, "--owner", "a", "--for", "soon", naming="\"soon\" is no duration")
        self.fails("unpin", "--id", "00" * 32, naming="--owner or --all-owners")
        self.fails("unpin", "--everywhere", "--all-owners", naming="--everywhere goes with --owner")
        self.fails("pins", "--page-token", "zz", naming="--page-token")
        self.fails("put", "--profile", self.profile, "--in", self.context, "--ttl", "long", naming="\"long\" is no duration")
        self.fails("list", "--limit", "0", naming="--limit")
        self.fails("list", "--page-token", "zz", naming="--page-token")

    def queries_file(self):
        return self.path("queries.safetensors")

    def test_unknown_words_are_refused(self):
        self.fails(naming="subcommand is required")
        done = run("fly")
        self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (2, "", 1), done)
        self.fails("stats", "--colour", naming="--colour")
        self.fails("ping", "--format", "xml", naming="--format")
        for words in (["--help"], ["load", "--help"], ["--version"]):
            done = run(*words)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("kvstreamctl" if "--help" not in words[:1] else "load", done.stdout)

    # ------------------------------------------------------------ relay

    def test_relay_errors(self):
        relay = ["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:9"]
        self.fails("relay", naming="required")
        self.fails(*relay, naming="--rate")
        self.fails(*relay, "--rate", "fast", naming="\"fast\" is no rate")
        self.fails(*relay, "--rate", "0", naming="--rate must be above 0")
        self.fails(*relay, "--rate", "5Mbit", "--delay", "11s", naming="delay")
        self.fails(*relay, "--rate", "5Mbit", "--trace", self.config, naming="--rate")
        self.fails(*relay, "--trace", self.config, naming="config.json: trace: line 1")
        self.fails(*relay, "--trace", self.path("absent"), naming="absent")
        self.fails("relay", "--listen", "127.0.0.1", "--to", "127.0.0.1:9", "--rate", "5Mbit", naming="\"127.0.0.1\" is no host:port")

    def test_relay_carries_bytes_until_it_is_told_to_end(self):
        trace = self.path("link.trace")
        with open(trace, "w") as f:
            f.write("0 800Mbit # then slower\n5 400Mbit\n")
        for options, end in ((["--rate", "800Mbit", "--delay", "1ms"], signal.SIGTERM), (["--trace", trace], signal.SIGINT)):
            with self.subTest(options=options), socket.create_server(("127.0.0.1", 0)) as target:
                process = subprocess.Popen([KVSTREAMCTL, "relay", "--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{target.getsockname()[1]}",
                                            *options, "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                self.addCleanup(process.kill)
                self.assertTrue(select.select([process.stdout], [], [], TIMEOUT_SECONDS)[0])
                started = json.loads(process.stdout.readline())
                host, port = started["listen"].rsplit(":", 1)
                self.assertNotEqual(port, "0")
                data = self.rng.randbytes(1000003)
                with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as client:
                    server, _ = target.accept()
                    sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
                    sender.start()
                    received = b"".join(iter(lambda: server.recv(1 << 16), b""))
                    sender.join()
                    server.close()
                self.assertEqual(received, data)
                process.send_signal(end)
                out, err = process.communicate(timeout=TIMEOUT_SECONDS)
                self.assertEqual((process.returncode, out, err), (0, "", ""))


if __name__ == "__main__":
    unittest.main()

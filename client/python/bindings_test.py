"""The Python client against the real daemon. usage: bindings_test.py KVSTREAMD PACKAGE_FOLDER"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import numpy as np

KVSTREAMD, PACKAGE_FOLDER = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
sys.path.insert(0, PACKAGE_FOLDER)
import kvstream  # noqa: E402

LAYERS, HEADS, SIZE, TOKENS = 2, 2, 16, 150
MODEL = "synthetic@1"


def config(dtype="float16"):
    return json.dumps(dict(model_type="llama", num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=HEADS,
                           hidden_size=64, head_dim=SIZE, torch_dtype=dtype, rope_theta=10000.0,
                           max_position_embeddings=4096, vocab_size=1000))


def random_kv(seed=1, tokens=TOKENS):
    random = np.random.default_rng(seed)
    shape = (tokens, HEADS, SIZE)
    return [tuple(random.standard_normal(shape).astype(np.float16) for _ in range(2)) for _ in range(LAYERS)]


def equal(a, b):
    return all(np.array_equal(np.asarray(x).view(np.uint16), np.asarray(y).view(np.uint16))
               for pair_a, pair_b in zip(a, b, strict=True) for x, y in zip(pair_a, pair_b, strict=True))


class Daemon:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        ports = os.path.join(self.folder.name, "ports.json")
        self.process = subprocess.Popen([KVSTREAMD, "--data-dir", self.folder.name + "/data", "--listen", "127.0.0.1:0",
                                         "--http-listen", "127.0.0.1:0", "--ports-file", ports, "--log-level", "warn"])
        while not os.path.exists(ports):
            if self.process.poll() is not None:
                raise RuntimeError("kvstreamd did not start")
            time.sleep(0.01)
        with open(ports, encoding="utf-8") as file:
            self.address = "127.0.0.1:%d" % next(v for k, v in json.load(file).items() if "grpc" in k)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


class BindingsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.client = kvstream.Client(cls.daemon.address, decode_threads=2)
        cls.kv = random_kv()
        cls.tokens = np.arange(TOKENS, dtype=np.int32)
        cls.profile = kvstream.build_profile(config(), [cls.kv], chunk_tokens=32)
        cls.stored = []
        cls.client.put(cls.profile, cls.tokens, cls.kv, model=MODEL, progress=cls.stored.append)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()

    def decoded(self, levels):
        """What a load must give: chunk i at levels[i], None: exact."""
        chunks = kvstream.encode(self.profile, self.kv)
        parts = []
        for i, level in enumerate(levels):
            if level is None:
                parts.append([[x[32 * i:32 * i + 32] for x in pair] for pair in self.kv])
            else:
                parts.append(kvstream.decode(self.profile, [chunks[i]], level=level))
        return [tuple(np.concatenate([part[layer][j] for part in parts]) for j in range(2)) for layer in range(LAYERS)]

    def test_profile_travels(self):
        self.assertEqual(self.profile.levels, 4)
        self.assertEqual(len(self.profile.steps), 4)
        self.assertEqual(self.profile.geometry["kv_heads"], HEADS)
        self.assertEqual(self.profile.geometry["dtype"], "float16")
        self.assertEqual(self.client.get_profile(self.profile.id).to_bytes(), self.profile.to_bytes())
        with tempfile.TemporaryDirectory() as folder:
            self.profile.save(folder + "/p.kvprofile")
            self.assertEqual(kvstream.Profile.load(folder + "/p.kvprofile").id, self.profile.id)

    def test_sensitivity_moves_bits_between_layers(self):
        geometry = self.profile.geometry
        sensitivity = np.ones((geometry["layers"], geometry["planes"], geometry["kv_heads"], geometry["head_size"]), np.float32)
        sensitivity[0] = 1e-3
        profile = kvstream.build_profile(config(), [self.kv], chunk_tokens=32, sensitivity=sensitivity)
        self.assertNotEqual(profile.id, self.profile.id)
        with self.assertRaises(kvstream.KVStreamError):
            kvstream.build_profile(config(), [self.kv], sensitivity=sensitivity[1:])

    def test_latents_travel(self):
        """A model with latent attention: one array a layer, no values."""
        latent = json.dumps(dict(model_type="deepseek_v3", num_hidden_layers=LAYERS, num_attention_heads=4, hidden_size=64,
                                 kv_lora_rank=24, qk_rope_head_dim=8, torch_dtype="float16", rope_theta=10000.0))
        random = np.random.default_rng(4)
        kv = [random.standard_normal((TOKENS, 1, 32)).astype(np.float16) for _ in range(LAYERS)]
        profile = kvstream.build_profile(latent, [kv], chunk_tokens=32)
        self.assertEqual([profile.geometry[key] for key in ("planes", "kv_heads", "head_size", "rotary_offset")], [1, 1, 32, 24])
        self.client.put(profile, self.tokens, np.stack(kv), model=MODEL)
        for level in range(4):
            out, _ = self.client.load(profile, self.tokens, model=MODEL, policy="fixed", level=level)
            chunks = [kvstream.decode(profile, [chunk], level=level) for chunk in kvstream.encode(profile, kv)]
            self.assertEqual(len(out), LAYERS)
            for layer in range(LAYERS):
                want = np.concatenate([chunk[layer] for chunk in chunks])
                self.assertTrue(np.array_equal(out[layer].view(np.uint16), want.view(np.uint16)))
        self.assertLess(max(np.abs(np.asarray(a, np.float32) - b).max() for a, b in zip(out, kv)), 0.05)
        with self.assertRaises((TypeError, ValueError)):
            kvstream.encode(profile, self.kv)

    def test_put_is_idempotent_and_lookup_finds_the_prefix(self):
        self.assertEqual(self.stored, [0, TOKENS])
        again = self.client.put(self.profile, self.tokens, self.kv, model=MODEL)
        self.assertEqual((again.chunks_stored, again.chunks_existing), (0, 5))
        self.assertEqual(self.client.lookup(self.profile, self.tokens, model=MODEL).matched_tokens, TOKENS)
        self.assertEqual(self.client.lookup(self.profile, list(range(70)) + [9], model=MODEL).matched_tokens, 64)
        for other in (dict(model="x"), dict(model=MODEL, adapter="a"), dict(model=MODEL, tenant_salt=b"s"),
                      dict(model=MODEL, extra_keys=[b"image"])):
            self.assertEqual(self.client.lookup(self.profile, self.tokens, **other).matched_tokens, 0)

    def test_every_level_is_what_the_codec_decodes_locally(self):
        for level in range(4):
            kv, result = self.client.load(self.profile, self.tokens, model=MODEL, policy="fixed", level=level)
            self.assertTrue(equal(kv, self.decoded([level] * 5)))
            self.assertEqual([chunk.level for chunk in result.chunks], [level] * 5)
            self.assertEqual(result.bytes, sum(chunk.bytes for chunk in result.chunks))
            self.assertEqual(kv[0][0].dtype, np.float16)

    def test_a_mean_floor_lowers_as_many_chunks_as_allowed(self):
        kv, result = self.client.load(self.profile, self.tokens, model=MODEL, floor_level=2, floor_below_share=0.5)
        levels = [chunk.level for chunk in result.chunks]
        self.assertEqual(levels, [1, 1, 2, 2, 2])
        self.assertTrue(equal(kv, self.decoded(levels)))
        with self.assertRaisesRegex(kvstream.KVStreamError, "floor_below_share"):
            self.client.load(self.profile, self.tokens, model=MODEL, floor_level=0, floor_below_share=0.5)

    def test_loads_into_arrays_of_the_caller(self):
        block = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.uint16)
        out, result = self.client.load(self.profile, self.tokens, model=MODEL, deadline_ms=60000, out=block)
        self.assertIs(out, block)
        self.assertFalse(result.deadline_missed)
        self.assertTrue(equal(block, self.decoded([chunk.level for chunk in result.chunks])))
        # Heads before tokens, and a cache that is longer than the context.
        caches = [tuple(np.zeros((HEADS, 500, SIZE), np.float16) for _ in range(2)) for _ in range(LAYERS)]
        views = [tuple(x.transpose(1, 0, 2)[:TOKENS] for x in pair) for pair in caches]
        self.client.load(self.profile, self.tokens, model=MODEL, policy="fixed", level=3, out=views)
        self.assertTrue(equal([tuple(np.ascontiguousarray(x) for x in pair) for pair in views], self.decoded([3] * 5)))
        self.assertFalse(caches[0][0][:, TOKENS:].any())

    def test_recompute_fills_the_callers_arrays_exactly(self):
        out = [tuple(np.zeros_like(x) for x in pair) for pair in self.kv]
        calls, threads = [], set()

        def recompute(first, count):
            calls.append((first, count))
            threads.add(threading.get_ident())
            for target, source in zip(out, self.kv):
                for j in range(2):
                    target[j][first:first + count] = source[j][first:first + count]

        _, result = self.client.load(self.profile, self.tokens, model=MODEL, policy="recompute", ability="any",
                                     recompute=recompute, out=out)
        self.assertTrue(equal(out, self.kv))
        self.assertEqual(sum(count for _, count in calls), TOKENS)
        self.assertEqual(result.recomputed_tokens, TOKENS)
        self.assertTrue(all(chunk.level is None for chunk in result.chunks))
        self.assertNotIn(threading.get_ident(), threads)

    def test_a_recompute_that_can_stop_is_given_the_question(self):
        out = [tuple(np.zeros_like(x) for x in pair) for pair in self.kv]
        answers = []

        def recompute(first, count, superseded):
            answers.append(superseded())
            for target, source in zip(out, self.kv):
                for j in range(2):
                    target[j][first:first + count] = source[j][first:first + count]

        self.client.load(self.profile, self.tokens, model=MODEL, policy="recompute", ability="any", recompute=recompute,
                         recompute_can_stop=True, out=out)
        self.assertTrue(equal(out, self.kv))
        self.assertTrue(answers and not any(answers))  # nothing was sent
        with self.assertRaises(kvstream.KVStreamError):  # it stopped, but no bytes have come
            self.client.load(self.profile, self.tokens, model=MODEL, policy="recompute", ability="any",
                             recompute=lambda first, count, superseded: False, recompute_can_stop=True, out=out)
        with self.assertRaises(ValueError):
            self.client.load(self.profile, self.tokens, model=MODEL, recompute_can_stop=True)

    def test_a_recompute_is_stopped_when_its_bytes_come(self):
        out = [tuple(np.zeros_like(x) for x in pair) for pair in self.kv]

        def recompute(first, count, superseded):
            while not superseded():  # slower than any link
                time.sleep(0.001)
            return False

        _, result = self.client.load(self.profile, self.tokens, model=MODEL, policy="fastest", ability="front",
                                     recompute=recompute, recompute_can_stop=True, prefill_seconds_per_token=1e-7, out=out)
        self.assertTrue(all(chunk.level is not None for chunk in result.chunks))
        self.assertEqual(result.recomputed_tokens, 0)

    def test_a_traced_load_leaves_its_story(self):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as scratch:
            path = pathlib.Path(scratch) / "load.json"
            _, loaded = self.client.load(self.profile, self.tokens, model=MODEL, policy="fixed", level=0, trace=path)
            story = json.loads(path.read_text())
            self.assertEqual(story["kvstream_load_trace"], 1)
            self.assertEqual(sum(story["arrivals"]), loaded.bytes)
            self.assertEqual(story["outcome"]["levels"], [0] * len(loaded.chunks))
            with self.assertRaises(kvstream.KVStreamError):
                self.client.load(self.profile, self.tokens, model=MODEL, trace=path / "no folder")
            with self.assertRaises(TypeError):
                self.client.load(self.profile, self.tokens, model=MODEL, trace=7)

    def test_an_exception_of_a_callback_comes_back(self):
        out = [tuple(np.zeros_like(x) for x in pair) for pair in self.kv]

        def recompute(first, count):
            raise KeyError("no GPU")

        with self.assertRaisesRegex(KeyError, "no GPU"):
            self.client.load(self.profile, self.tokens, model=MODEL, policy="recompute", ability="suffix",
                             recompute=recompute, out=out)

        def progress(ready, chunks):
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            self.client.load(self.profile, self.tokens, model=MODEL, progress=progress)

    def test_other_threads_run_during_a_load(self):
        started, done = threading.Event(), threading.Event()
        out = [tuple(np.zeros_like(x) for x in pair) for pair in self.kv]

        def recompute(first, count):
            started.set()
            done.wait(60)  # another thread must get the GIL to set it

        def other():
            started.wait(60)
            done.set()

        thread = threading.Thread(target=other)
        thread.start()
        self.client.load(self.profile, self.tokens, model=MODEL, policy="recompute", ability="any",
                         recompute=recompute, out=out)
        thread.join()
        self.assertTrue(done.is_set())

    def test_errors_carry_their_code(self):
        with self.assertRaises(kvstream.KVStreamError) as caught:
            self.client.load(self.profile, [1, 2, 3], model=MODEL)
        self.assertEqual(caught.exception.code, "NOT_FOUND")
        with self.assertRaises(kvstream.KVStreamError) as caught:
            kvstream.Profile.from_bytes(b"junk")
        self.assertIn(caught.exception.code, ("INVALID_ARGUMENT", "DATA_LOSS"))
        damaged = [[bytes(segment) for segment in chunk] for chunk in kvstream.encode(self.profile, self.kv)]
        damaged[1][0] = damaged[1][0][:-1] + bytes([damaged[1][0][-1] ^ 1])
        with self.assertRaises(kvstream.KVStreamError) as caught:
            kvstream.decode(self.profile, damaged, level=0)
        self.assertEqual(caught.exception.code, "DATA_LOSS")

    def test_arrays_that_do_not_fit_are_refused(self):
        key, value = self.kv[0]
        for kv in ([(key, value)], [(key[:5], value)] * 2, [(key.astype(np.float32), value)] * 2,
                   [(key[:, :1], value)] * 2, [(np.asfortranarray(key), value)] * 2, np.zeros((1, 2, 3), np.float16)):
            with self.assertRaises(ValueError):
                self.client.put(self.profile, self.tokens, kv, model=MODEL)
        for kv in (7, [(1, 2)] * 2, [key] * 2):
            with self.assertRaises((TypeError, ValueError)):
                self.client.put(self.profile, self.tokens, kv, model=MODEL)
        frozen = [tuple(np.zeros_like(x) for x in pair) for pair in self.kv]
        frozen[1][1].flags.writeable = False
        with self.assertRaisesRegex(ValueError, "read-only"):
            self.client.load(self.profile, self.tokens, model=MODEL, out=frozen)
        with self.assertRaises(ValueError):
            self.client.load(self.profile, self.tokens, model=MODEL, policy="best")
        with self.assertRaises(ValueError):
            self.client.lookup(self.profile, [1 << 40], model=MODEL)
        with self.assertRaises(TypeError):
            self.client.lookup(self.profile, ["a"], model=MODEL)

    def test_bfloat16_travels_as_uint16(self):
        bits = [tuple((x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for x in pair) for pair in self.kv]
        profile = kvstream.build_profile(config("bfloat16"), [bits], chunk_tokens=32)
        self.client.put(profile, self.tokens, bits, model=MODEL)
        kv, _ = self.client.load(profile, self.tokens, model=MODEL, policy="fixed", level=3)
        self.assertEqual(kv[0][0].dtype, np.uint16)
        for pair, loaded in zip(self.kv, kv):
            for x, y in zip(pair, loaded):
                self.assertLess(np.abs((y.astype(np.uint32) << 16).view(np.float32) - x.astype(np.float32)).max(), 0.2)
        with self.assertRaises(ValueError):
            self.client.put(profile, self.tokens, self.kv, model=MODEL)

    def test_administration(self):
        serving, seconds = self.client.ping()
        self.assertTrue(serving)
        self.assertGreater(seconds, 0)
        self.client.warm_up(self.profile)
        tokens = np.arange(1000, 1040)
        self.client.put(self.profile, tokens, random_kv(3, 40), model="to delete@1")
        ids = kvstream.chunk_ids(self.profile, tokens, model="to delete@1")
        listed, token = [], b""
        while True:
            page, token = self.client.list_chunks(3, token)
            listed += page
            if not token:
                break
        self.assertLessEqual(set(ids), {chunk["id"] for chunk in listed})
        self.assertEqual(self.client.stats()["chunks"], len(listed))
        self.assertEqual(self.client.delete(ids), 2)
        self.assertEqual(self.client.delete(ids), 0)

    def test_lifetimes(self):
        tokens = np.arange(2000, 2040)
        before = time.time()
        self.client.put(self.profile, tokens, random_kv(3, 40), model="short@1", ttl_seconds=3600)
        ids = kvstream.chunk_ids(self.profile, tokens, model="short@1")
        listed, token = self.client.list_chunks(model="short@1")
        self.assertEqual({chunk["id"] for chunk in listed}, set(ids))
        for chunk in listed:
            self.assertGreater(chunk["expires"], before + 3599)
            self.assertLess(chunk["expires"], time.time() + 3601)
        # What is stored is not sent again, but kept longer.
        self.client.put(self.profile, tokens, random_kv(3, 40), model="short@1", ttl_seconds=7200)
        self.assertEqual(self.client.renew(ids + [b"u" * 32], 60), 2)
        for chunk in self.client.list_chunks(model="short@1")[0]:
            self.assertGreater(chunk["expires"], before + 7199)

        self.assertEqual(self.client.pin(ids[:1], owner="test", ttl_seconds=600), 1)
        pins, token = self.client.list_pins(owner="test")
        self.assertEqual([(pin["id"], pin["owner"]) for pin in pins], [(ids[0], "test")])
        self.assertGreater(pins[0]["until"], before + 599)
        with self.assertRaises(kvstream.KVStreamError) as caught:
            self.client.delete(ids)
        self.assertEqual(caught.exception.code, "FAILED_PRECONDITION")
        self.assertEqual(self.client.delete_matching(context_end=ids[1], dry_run=True)[0], 1)
        self.assertEqual(self.client.delete_matching(context_end=ids[1])[::2], (1, 1))
        self.assertEqual(self.client.unpin(ids, owner="nobody"), 0)
        self.assertEqual(self.client.unpin(ids, owner=None), 1)
        self.assertEqual(self.client.delete_matching(model="short@1")[0], 1)
        self.assertEqual(self.client.delete(ids), 0)
        for ttl in (-1, float("inf"), float("nan"), 1e12):
            with self.assertRaises(kvstream.KVStreamError):
                self.client.renew(ids, ttl)
        with self.assertRaises(ValueError):
            self.client.delete_matching()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

#!/usr/bin/python3
"""The demonstration of deploy/quickstart.sh, which starts the daemon and calls this: KVStream as a serving node uses it.

A small real language model (tests/reference_lm, NumPy) prefills contexts that no calibration has seen; their KV caches are stored
through the Python bindings and loaded back over links of several speeds under a deadline. What the link cannot bring in time the model recomputes,
chunk by chunk, on top of the KV that is already there. Every delay in the tables is measured, and the model reads on from what was loaded.
"""
import argparse
import json
import math
import os
import platform
import socket
import subprocess
import sys
import threading
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
REFERENCE = os.path.join(HERE, "..", "..", "tests", "reference_lm")
sys.path.insert(0, REFERENCE)
import dump_kv  # noqa: E402
import quality  # noqa: E402
import reference_lm as R  # noqa: E402

import kvstream  # noqa: E402

MODEL_NAME = "kvstream-reference-lm@1"
CHUNK_TOKENS = 256
CONTEXTS = ("prose-3-rust-doc", "retrieval-1-lines")
PREFILL_RUNS = 3


def say(text):
    print("    " + text, flush=True)


def timed(function, *args, **kwargs):
    """(seconds, result)"""
    started = time.monotonic()
    result = function(*args, **kwargs)
    return time.monotonic() - started, result


# ---------------------------------------------------------------- the serving node: a model and its KV memory


class ServingNode:
    """The model with the KV memory of one context: uint16 bit patterns of bfloat16, [tokens, kv_heads, head_size] per layer."""

    def __init__(self, lm, tokens):
        self.lm, self.tokens = lm, tokens
        shape = (len(tokens), lm.num_kv_heads, lm.head_dim)
        self.memory = [(np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)) for _ in range(lm.num_layers)]

    def kv(self, end=None):
        """The cache of the first `end` tokens as the model wants it, float32."""
        return [(R.bf16_bits_to_float(key[:end]), R.bf16_bits_to_float(value[:end])) for key, value in self.memory]

    def prefill(self, first_token, count):
        """Computes the KV of some tokens on top of what is in place before them; this is also what a load calls to recompute a chunk."""
        past = self.kv(first_token) if first_token else None
        _, fresh = self.lm.prefill(self.tokens[first_token:first_token + count], past, last_logits_only=True)
        for (keys, values), (key, value) in zip(self.memory, fresh):
            keys[first_token:first_token + count] = R.float_to_bf16_bits(key)
            values[first_token:first_token + count] = R.float_to_bf16_bits(value)


def prefill_cost(node):
    """(seconds per token, seconds per pair of tokens): the cost model that a load tells the server, from two timed chunks."""
    def chunk_seconds(first):
        return min(timed(node.prefill, first, CHUNK_TOKENS)[0] for _ in range(PREFILL_RUNS))
    late = 4 * CHUNK_TOKENS
    early_seconds, late_seconds = chunk_seconds(0), chunk_seconds(late)
    per_pair = max(0.0, (late_seconds - early_seconds) / (CHUNK_TOKENS * late))
    return max(1e-9, early_seconds / CHUNK_TOKENS - per_pair * CHUNK_TOKENS / 2), per_pair


# ---------------------------------------------------------------- the baseline: 8-bit vector-wise quantisation over TCP


def pack_8bit(kv):
    """The bytes that a server of 8-bit KV would send: per layer, K and V: a float16 scale per token, then one signed byte per value."""
    parts = []
    for tensor in (t for pair in kv for t in pair):
        flat = tensor.reshape(len(tensor), -1)
        scale = np.maximum(np.abs(flat).max(axis=1), 1e-6).astype(np.float16)
        parts += [scale.tobytes(), np.clip(np.round(flat / scale[:, None].astype(np.float32) * 127), -127, 127).astype(np.int8).tobytes()]
    return b"".join(parts)


def unpack_8bit(data, node):
    """Writes pack_8bit's bytes into the node's KV memory."""
    tokens, width, offset = len(node.tokens), node.lm.num_kv_heads * node.lm.head_dim, 0
    for pair in node.memory:
        for target in pair:
            scale = np.frombuffer(data, np.float16, tokens, offset).astype(np.float32) / 127
            offset += 2 * tokens
            flat = np.frombuffer(data, np.int8, tokens * width, offset).reshape(tokens, width) * scale[:, None]
            offset += tokens * width
            target[:] = R.float_to_bf16_bits(flat.reshape(target.shape))


class ByteServer:
    """Sends the same bytes to everybody who connects."""

    def __init__(self, payload):
        self.payload = payload
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # closed
            with connection:
                try:
                    connection.sendall(self.payload)
                except OSError:
                    pass  # the reader left

    def close(self):
        self.listener.close()


def fetch(address, size):
    """The `size` bytes that a ByteServer sends."""
    host, port = address.rsplit(":", 1)
    data, filled = bytearray(size), 0
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        view = memoryview(data)
        while filled < size:
            received = connection.recv_into(view[filled:])
            if received == 0:
                raise RuntimeError(f"the link closed after {filled} of {size} bytes")
            filled += received
    return data


class Link:
    """`kvstreamctl relay`: a link of a given speed in front of an address, for as long as the with-block runs."""

    def __init__(self, kvstreamctl, to, mbit):
        self.command = [kvstreamctl, "relay", "--listen", "127.0.0.1:0", "--to", to, "--rate", f"{mbit}Mbit", "--format", "json"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the relay did not start: " + " ".join(self.command))
        return json.loads(line)["listen"]

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


# ---------------------------------------------------------------- what the model makes of a loaded context


class Reader:
    """Compares the model's reading of a context from some KV with its reading from the original."""

    def __init__(self, lm, context, original):
        self.lm, self.context = lm, context
        self.reference = quality.log_probabilities(lm, context, original)
        self.before = quality.evaluate(lm, context, original)

    def compare(self, kv):
        p, q = self.reference, quality.log_probabilities(self.lm, self.context, kv)
        return {"kl": float((np.exp(p) * (p - q)).sum(axis=-1).mean()), "before": self.before, "after": quality.evaluate(self.lm, self.context, kv)}


def quality_text(figures):
    before, after = figures["before"], figures["after"]
    if "perplexity" in before:
        return f"perplexity {100 * (after['perplexity'] / before['perplexity'] - 1):+.2f} %"
    return f"answers {100 * before['accuracy']:.1f} > {100 * after['accuracy']:.1f} %"


def levels_text(chunks):
    """One sign per chunk in context order: its level, r for recomputed."""
    return "".join("r" if level is None else str(level) for level in chunks)


# ---------------------------------------------------------------- the demonstration


def build_profile(args, lm):
    contexts = os.path.join(REFERENCE, "calibration")
    samples = [dump_kv.load_context(os.path.join(contexts, f)) for f in sorted(os.listdir(contexts)) if f.endswith(".json")]
    queries = os.path.join(args.work, "queries.safetensors")
    seconds, dumps = timed(dump_kv.dump, lm, samples, os.path.join(args.work, "calibration"), "BF16", queries)
    say(f"prefilled {len(samples)} calibration contexts in {seconds:.1f} s")
    path = os.path.join(args.work, "reference.kvprofile")
    seconds, done = timed(subprocess.run, [args.kvstreamctl, "profile", "build", "--config", os.path.join(REFERENCE, "config.json"), "--kv", *dumps,
                                           "--queries", queries, "--sensitivity", os.path.join(contexts, "sensitivity.safetensors"), "--group", "model", "--out", path], stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError("kvstreamctl profile build failed; its message is above")
    say(f"built the profile in {seconds:.1f} s ({os.path.getsize(path) / 1e6:.1f} MB; one KLT over the whole model)")
    return path


def demonstrate(args, lm, server, profile, context):
    """Stores one context and loads it over every link; returns the figures."""
    tokens = np.asarray(context["tokens"], np.int32)
    values = len(tokens) * lm.num_layers * 2 * lm.num_kv_heads * lm.head_dim
    origin = ServingNode(lm, context["tokens"])
    prefill_seconds = min(timed(origin.prefill, 0, len(tokens))[0] for _ in range(PREFILL_RUNS))
    say(f"{context['name']}: {len(tokens)} tokens, {2 * values / 1e6:.1f} MB of KV; the model computes it in {1e3 * prefill_seconds:.0f} ms")
    original = origin.kv()
    reader = Reader(lm, context, original)

    client = kvstream.Client(server)
    seconds, stored = timed(client.put, profile, tokens, origin.memory, model=MODEL_NAME)
    looked = client.lookup(profile, tokens, model=MODEL_NAME)
    per_level = ", ".join(f"{8 * size / values:.2f}" for size in looked.level_bytes)
    say(f"stored at {len(looked.level_bytes)} levels in {1e3 * seconds:.0f} ms: {stored.bytes_stored / 1e3:.0f} kB in {stored.chunks_stored} chunks; "
        f"bits per value by level: {per_level} (16 uncompressed)")

    per_token, per_pair = prefill_cost(origin)
    packed = pack_8bit(original)
    rows = []
    for mbit in args.links:
        node = ServingNode(lm, context["tokens"])
        byte_server = ByteServer(packed)
        with Link(args.kvstreamctl, byte_server.address, mbit) as address:
            started = time.monotonic()
            unpack_8bit(fetch(address, len(packed)), node)
            eight_bit_seconds = time.monotonic() - started
        byte_server.close()
        eight_bit = reader.compare(node.kv())

        node = ServingNode(lm, context["tokens"])
        with Link(args.kvstreamctl, server, mbit) as address:
            # A serving node has its connection and its decoder ready before a request asks for a context.
            node_client = kvstream.Client(address, decode_threads=os.cpu_count() or 1)
            node_client.warm_up(profile)
            node_client.ping()
            load_seconds, (_, loaded) = timed(
                node_client.load, profile, tokens, model=MODEL_NAME, deadline_ms=args.deadline_ms, out=node.memory,
                ability="any", recompute=node.prefill, prefill_seconds_per_token=per_token, prefill_seconds_per_token_pair=per_pair)
        levels = [chunk.level for chunk in loaded.chunks]
        rows.append({"link_mbit": mbit, "recompute_ms": 1e3 * prefill_seconds, "eight_bit_ms": 1e3 * eight_bit_seconds,
                     "eight_bit_bits_per_value": 8 * len(packed) / values, "eight_bit_quality": eight_bit,
                     "kvstream_ms": 1e3 * load_seconds, "deadline_ms": args.deadline_ms, "deadline_missed": loaded.deadline_missed,
                     "levels": levels, "bytes": loaded.bytes, "bits_per_value": 8 * loaded.bytes / values, "quality": reader.compare(node.kv())})
        say(f"{mbit:g} Mbit/s done")
    return {"context": context["name"], "tokens": len(tokens), "kv_bytes": 2 * values, "prefill_seconds": prefill_seconds,
            "level_bytes": list(looked.level_bytes), "rows": rows}


def print_table(args, result):
    print(f"\n{result['context']}, {result['tokens']} tokens, deadline {args.deadline_ms:g} ms "
          f"(8 bits: {result['rows'][0]['eight_bit_bits_per_value']:.2f} bits per value, KL {result['rows'][0]['eight_bit_quality']['kl']:.5f}, "
          f"{quality_text(result['rows'][0]['eight_bit_quality'])})")
    print(f"{'link':>10s} | {'recompute':>9s} | {'8-bit':>8s} | {'KVStream':>8s} | {'level of each chunk':19s} | {'b/v':>5s} | {'KL':>7s} | quality")
    for row in result["rows"]:
        late = " (late)" if row["deadline_missed"] else ""
        print(f"{row['link_mbit']:>3g} Mbit/s | {row['recompute_ms']:6.0f} ms | {row['eight_bit_ms']:5.0f} ms | {row['kvstream_ms']:5.0f} ms | "
              f"{levels_text(row['levels']):19s} | {row['bits_per_value']:5.2f} | {row['quality']['kl']:7.5f} | {quality_text(row['quality'])}{late}")


def run(args):
    with open(args.ports) as f:
        server = f"127.0.0.1:{json.load(f)['grpc']}"
    print("==> the model and its profile", flush=True)
    lm = R.load(REFERENCE)
    profile = kvstream.Profile.load(build_profile(args, lm))
    results = []
    for name in CONTEXTS:
        print(f"==> {name}", flush=True)
        results.append(demonstrate(args, lm, server, profile, dump_kv.load_context(os.path.join(REFERENCE, "contexts", name + ".json"))))
    for result in results:
        print_table(args, result)
    print("""
  recompute  the model's prefill of the whole context       8-bit     one byte per value over the same link
  KVStream   load under the deadline: a digit per chunk is its level (0 coarsest), r was recomputed by the model meanwhile
  b/v        bits received per value of the whole context   KL        of the model's next-token distribution, original against loaded
""")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"machine": platform.machine(), "cpus": os.cpu_count(), "deadline_ms": args.deadline_ms, "results": results}, f, indent=1)
    if not all(math.isfinite(row["quality"]["kl"]) for result in results for row in result["rows"]):
        raise RuntimeError("a loaded context made the model's output not a number")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", required=True, help="kvstreamd's --ports-file")
    parser.add_argument("--kvstreamctl", required=True)
    parser.add_argument("--work", required=True, help="directory for the profile and the KV dumps")
    parser.add_argument("--links", default="5,20,100,500", help="Mbit/s, comma-separated")
    parser.add_argument("--deadline-ms", type=float, default=250)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    try:
        args.links = [float(rate) for rate in args.links.split(",")]
    except ValueError:
        parser.error(f"--links {args.links}: numbers of Mbit/s, separated by commas")
    if not all(rate > 0 for rate in args.links) or not args.deadline_ms > 0:
        parser.error("--links and --deadline-ms must be above 0")
    try:
        run(args)
    except (RuntimeError, OSError, kvstream.KVStreamError) as error:
        sys.exit(f"quickstart: {error}")


if __name__ == "__main__":
    main()

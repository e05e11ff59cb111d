#!/usr/bin/python3
"""The serving node in the client's namespace: a model (real, or a stand-in), its KV memory, one connection to kvstreamd that stays up.

  packets_client.py SERVER WORK [--synthetic]

WORK holds what packets.py has put there: the profile, context.npz (tokens and original KV), eight_bits.bin. Reads one JSON object a line from stdin,
answers each with one on stdout, ends with stdin:

  {"do": "prepare"}     connects; fetches every level once as the reference that later loads are compared with; measures the quickest decode of a chunk at level 1
  {"do": "measure"}     the prefill cost that the next loads declare: the best of a few runs
  {"do": "load", "policy": ..., "ability": ..., "deadline_ms": ..., "level": ..., "floor_level": ..., "hint": ...}
  {"do": "eight_bits", "port": N}     8-bit KV over one TCP connection that is up
  {"do": "text"}                      the model's prefill of the whole context
  {"do": "plain_tcp", "port": N, "bytes": N}    so many bytes over that connection, and nothing else done
  {"do": "pump", "port": N, "bytes": N}     seconds that so many bytes take, after the first 64 KiB

A load's answer says whether its KV is right: every streamed chunk is bit by bit what that level decodes to, every recomputed one was written by the model.
With --synthetic there is no model: recompute copies the original and takes SYNTHETIC_SECONDS_PER_TOKEN.
"""
import argparse
import json
import os
import socket
import sys
import time

import numpy as np

ROOT = os.environ["KVSTREAM_TEST_ROOT"]
REFERENCE = os.path.join(ROOT, "tests", "reference_lm")
sys.path.insert(0, REFERENCE)
import reference_lm as R  # noqa: E402

import kvstream  # noqa: E402

MODEL_NAME = "packets@1"
PREFILL_RUNS = 3
DECODE_RUNS = 5
SYNTHETIC_SECONDS_PER_TOKEN = 50e-6
POISON = 0x7fc1  # a NaN that no codec and no model writes
WARM_BYTES = 64 << 10


class Stopped(Exception):
    """The bytes of the chunk that is being recomputed have come."""


class Node:
    def __init__(self, work, synthetic):
        saved = np.load(os.path.join(work, "context.npz"))
        self.tokens = saved["tokens"]
        self.original = [(saved[f"key{i}"], saved[f"value{i}"]) for i in range(len(saved.files) // 2)]
        self.memory = [(np.empty_like(k), np.empty_like(v)) for k, v in self.original]
        self.lm = None if synthetic else R.load(REFERENCE)
        if self.lm is not None:
            self.lm._attend = self.between_layers(self.lm._attend)
        self.superseded = lambda: False
        self.calls = []
        self.clear()

    def clear(self):
        self.calls = []
        for pair in self.memory:
            for tensor in pair:
                tensor[:] = POISON

    def between_layers(self, attend):
        """`attend`, which the model calls once a layer, as the place where a prefill can stop."""
        def checked(*args):
            if self.superseded():
                raise Stopped
            return attend(*args)
        return checked

    def prefill(self, first, count, superseded=lambda: False):
        """False, with nothing written, if it stopped because `superseded()` became true."""
        span = slice(first, first + count)
        self.superseded = superseded
        if self.lm is None:
            end = time.monotonic() + count * SYNTHETIC_SECONDS_PER_TOKEN
            while time.monotonic() < end:
                if superseded():
                    return False
                time.sleep(min(0.001, max(0.0, end - time.monotonic())))
            fresh = [(k[span], v[span]) for k, v in self.original]
        else:
            past = [(R.bf16_bits_to_float(k[:first]), R.bf16_bits_to_float(v[:first])) for k, v in self.memory] if first else None
            try:
                _, floats = self.lm.prefill(self.tokens[span].tolist(), past, last_logits_only=True)
            except Stopped:
                return False
            fresh = [(R.float_to_bf16_bits(key), R.float_to_bf16_bits(value)) for key, value in floats]
        for (keys, values), (key, value) in zip(self.memory, fresh):
            keys[span], values[span] = key, value
        self.calls.append((first, count))
        return True

    def snapshot(self):
        return [(k.copy(), v.copy()) for k, v in self.memory]

    def restore(self):
        for pair, saved in zip(self.memory, self.original):
            for tensor, old in zip(pair, saved):
                tensor[:] = old


def best(function, runs):
    times = []
    for _ in range(runs):
        started = time.monotonic()
        function()
        times.append(time.monotonic() - started)
    return min(times)


class Loads:
    def __init__(self, server, work, synthetic):
        self.node = Node(work, synthetic)
        self.work, self.host = work, server.rsplit(":", 1)[0]
        self.profile = kvstream.Profile.load(os.path.join(work, "profile.kvprofile"))
        self.client = kvstream.Client(server, decode_threads=1)
        self.plain = None
        self.a = self.b = 0.0
        self.levels = []

    def measure(self):
        """The model's prefill cost as a load declares it, from a chunk at the front and one at the end."""
        node, chunk, tokens = self.node, self.profile.chunk_tokens, len(self.node.tokens)
        node.restore()
        late = tokens - chunk
        early_seconds = best(lambda: node.prefill(0, chunk), PREFILL_RUNS)
        late_seconds = best(lambda: node.prefill(late, chunk), PREFILL_RUNS)
        self.b = max(0.0, (late_seconds - early_seconds) / (chunk * late)) if late else 0.0
        self.a = max(1e-9, early_seconds / chunk - self.b * chunk / 2)
        return {"seconds_per_token": self.a, "seconds_per_pair": self.b}

    def prepare(self):
        node, chunk, tokens = self.node, self.profile.chunk_tokens, len(self.node.tokens)
        self.client.warm_up(self.profile)
        self.client.ping()
        for level in range(self.profile.levels):
            node.clear()
            self.client.load(self.profile, node.tokens, model=MODEL_NAME, policy="fixed", level=level, out=node.memory)
            self.levels.append(node.snapshot())
        story_file, decodes = os.path.join(self.work, "story.json"), []
        for _ in range(DECODE_RUNS):
            self.client.load(self.profile, node.tokens, model=MODEL_NAME, policy="fixed", level=min(1, self.profile.levels - 1), out=node.memory, trace=story_file)
            with open(story_file) as f:
                decodes += [event["end_ms"] - event["begin_ms"] for event in json.load(f)["events"] if event["kind"] == "decode"]
        looked = self.client.lookup(self.profile, node.tokens, model=MODEL_NAME)
        values = sum(t.size for pair in node.original for t in pair)
        return {"decode_s_per_token": min(decodes) / 1000 / chunk, "tokens": tokens, "values": values, "chunk_tokens": chunk,
                "level_bytes": list(looked.level_bytes), "bits": [8 * size / values for size in looked.level_bytes]}

    def wrong(self, chunks):
        """What is wrong with the KV in memory; empty if nothing is."""
        first = 0
        for index, chunk in enumerate(chunks):
            span = slice(first, first + chunk.tokens)
            first += chunk.tokens
            if chunk.level is None:
                if any((tensor[span] == POISON).any() for pair in self.node.memory for tensor in pair):
                    return f"chunk {index} is told to be recomputed and was not"
                if not any(begin <= span.start and span.stop <= begin + count for begin, count in self.node.calls):
                    return f"chunk {index} is told to be recomputed and the model was not asked to"
                continue
            expected = self.levels[chunk.level]
            if not all(np.array_equal(tensor[span], want[span]) for pair, wanted in zip(self.node.memory, expected) for tensor, want in zip(pair, wanted)):
                return f"chunk {index} is not what level {chunk.level} decodes to"
        return "" if first == len(self.node.tokens) else f"{first} tokens of {len(self.node.tokens)}"

    def load(self, wanted):
        self.node.clear()
        story_file = os.path.join(self.work, "story.json")
        options = {"policy": wanted["policy"], "level": wanted.get("level", 0), "floor_level": wanted.get("floor_level", 0), "trace": story_file,
                   "bandwidth_hint_bytes_per_second": wanted.get("hint", 0.0)}
        if wanted.get("deadline_ms"):
            options["deadline_ms"] = wanted["deadline_ms"]
        if wanted.get("ability", "none") != "none":
            options.update(ability=wanted["ability"], recompute=self.node.prefill, recompute_can_stop=True, prefill_seconds_per_token=self.a, prefill_seconds_per_token_pair=self.b)
        _, loaded = self.client.load(self.profile, self.node.tokens, model=MODEL_NAME, out=self.node.memory, **options)
        with open(story_file) as f:
            in_place = self.in_place(json.load(f), wanted.get("deadline_ms"))
        levels = [chunk.level for chunk in loaded.chunks]
        finest = self.profile.levels - 1
        return {"seconds": loaded.load_delay, "bytes": loaded.bytes, "missed": loaded.deadline_missed, "levels": levels,
                "mean_level": sum(finest if level is None else level for level in levels) / len(levels),
                **in_place, "estimate": loaded.bandwidth_estimate_bytes_per_second,
                "recomputed_tokens": loaded.recomputed_tokens, "recompute_seconds": loaded.recompute_seconds, "wrong": self.wrong(loaded.chunks)}

    def in_place(self, story, deadline_ms):
        """When every chunk could first be used, and the mean level of what was in place at the deadline; recompute counts as the finest, nothing as 0."""
        finest = self.profile.levels - 1
        first, at_deadline = {}, {}
        for event in story["events"]:
            if event["kind"] not in ("decode", "recompute"):
                continue
            for chunk in range(event["chunk"], event["chunk"] + event.get("chunks", 1)):
                first[chunk] = min(first.get(chunk, event["end_ms"]), event["end_ms"])
                if deadline_ms is None or event["end_ms"] <= deadline_ms:
                    level = finest if event["kind"] == "recompute" else event["level"]
                    at_deadline[chunk] = max(at_deadline.get(chunk, 0), level)
        chunks = story["request"]["chunks"]
        return {"all_in_place_s": max(first.values()) / 1000 if len(first) == chunks else None,
                "level_at_deadline": sum(at_deadline.values()) / chunks}

    def fetch(self, connection, size):
        data, filled = bytearray(size), 0
        view = memoryview(data)
        while filled < size:
            received = connection.recv_into(view[filled:])
            if received == 0:
                raise RuntimeError(f"the link closed after {filled} of {size} bytes")
            filled += received
        return data

    def eight_bits(self, port):
        size = os.path.getsize(os.path.join(self.work, "eight_bits.bin"))
        connection = self.plain_connection(port)
        started = time.monotonic()
        connection.sendall(size.to_bytes(8, "big"))
        data = self.fetch(connection, size)
        self.unpack(data)
        seconds = time.monotonic() - started
        with open(os.path.join(self.work, "eight_bits.bin"), "rb") as f:
            return {"seconds": seconds, "bytes": size, "wrong": "" if f.read() == data else "other bytes than were sent"}

    def unpack(self, data):
        """The layout of packets.pack_8bit."""
        offset, tokens = 0, len(self.node.tokens)
        for pair in self.node.memory:
            for target in pair:
                width = target[0].size
                scale = np.frombuffer(data, np.float16, tokens, offset).astype(np.float32) / 127
                offset += 2 * tokens
                flat = np.frombuffer(data, np.int8, tokens * width, offset).reshape(tokens, width) * scale[:, None]
                offset += tokens * width
                target[:] = R.float_to_bf16_bits(flat.reshape(target.shape))

    def text(self):
        self.node.clear()
        started = time.monotonic()
        self.node.prefill(0, len(self.node.tokens))
        return {"seconds": time.monotonic() - started}

    def plain_connection(self, port):
        """One that stays up, as the one to the daemon does."""
        if self.plain is None:
            self.plain = socket.create_connection((self.host, port))
        return self.plain

    def plain_tcp(self, port, size):
        connection = self.plain_connection(port)
        started = time.monotonic()
        connection.sendall(size.to_bytes(8, "big"))
        self.fetch(connection, size)
        return {"seconds": time.monotonic() - started, "bytes": size}

    def pump(self, port, size):
        connection = self.plain_connection(port)
        connection.sendall(size.to_bytes(8, "big"))
        self.fetch(connection, WARM_BYTES)
        started = time.monotonic()
        self.fetch(connection, size - WARM_BYTES)
        return {"seconds": time.monotonic() - started, "bytes": size - WARM_BYTES}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("work")
    parser.add_argument("--synthetic", action="store_true")
    args = parser.parse_args()
    loads = Loads(args.server, args.work, args.synthetic)
    for line in sys.stdin:
        wanted = json.loads(line)
        what = wanted["do"]
        try:
            answer = (loads.prepare() if what == "prepare" else loads.measure() if what == "measure" else loads.load(wanted) if what == "load" else loads.eight_bits(wanted["port"])
                      if what == "eight_bits" else loads.text() if what == "text"
                      else loads.plain_tcp(wanted["port"], wanted["bytes"]) if what == "plain_tcp" else loads.pump(wanted["port"], wanted["bytes"]))
        except (kvstream.KVStreamError, RuntimeError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""Our codec on the reference model, by way of kvstreamctl: one row of figures per level."""
import json
import os
import subprocess
import time

import reading
from reading import Failure, R

SENSITIVITY = ("--sensitivity", os.path.join(reading.REFERENCE, "calibration", "sensitivity.safetensors"))


def find_kvstreamctl(given):
    for path in [given, os.environ.get("KVSTREAMCTL"), os.path.join(reading.ROOT, "client", "kvstreamctl"),
                 os.path.join(reading.ROOT, "bazel-bin", "client", "kvstreamctl")]:
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise Failure("kvstreamctl not found; build it with `bazel build //client:kvstreamctl` or name it with --kvstreamctl")


def run_ctl(ctl, *args):
    """Runs kvstreamctl ARGS --format json; returns its object."""
    done = subprocess.run([ctl, *map(str, args), "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"kvstreamctl {' '.join(map(str, args))}: exit status {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def encode_all(bench, ctl, profile, name):
    """Encodes every context with a profile.  Returns (files, bytes by level over all contexts, KV values)."""
    values, bytes_by_level, files = 0, None, []
    for context in bench.contexts:
        kvs = os.path.join(bench.work, f"{name}-{context['name']}.kvs")
        levels = run_ctl(ctl, "encode", "--profile", profile, "--in", bench.path(context), "--out", kvs)["levels"]
        sizes = [level["bytes"] for level in levels]
        in_file = os.path.getsize(kvs)
        if any(a >= b for a, b in zip(sizes, sizes[1:])) or not sizes[-1] <= in_file <= sizes[-1] + 8 * len(context["tokens"]) + 4096:
            raise Failure(f"{kvs}: encode says level sizes {sizes}, the file has {in_file} bytes")
        count = bench.values(context)
        for level, size in zip(levels, sizes):
            if abs(level["bits_per_value"] - size * 8 / count) > 0.005:
                raise Failure(f"{kvs}: encode says {level['bits_per_value']} bits per value, {size} bytes are {size * 8 / count:.4f}")
        values += count
        bytes_by_level = sizes if bytes_by_level is None else [a + b for a, b in zip(bytes_by_level, sizes)]
        files.append(kvs)
    return files, bytes_by_level, values


def decode_all(bench, ctl, profile, files, level):
    """KV of every context at a level."""
    out = os.path.join(bench.work, "decoded.safetensors")
    for context, kvs in zip(bench.contexts, files):
        run_ctl(ctl, "decode", "--profile", profile, "--in", kvs, "--level", level, "--out", out)
        kv, tokens = R.load_kv(out)
        if tokens is None or tokens.tolist() != context["tokens"]:
            raise Failure(f"{out}: tokens differ from those of {context['name']}")
        yield kv


def measure_group(bench, ctl, group, levels=None, steps=None, name=None, build_options=()):
    """Rows of one kind of groups, level 0 first.

    group: as kvstreamctl has it; with ":plain" behind it the profile is built without sensitivities.
    steps: those of the levels, coarsest first (None: kvstreamctl's default).
    """
    name = name or group
    profile = os.path.join(bench.work, f"{name}.kvprofile")
    started = time.monotonic()
    kind, _, plain = group.partition(":")
    options = [*build_options, *([] if plain else SENSITIVITY), *(["--steps", ",".join(f"{s:.10g}" for s in steps)] if steps else [])]
    built = run_ctl(ctl, "profile", "build", "--config", os.path.join(reading.REFERENCE, "config.json"), "--kv", *bench.calibration,
                    "--queries", bench.queries, "--group", kind, *options, "--out", profile)
    build_seconds = time.monotonic() - started
    files, bytes_by_level, values = encode_all(bench, ctl, profile, name)
    for level in range(len(bytes_by_level) if levels is None else min(levels, len(bytes_by_level))):
        figures = reading.measure(bench.originals, bench.read(decode_all(bench, ctl, profile, files, level)))
        yield {"codec": "kvstream", "group": group, "level": level, "step": built["steps"][level],
               "bits_per_value": bytes_by_level[level] * 8 / values, **figures, "profile_bytes": os.path.getsize(profile),
               "profile_build_seconds": round(build_seconds, 2)}

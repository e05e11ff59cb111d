#!/usr/bin/python3
"""Quality of every level of the codec, measured by a real model that reads contexts from decoded KV.

    bazel run //tests/quality:levels [-- OPTIONS]

builds profiles with kvstreamctl from tests/reference_lm/calibration, encodes the eight contexts of tests/reference_lm/contexts (which the
calibration has never seen), decodes them at every level and lets the reference model read on from them. Per group and level it prints

  b/v          bits per value; all bytes of the .kvs file's chunks counted: payload, coder states, headers, checksums, exact sink tokens
  KL prose     mean Kullback-Leibler divergence in nats of the next-token distribution, original against decoded KV, over all the tokens
               of the prose contexts' continuations (960 tokens)
  KL answers   the same over all the answers' tokens of the retrieval contexts (160 questions, 560 tokens)
  dNLL, ppl x  change of the continuation's mean loss in nats, and the factor that this puts on the perplexity
  retrieval    questions answered exactly (greedy)

and beside them the row of the design's curve (ideal entropies of a NumPy prototype) with measured / curve.

Noise: nothing here is random, but KL is a heavy-tailed mean, so a change of codec that is neutral moves a single context's figure by tens of
per cent. Only the means over all contexts of a kind are compared, and with --check the command fails if at any level bits per value, KL prose or
KL answers exceed the curve by more than a tenth. Levels beyond the curve's three must lie below the level before them in KL.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
REFERENCE = os.path.join(ROOT, "tests", "reference_lm")
sys.path.insert(0, REFERENCE)
import dump_kv  # noqa: E402
import quality  # noqa: E402
import reference_lm as R  # noqa: E402

# The design's curve: (bits per value, KL prose, KL answers) per level, "levels that add up" with steps 1.08, 0.36, 0.12.
CURVE = {
    "layer": [(0.71, 0.01837, 0.0945), (1.55, 0.00302, 0.0123), (2.71, 0.00054, 0.0024)],
    "model": [(0.38, 0.01291, 0.0565), (0.78, 0.00228, 0.0134), (1.47, 0.00032, 0.0018)],
}
TOLERANCE = 1.1


class Failure(Exception):
    """Something that the user should read; not a bug of this script."""


def find_kvstreamctl(given):
    for path in [given, os.environ.get("KVSTREAMCTL"), os.path.join(ROOT, "client", "kvstreamctl"),
                 os.path.join(ROOT, "bazel-bin", "client", "kvstreamctl")]:
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise Failure("kvstreamctl not found; build it with `bazel build //client:kvstreamctl` or name it with --kvstreamctl")


def run_ctl(ctl, *args):
    """Runs kvstreamctl ARGS --format json; returns its object."""
    done = subprocess.run([ctl, *map(str, args), "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"kvstreamctl {' '.join(map(str, args))}: exit status {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Reading:
    """What the model thinks after one context, read from one KV cache."""

    def __init__(self, lm, context, kv):
        self.log_p = quality.log_probabilities(lm, context, kv)
        self.prose = context["kind"] == "prose"
        if self.prose:
            self.answers = [context["continuation_tokens"]]
        else:
            self.answers = [q["answer_tokens"] for q in context["queries"]]
        self.targets = np.concatenate([np.asarray(a) for a in self.answers])

    def nll(self):
        """Per token, nats."""
        return -self.log_p[np.arange(len(self.targets)), self.targets]

    def exact(self):
        """Per question: every token of the answer is the most likely one."""
        hit, out, begin = self.log_p.argmax(axis=-1) == self.targets, [], 0
        for answer in self.answers:
            out.append(bool(hit[begin:begin + len(answer)].all()))
            begin += len(answer)
        return out

    def divergence(self, other):
        """KL(self || other) per token, nats."""
        return (np.exp(self.log_p) * (self.log_p - other.log_p)).sum(axis=-1)


def measure(originals, decoded):
    """Figures over pairs of readings [(original, decoded)]."""
    pairs = list(zip(originals, decoded))
    prose = [(a, b) for a, b in pairs if a.prose]
    answers = [(a, b) for a, b in pairs if not a.prose]
    figures = {}
    if prose:
        figures["kl_prose"] = float(np.concatenate([a.divergence(b) for a, b in prose]).mean())
        figures["nll_change"] = float(np.concatenate([b.nll() - a.nll() for a, b in prose]).mean())
        figures["perplexity_ratio"] = float(np.exp(figures["nll_change"]))
    if answers:
        figures["kl_answers"] = float(np.concatenate([a.divergence(b) for a, b in answers]).mean())
        figures["accuracy"] = float(np.mean(sum((b.exact() for _, b in answers), [])))
        figures["accuracy_original"] = float(np.mean(sum((a.exact() for a, _ in answers), [])))
    return figures


def measure_group(args, ctl, work, group, contexts, calibration, queries, originals, lm):
    """Rows of one group, level 0 first."""
    profile = os.path.join(work, f"{group}.kvprofile")
    started = time.monotonic()
    run_ctl(ctl, "profile", "build", "--config", os.path.join(REFERENCE, "config.json"), "--kv", *calibration,
            "--queries", queries, "--group", group, "--out", profile)
    build_seconds = time.monotonic() - started
    values, bytes_by_level, encoded = 0, None, []
    for context in contexts:
        kvs = os.path.join(work, f"{group}-{context['name']}.kvs")
        levels = run_ctl(ctl, "encode", "--profile", profile, "--in", os.path.join(work, "kv", context["name"] + ".safetensors"),
                         "--out", kvs)["levels"]
        sizes = [level["bytes"] for level in levels]
        if any(a >= b for a, b in zip(sizes, sizes[1:])) or not sizes[-1] <= os.path.getsize(kvs) <= sizes[-1] + 8 * len(context["tokens"]) + 4096:
            raise Failure(f"{kvs}: encode says level sizes {sizes}, the file has {os.path.getsize(kvs)} bytes")
        count = len(context["tokens"]) * lm.num_layers * 2 * lm.num_kv_heads * lm.head_dim
        for level, size in zip(levels, sizes):
            if abs(level["bits_per_value"] - size * 8 / count) > 0.005:
                raise Failure(f"{kvs}: encode says {level['bits_per_value']} bits per value, {size} bytes are {size * 8 / count:.4f}")
        values += count
        bytes_by_level = sizes if bytes_by_level is None else [a + b for a, b in zip(bytes_by_level, sizes)]
        encoded.append(kvs)
    rows = []
    for level in range(len(bytes_by_level) if args.levels is None else min(args.levels, len(bytes_by_level))):
        readings = []
        for context, kvs in zip(contexts, encoded):
            out = os.path.join(work, "decoded.safetensors")
            run_ctl(ctl, "decode", "--profile", profile, "--in", kvs, "--level", level, "--out", out)
            kv, tokens = R.load_kv(out)
            if tokens is None or tokens.tolist() != context["tokens"]:
                raise Failure(f"{out}: tokens differ from those of {context['name']}")
            readings.append(Reading(lm, context, kv))
        row = {"group": group, "level": level, "bits_per_value": bytes_by_level[level] * 8 / values, **measure(originals, readings),
               "profile_bytes": os.path.getsize(profile), "profile_build_seconds": round(build_seconds, 2)}
        if level < len(CURVE.get(group, [])):
            names = ("bits_per_value", "kl_prose", "kl_answers")
            row["curve"] = dict(zip(names, CURVE[group][level]))
            row["ratio"] = {n: row[n] / row["curve"][n] for n in names if n in row}
        rows.append(row)
        print_row(row)
    return rows


def print_header():
    print(f"{'group':6s} {'level':>5s} {'b/v':>6s} {'KL prose':>9s} {'KL answ.':>9s} {'dNLL':>8s} {'ppl x':>7s} {'retrieval':>14s}"
          f" | {'curve b/v':>9s} {'prose':>8s} {'answ.':>7s} | measured / curve")


def print_row(row):
    def cell(name, form):
        return form.format(row[name]) if name in row else "-"
    line = (f"{row['group']:6s} {row['level']:5d} {row['bits_per_value']:6.3f} {cell('kl_prose', '{:.5f}'):>9s} {cell('kl_answers', '{:.5f}'):>9s}"
            f" {cell('nll_change', '{:+.4f}'):>8s} {cell('perplexity_ratio', '{:.4f}'):>7s}")
    accuracy = f"{row['accuracy_original']:.3f} > {row['accuracy']:.3f}" if "accuracy" in row else "-"
    line += f" {accuracy:>14s} |"
    if "curve" in row:
        c = row["curve"]
        line += f" {c['bits_per_value']:9.2f} {c['kl_prose']:8.5f} {c['kl_answers']:7.4f} | " + " ".join(
            f"{v:.2f}" for v in row["ratio"].values())
    print(line, flush=True)


def complaints(rows):
    """What is worse than the curve allows."""
    out = []
    for row in rows:
        where = f"{row['group']} level {row['level']}"
        for name, ratio in row.get("ratio", {}).items():
            if ratio > TOLERANCE:
                out.append(f"{where}: {name} {row[name]:.5f} is {ratio:.2f} times the curve's {row['curve'][name]}")
    for before, after in zip(rows, rows[1:]):
        for name in ("kl_prose", "kl_answers"):
            if before["group"] == after["group"] and name in after and not after[name] < before[name]:
                out.append(f"{after['group']} level {after['level']}: {name} {after[name]:.6f} is not below level {before['level']}'s {before[name]:.6f}")
    return out


def run(args, work):
    ctl = find_kvstreamctl(args.kvstreamctl)
    lm = R.load(REFERENCE)

    def contexts_in(folder):
        directory = os.path.join(REFERENCE, folder)
        return [dump_kv.load_context(os.path.join(directory, f)) for f in sorted(os.listdir(directory)) if f.endswith(".json")]

    contexts = [c for c in contexts_in("contexts") if not args.only or any(s in c["name"] for s in args.only.split(","))]
    if not contexts:
        raise Failure(f"--only {args.only}: no context has such a name")
    if args.check and len(contexts) < 8:
        raise Failure("--check compares means over all eight contexts; leave --only out")
    say = (lambda text: print(text, file=sys.stderr, flush=True))
    say(f"prefill of the calibration and evaluation contexts ({args.dtype}) ...")
    queries = os.path.join(work, "queries.safetensors")
    calibration = dump_kv.dump(lm, contexts_in("calibration"), os.path.join(work, "calibration"), args.dtype, queries)
    dump_kv.dump(lm, contexts, os.path.join(work, "kv"), args.dtype)
    say("reading the originals ...")
    originals = [Reading(lm, c, R.load_kv(os.path.join(work, "kv", c["name"] + ".safetensors"))[0]) for c in contexts]
    print_header()
    rows = []
    for group in args.groups.split(","):
        rows += measure_group(args, ctl, work, group, contexts, calibration, queries, originals, lm)
    problems = complaints(rows) if len(contexts) == 8 else []
    if args.json:
        with open(os.path.join(os.environ.get("BUILD_WORKING_DIRECTORY", "."), args.json), "w") as f:
            json.dump({"contexts": [c["name"] for c in contexts], "dtype": args.dtype, "rows": rows, "beyond_curve": problems}, f, indent=1)
    for problem in problems:
        print("BEYOND THE CURVE:", problem)
    if args.check and problems:
        raise Failure(f"{len(problems)} figures are beyond the curve by more than a tenth")
    if not problems and len(contexts) == 8:
        print("every level is within a tenth of the curve in bits per value, KL prose and KL answers")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default="layer,model", help="comma-separated: head, layer, a number of layers, model")
    parser.add_argument("--only", help="comma-separated substrings of the names of the contexts to use (no comparison with the curve then)")
    parser.add_argument("--levels", type=int, help="only so many levels, from the coarsest")
    parser.add_argument("--dtype", choices=("BF16", "F16"), default="BF16")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure is beyond the curve by more than a tenth")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--work", help="keep profiles, dumps and encoded contexts in this directory")
    parser.add_argument("--kvstreamctl", help="the binary; default: the one built by Bazel")
    args = parser.parse_args()
    try:
        if args.work:
            os.makedirs(args.work, exist_ok=True)
            run(args, args.work)
        else:
            with tempfile.TemporaryDirectory(prefix="kvstream-levels-") as work:
                run(args, work)
    except Failure as failure:
        sys.exit(f"levels: {failure}")


if __name__ == "__main__":
    main()

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

and beside them the row of the design's curve (ideal entropies of a NumPy prototype) with measured / curve. //tests/quality:curve adds the
codecs of others.

Noise: nothing here is random, but KL is a heavy-tailed mean, so a change of codec that is neutral moves a single context's figure by tens of
per cent. Only the means over all contexts of a kind are compared, and with --check the command fails if at any level bits per value, KL prose or
KL answers exceed the curve by more than a tenth. Levels beyond the curve's three must lie below the level before them in KL.
"""
import argparse
import json
import os
import sys
import tempfile

import kvstream_points
import reading
from reading import Failure

# The design's curve: (bits per value, KL prose, KL answers) per level, "levels that add up" with steps 1.08, 0.36, 0.12.
CURVE = {
    "layer": [(0.71, 0.01837, 0.0945), (1.55, 0.00302, 0.0123), (2.71, 0.00054, 0.0024)],
    "model": [(0.38, 0.01291, 0.0565), (0.78, 0.00228, 0.0134), (1.47, 0.00032, 0.0018)],
}
TOLERANCE = 1.1


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


def compare(row):
    """Adds the curve's figures of the row's group and level, if it has any, and the ratios to them."""
    if row["level"] < len(CURVE.get(row["group"], [])):
        names = ("bits_per_value", "kl_prose", "kl_answers")
        row["curve"] = dict(zip(names, CURVE[row["group"]][row["level"]]))
        row["ratio"] = {n: row[n] / row["curve"][n] for n in names if n in row}
    return row


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
    ctl = kvstream_points.find_kvstreamctl(args.kvstreamctl)
    contexts = [c for c in reading.contexts_in("contexts") if not args.only or any(s in c["name"] for s in args.only.split(","))]
    if not contexts:
        raise Failure(f"--only {args.only}: no context has such a name")
    if args.check and len(contexts) < 8:
        raise Failure("--check compares means over all eight contexts; leave --only out")
    bench = reading.Workbench(work, contexts, args.dtype)
    print_header()
    rows = []
    for group in args.groups.split(","):
        for row in kvstream_points.measure_group(bench, ctl, group, args.levels):
            rows.append(compare(row))
            print_row(row)
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

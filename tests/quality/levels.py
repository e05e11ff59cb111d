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

and then the bits per value at the KL of each row of the design's curve (ideal entropies of a NumPy prototype), between levels linear over
log KL. //tests/quality:curve adds the codecs of others. Profiles are built with sensitivities; "layer:plain" is one without.

Noise: nothing here is random, but KL is a heavy-tailed mean, so a change of codec that is neutral moves a single context's figure by tens of
per cent. Only the means over all contexts of a kind are compared, and with --check the command fails if at the KL of any of the curve's rows the
bits per value exceed the row's by more than a tenth, or if a level's KL is not below that of the level before.
"""
import argparse
import json
import os
import sys
import tempfile

import kvstream_points
import rate_curve
import reading
from reading import Failure

# The design's curve: (bits per value, KL prose, KL answers) per level, "levels that add up" with steps 1.08, 0.36, 0.12.
CURVE = {
    "layer": [(0.71, 0.01837, 0.0945), (1.55, 0.00302, 0.0123), (2.71, 0.00054, 0.0024)],
    "model": [(0.38, 0.01291, 0.0565), (0.78, 0.00228, 0.0134), (1.47, 0.00032, 0.0018)],
}
TOLERANCE = 1.1


def print_header():
    print(f"{'group':12s} {'level':>5s} {'b/v':>6s} {'KL prose':>9s} {'KL answ.':>9s} {'dNLL':>8s} {'ppl x':>7s} {'retrieval':>14s}")


def print_row(row):
    def cell(name, form):
        return form.format(row[name]) if name in row else "-"
    accuracy = f"{row['accuracy_original']:.3f} > {row['accuracy']:.3f}" if "accuracy" in row else "-"
    print(f"{row['group']:12s} {row['level']:5d} {row['bits_per_value']:6.3f} {cell('kl_prose', '{:.5f}'):>9s} {cell('kl_answers', '{:.5f}'):>9s}"
          f" {cell('nll_change', '{:+.4f}'):>8s} {cell('perplexity_ratio', '{:.4f}'):>7s} {accuracy:>14s}", flush=True)


def against_curve(rows):
    """(group, KL's name, the curve's KL, its bits per value, ours at that KL) for every row of the design's curve; ours is None where no
    level is as good."""
    for group in dict.fromkeys(row["group"] for row in rows):
        ours = [row for row in rows if row["group"] == group]
        for bits, *kls in CURVE.get(group.split(":")[0], []):
            for name, kl in zip(rate_curve.KLS, kls):
                if all(name in row for row in ours):
                    yield group, name, kl, bits, rate_curve.bits_at([(row["bits_per_value"], row[name]) for row in ours], kl)[0]


def complaints(rows):
    """What is worse than the curve allows."""
    out = []
    for group, name, kl, bits, ours in against_curve(rows):
        if ours is not None and ours > TOLERANCE * bits:
            out.append(f"{group}: {ours:.3f} b/v at {name} {kl}, the curve has {bits}")
    for before, after in zip(rows, rows[1:]):
        for name in rate_curve.KLS:
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
            rows.append(row)
            print_row(row)
    for group, name, kl, bits, ours in against_curve(rows) if len(contexts) == 8 else ():
        if ours is not None:
            print(f"{group:12s} at {name} {kl:.5f}: {ours:.3f} b/v, {ours / bits:.2f} of the curve's {bits}")
    problems = complaints(rows) if len(contexts) == 8 else []
    if args.json:
        with open(os.path.join(os.environ.get("BUILD_WORKING_DIRECTORY", "."), args.json), "w") as f:
            json.dump({"contexts": [c["name"] for c in contexts], "dtype": args.dtype, "rows": rows, "beyond_curve": problems}, f, indent=1)
    for problem in problems:
        print("BEYOND THE CURVE:", problem)
    if args.check and problems:
        raise Failure(f"{len(problems)} figures are beyond the curve by more than a tenth")
    if not problems and len(contexts) == 8:
        print("at every KL of the curve bits per value are at most 1.1 times the curve's")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default="layer,model", help="comma-separated: head, layer, a number of layers, model; with \":plain\" behind it, without sensitivities")
    parser.add_argument("--only", help="comma-separated substrings of the names of the contexts to use (no comparison with the curve then)")
    parser.add_argument("--levels", type=int, help="only so many levels, from the coarsest")
    parser.add_argument("--dtype", choices=("BF16", "F16"), default="BF16")
    parser.add_argument("--check", action="store_true", help="exit with 1 if rates are beyond the curve by more than a tenth")
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

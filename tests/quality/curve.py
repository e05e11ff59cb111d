#!/usr/bin/python3
"""Rate-quality curve of the codec and of what others do, on the reference model.

    bazel run //tests/quality:curve [-- OPTIONS]

measures every level of the codec (per-head, one-layer and whole-model groups, the last two also without sensitivities) and every baseline under baselines/ on the eight contexts of
tests/reference_lm/contexts, prints the table, then for every baseline the bits that our codec needs at the same KL, then the promises of
promises.py. What the columns mean and how noisy they are is told by levels.py. Calibration, ours and the paper's, sees only
tests/reference_lm/calibration.

  --check    exit with 1 if a promise is broken or a level lies beyond the design's curve (levels.py); what the test does. Measures only those
             baselines that promises are about
  --docs     write docs/quality_curve.md and docs/quality_curve.png of this checkout
  --independent  also measure every step as a profile of its own with a single level: what it costs that levels add up
"""
import argparse
import json
import os
import sys
import tempfile
import time

import kvstream_points
import levels
import promises
import rate_curve
import reading
from reading import Failure

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "baselines"))
import cachegen_paper  # noqa: E402
import cachegen_released  # noqa: E402
import curve_report  # noqa: E402
import vectorwise  # noqa: E402
from side_information import Bits  # noqa: E402

PAPER_STEP_SCALES = (1.0, 0.7, 0.5, 0.35, 0.25)


def baselines(bench, only_promised):
    """(codec, label, kv -> (Bits, decoded kv)); only_promised: no more than the promises are about."""
    for bits in (8,) if only_promised else (3, 4, 8):
        yield "vector", f"vector-wise, {bits} bits", lambda kv, bits=bits: vectorwise.code(kv, bits)
    for setting in ("default",) if only_promised else ("coarsest", "default", "finest"):
        yield "released", f"released, {setting}", lambda kv, setting=setting: cachegen_released.code(kv, setting)
    paper = cachegen_paper.Codec([reading.R.load_kv(path)[0] for path in bench.calibration])
    for scale in PAPER_STEP_SCALES[1:4] if only_promised else PAPER_STEP_SCALES:
        yield "paper", f"paper, steps x {scale}", lambda kv, scale=scale: paper.code(kv, scale)


def measure_baseline(bench, codec, label, code):
    spent, decoded = Bits(), []
    for kv in bench.kv:
        bits, out = code(kv)
        spent.add(bits)
        decoded.append(out)
    payload, tables, scales = spent.per_value()
    return {"codec": codec, "label": label, "payload": payload, "tables": tables, "scales": scales, "bits_per_value": payload + tables + scales,
            **reading.measure(bench.originals, bench.read(decoded))}


def measure_all(bench, ctl, groups, only_promised):
    """Prints each row as it comes; returns all."""
    print(curve_report.text_header())
    rows = []

    def take(row):
        rows.append(row)
        print(curve_report.text_row(row), flush=True)
    for group in groups:
        for row in kvstream_points.measure_group(bench, ctl, group):
            take(row)
    for codec, label, code in baselines(bench, only_promised):
        take(measure_baseline(bench, codec, label, code))
    return rows


def print_independent(bench, ctl, rows):
    """Levels that add up against streams that hold one level only, at the same KL: on a curve through profiles with a single step each."""
    print("\nWhat it costs that levels add up: bits of a level against streams of one level, at its KL")
    for group in rate_curve.groups_of(rows):
        levels_of = [row for row in rows if row.get("group") == group]
        alone = []
        for row in levels_of:
            alone += kvstream_points.measure_group(bench, ctl, group, steps=[row["step"]], name="independent")
        for row, single in zip(levels_of, alone):
            out = [f"{curve_report.name_of(row)}: {row['bits_per_value']:.3f} b/v, alone {single['bits_per_value']:.3f} with KL x "
                   f"{single['kl_prose'] / row['kl_prose']:.2f} and {single['kl_answers'] / row['kl_answers']:.2f}"]
            for kl in rate_curve.KLS:
                bits, bound = rate_curve.bits_at([(r["bits_per_value"], r[kl]) for r in alone], row[kl])
                out.append(f"at equal {kl} " + ("-" if bits is None or bound else f"{row['bits_per_value'] / bits - 1:+.1%}"))
            print(", ".join(out), flush=True)
        print(f"{curve_report.NAMES.get(group, group)}: all levels together {levels_of[-1]['bits_per_value']:.3f} b/v, independent streams of them "
              f"{sum(r['bits_per_value'] for r in alone):.3f} b/v")


def run(args, work):
    ctl = kvstream_points.find_kvstreamctl(args.kvstreamctl)
    bench = reading.Workbench(work, reading.contexts_in("contexts"))
    rows = measure_all(bench, ctl, args.groups.split(","), args.check)
    print("\nAt the same KL: KVStream's b/v, as a share of the codec's payload / of all that it stores")
    print(curve_report.text_shares(rows))
    promised = promises.check(rows) if {"layer", "model"} <= set(args.groups.split(",")) else []
    print()
    for sentence, kept in promised:
        print("kept:  " if kept else "BROKEN:", sentence)
    problems = [sentence for sentence, kept in promised if not kept]
    problems += levels.complaints([row for row in rows if row["codec"] == "kvstream"])
    if args.independent:
        print_independent(bench, ctl, rows)
    if args.json:
        with open(os.path.join(os.environ.get("BUILD_WORKING_DIRECTORY", "."), args.json), "w") as f:
            json.dump({"rows": rows, "problems": problems}, f, indent=1)
    if args.docs:
        docs = os.path.join(os.environ.get("BUILD_WORKSPACE_DIRECTORY", reading.ROOT), "docs")
        curve_report.draw(rows, os.path.join(docs, "quality_curve.png"))
        with open(os.path.join(docs, "quality_curve.md"), "w") as f:
            f.write(curve_report.markdown(rows, promised, f"Measured {time.strftime('%Y-%m-%d')} on the reference model, BF16 KV."))
    for problem in problems:
        print("PROBLEM:", problem, file=sys.stderr)
    if args.check and problems:
        raise Failure(f"{len(problems)} figures are worse than promised")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default="head,layer,model,layer:plain,model:plain",
                        help="comma-separated: head, layer, a number of layers, model; with \":plain\" behind it, without sensitivities")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--independent", action="store_true")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--work", help="keep profiles, dumps and encoded contexts in this directory")
    parser.add_argument("--kvstreamctl", help="the binary; default: the one built by Bazel")
    args = parser.parse_args()
    try:
        if args.work:
            os.makedirs(args.work, exist_ok=True)
            run(args, args.work)
        else:
            with tempfile.TemporaryDirectory(prefix="kvstream-curve-") as work:
                run(args, work)
    except Failure as failure:
        sys.exit(f"curve: {failure}")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Makes the traces of link speed that simulation and real packets share.

  make_traces.py --out DIR     writes DIR/<split>_<family>_<two digits>.trace
  make_traces.py --list        prints the names
  make_traces.py --more N --out DIR     writes N more traces of every family instead, of seeds and parameters of their own, as split
                               `tuning`: to fit to links like the final ones without a look at those

The format is that of client/rate_trace.h, `<seconds> <rate>` a line; comments of the form `# key: value` carry what a
rate cannot say: family, split, rtt_ms (a round trip of 0.1 to 80 ms for the simulator or for an added delay).

Split `tuning` is what estimator and planner may be fitted to; split `final` is for published figures only. The families
cachegen, onoff and shared exist only in `final`; the others have other seeds and other parameters there.

Deterministic: only random.Random.random() is used, whose sequence Python promises for a seed.
"""

import argparse
import math
import os
import random
import sys

# How many traces of each family. BUILD.bazel has the same table, since Bazel wants to know its outputs.
COUNTS = {
    "tuning": {"constant": 5, "steps": 8, "walk": 6, "stalls": 6},
    "final": {"constant": 7, "cachegen": 7, "steps": 7, "onoff": 7, "walk": 7, "stalls": 7, "shared": 7},
}
GBIT = 1e9
LOW, HIGH = 0.1 * GBIT, 10 * GBIT
RTTS_MS = [0.1, 0.5, 2, 8, 20, 40, 80]
# A chunk of CacheGen: 1.5K tokens of Mistral-7B at 2.3 bits a value.
CACHEGEN_CHUNK_BITS = 1536 * 65536 * 2.3


class Draw:
    """Distributions from random() alone."""

    def __init__(self, seed):
        self.source = random.Random(seed)

    def uniform(self, low, high):
        return low + (high - low) * self.source.random()

    def log_uniform(self, low, high):
        return low * (high / low) ** self.source.random()

    def exponential(self, mean):
        return -mean * math.log(1 - self.source.random())

    def normal(self):
        # Sum of twelve: close enough, and the same everywhere.
        return sum(self.source.random() for _ in range(12)) - 6


def constant(draw, split, index):
    rates = [0.1, 0.3, 1, 3, 10, 1, 3] if split == "final" else [0.2, 0.6, 1.5, 5, 8]
    return [(0, rates[index] * GBIT)], None


def cachegen(draw, split, index):
    """A new rate, uniform from 0.1 to 10 Gbit/s, for each chunk that CacheGen would send."""
    steps, now = [], 0.0
    while now < 60:
        rate = draw.uniform(LOW, HIGH)
        steps.append((now, rate))
        now += CACHEGEN_CHUNK_BITS / rate
    return steps, now


def steps(draw, split, index):
    """Tenfold down and up again, at times from 50 ms to a few seconds apart."""
    high = draw.log_uniform(10 * LOW, HIGH)
    longest = 4 if split == "final" else 2
    rows, now, down = [], 0.0, index % 2 == 1
    while now < 40 or len(rows) % 2 == 1:
        rows.append((now, high / 10 if down else high))
        now += draw.log_uniform(0.05, longest)
        down = not down
    return rows, now


def onoff(draw, split, index):
    """Cross traffic that takes half to 95 % of the link while it is there."""
    capacity = draw.log_uniform(5 * LOW, HIGH)
    mean_on, mean_off = draw.log_uniform(0.1, 1.5), draw.log_uniform(0.1, 1.5)
    rows, now = [], 0.0
    while now < 40:
        rows.append((now, capacity))
        now += 0.01 + draw.exponential(mean_off)
        rows.append((now, capacity * (1 - draw.uniform(0.5, 0.95))))
        now += 0.01 + draw.exponential(mean_on)
    return rows, now


def walk(draw, split, index):
    """A slow random walk of the logarithm, reflected at 0.1 and 10 Gbit/s."""
    sigma = 0.05 if split == "final" else 0.08
    level, low, high = math.log(draw.log_uniform(LOW, HIGH)), math.log(LOW), math.log(HIGH)
    rows = []
    for i in range(400):
        rows.append((i * 0.1, math.exp(level)))
        level += sigma * draw.normal()
        level = 2 * low - level if level < low else 2 * high - level if level > high else level
    return rows, 40.0


def stalls(draw, split, index):
    """Nothing at all for 0.1 to 2 s, now and then."""
    rate = draw.log_uniform(LOW, HIGH)
    mean_gap = draw.log_uniform(0.5, 4) if split == "final" else 1.5
    rows, now = [], 0.0
    while now < 40:
        rows.append((now, rate))
        now += 0.02 + draw.exponential(mean_gap)
        rows.append((now, 0))
        now += draw.log_uniform(0.1, 2)
    return rows, now


def shared(draw, split, index):
    """A fair share of a link on which 2 to 64 loads come and go."""
    capacity = [5, 10, 25][index % 3] * GBIT
    target = draw.log_uniform(2, 64)
    loads, rows, now = max(2, min(64, round(target))), [], 0.0
    while now < 40:
        rows.append((now, min(capacity / loads, HIGH)))
        now += 0.005 + draw.exponential(2.0 / loads)
        comes = draw.uniform(0, 1) < target / (target + loads)
        loads = max(2, min(64, loads + (1 if comes else -1)))
    return rows, now


def text(split, family, index):
    draw = Draw("kvstream %s %s %d" % (split, family, index))
    if split == "more":
        # Drawn like the final ones, but for the constant rates, which those have in a list.
        rows, period = ([(0, draw.log_uniform(LOW, HIGH))], None) if family == "constant" else \
            globals()[family](draw, "final", index)
    else:
        rows, period = globals()[family](draw, split, index)
    rtt_ms = RTTS_MS[(index + len(family)) % len(RTTS_MS)]
    if split != "final":
        split, rtt_ms = "tuning", draw.log_uniform(0.1, 80)
    lines = ["# Made by tests/links/traces/make_traces.py",
             "# family: %s" % family, "# split: %s" % split, "# rtt_ms: %.3g" % rtt_ms]
    previous = -1.0
    for at, rate in rows:
        at = max(round(at, 6), round(previous + 1e-6, 6)) if previous >= 0 else 0.0
        lines.append("%.6f %.0fbit" % (at, rate))
        previous = at
    if period is not None:
        lines.append("%.6f loop" % max(period, previous + 1e-3))
    return "\n".join(lines) + "\n"


def names(more):
    counts = {"more": dict.fromkeys(COUNTS["final"], more)} if more else COUNTS
    return [(split, family, index) for split, families in sorted(counts.items())
            for family, count in sorted(families.items()) for index in range(count)]


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="DIR")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--more", type=int, default=0, metavar="N")
    options = parser.parse_args(arguments)
    for name in names(options.more):
        file_name = "%s_%s_%02d.trace" % name
        if options.list:
            print(file_name)
        if options.out:
            with open(os.path.join(options.out, file_name), "w") as file:
                file.write(text(*name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

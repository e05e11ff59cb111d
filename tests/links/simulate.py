#!/usr/bin/python3
"""Runs the link simulation and writes its tables and pictures into docs/.

  simulate.py BINARY TRACES [--dry] [arguments of the binary]

Prints the tables. Without --dry also replaces what is between the markers of docs/links.md and draws docs/links_delay.png
and docs/links_timeline.png, in the source tree that `bazel run` names. Pictures need python3-matplotlib.
"""

import csv
import os
import subprocess
import sys
import tempfile

BEGIN, END = "<!-- begin simulate -->", "<!-- end simulate -->"


def plot(data, docs):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with open(os.path.join(data, "delay.csv")) as file:
        rows = list(csv.DictReader(file))
    models = sorted({row["model"] for row in rows})
    figure, axes = plt.subplots(1, len(models), figsize=(5 * len(models), 4.2), sharey=True)
    for axis, model in zip(axes, models):
        def line(ability, column, **style):
            points = [(float(row["mbit"]) / 1000, float(row[column])) for row in rows
                      if row["model"] == model and row["ability"] == ability]
            axis.loglog(*zip(*points), **style)
        line("NONE", "text_s", label="text", color="tab:gray")
        line("NONE", "eight_bits_s", label="8 bits", color="tab:orange")
        line("NONE", "cachegen_s", label="CacheGen, default level", color="tab:red")
        line("NONE", "delay_s", label="ours, NONE", color="tab:blue")
        line("NONE", "clairvoyant_s", label="clairvoyant, NONE", color="tab:blue", linestyle=":")
        line("FRONT", "delay_s", label="ours, FRONT", color="tab:green")
        line("FRONT", "clairvoyant_s", label="clairvoyant, FRONT", color="tab:green", linestyle=":")
        axis.set_title("%s: 8,192 tokens, level 1" % model, fontsize=10)
        axis.set_xlabel("link, Gbit/s")
        axis.grid(True, which="both", alpha=0.25)
    axes[0].set_ylabel("load delay, s")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(os.path.join(docs, "links_delay.png"), dpi=90)

    with open(os.path.join(data, "timeline.csv")) as file:
        title = file.readline().lstrip("# ").strip()
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    seconds = [row["seconds"] for row in rows]
    figure, (rates, work) = plt.subplots(2, 1, figsize=(10, 6), sharex=True)
    for column, label in (("link_mbit", "link"), ("estimate_mbit", "estimate"), ("low_mbit", "promised")):
        rates.step(seconds, [max(row[column], 0.1) for row in rows], where="post", label=label)
    rates.set_yscale("log")
    rates.set_ylabel("Mbit/s")
    rates.set_title(title, fontsize=9)
    rates.legend(fontsize=8)
    work.plot(seconds, [row["ready"] for row in rows], label="chunks ready")
    work.plot(seconds, [row["recompute"] for row in rows], label="chunks left to recompute or recomputed")
    work.set_ylabel("chunks")
    work.set_xlabel("seconds since the load began")
    megabytes = work.twinx()
    megabytes.plot(seconds, [row["sent_mb"] for row in rows], color="tab:red", label="MB sent")
    megabytes.set_ylabel("MB sent")
    work.legend(fontsize=8, loc="upper left")
    megabytes.legend(fontsize=8, loc="lower right")
    for axis in (rates, work):
        axis.grid(True, alpha=0.25)
    figure.tight_layout()
    figure.savefig(os.path.join(docs, "links_timeline.png"), dpi=90)


def main(arguments):
    binary, trace = arguments[:2]
    dry = "--dry" in arguments
    workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY", "")
    with tempfile.TemporaryDirectory() as data:
        command = [binary, "--traces=" + os.path.dirname(os.path.realpath(trace)), "--out=" + data]
        command += [argument for argument in arguments[2:] if argument != "--dry"]
        report = subprocess.run(command, check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout
        print(report)
        if dry or not workspace:
            return 0
        docs = os.path.join(workspace, "docs")
        page = os.path.join(docs, "links.md")
        with open(page) as file:
            text = file.read()
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        with open(page, "w") as file:
            file.write(before + BEGIN + "\n" + report.strip() + "\n" + END + after)
        plot(data, docs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

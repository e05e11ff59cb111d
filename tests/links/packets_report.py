"""Tables and pictures of tests/links/packets.py: the simulator's, for real packets."""
import math
import os
import platform

BEGIN, END = "<!-- begin packets -->", "<!-- end packets -->"
ABILITIES = ("NONE", "SUFFIX", "ANY", "FRONT")
MIDDLE_DEADLINE = 1
STORY_STRETCH = 12


def median(values):
    values = sorted(values)
    half = len(values) // 2
    return math.nan if not values else values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def cell(rows, ability):
    """Ratio of delays to the clairvoyant's, (simulated), extra misses in points, ratio of mean levels."""
    def ratio(name):
        return mean(row[name][ability]["seconds"] / row["plan"][ability]["fastest"]["clairvoyant_s"] for row in rows)
    simulated = [row["plan"][ability]["fastest"]["simulated_s"] / row["plan"][ability]["fastest"]["clairvoyant_s"] for row in rows]
    late = unready = impossible = deadlines = 0
    level = best = 0.0
    for row in rows:
        for index, answer in enumerate(row["deadline"][ability]):
            bound = row["plan"][ability]["deadline"][index]
            deadlines += 1
            impossible += not bound["feasible"]
            late += answer["missed"]
            unready += answer["all_in_place_s"] > row["plan"]["deadlines_s"][index]
            level += answer["level_at_deadline"]
            best += bound["clairvoyant_level"]
    return (f"{ratio('fastest'):.3f} ({mean(simulated):.3f}; {ratio('idle'):.3f}), {100 * (unready - impossible) / deadlines:+.1f} ({100 * (late - impossible) / deadlines:+.1f}), "
            f"{level / best if best else math.nan:.3f}")


def medians(rows, ability):
    """Of the ratios of single loads: warm, simulated and idle. A load that waited for a core does not move it."""
    def of(pick):
        return f"{median(pick(row) / row['plan'][ability]['fastest']['clairvoyant_s'] for row in rows):.3f}"
    return (f"{of(lambda r: r['fastest'][ability]['seconds'])} ({of(lambda r: r['plan'][ability]['fastest']['simulated_s'])}; "
            f"{of(lambda r: r['idle'][ability]['seconds'])})")


def transports(rows, families):
    def cells(some, mean=mean):
        bound = [row["plan"]["NONE"]["fastest"]["clairvoyant_s"] for row in some]
        return ([f"{mean(row[name] / b for row, b in zip(some, bound)):.3f}" for name in ("plain", "plain_idle")]
                + [f"{mean(row[name]['NONE']['seconds'] / row[plain] for row in some):.3f}" for name, plain in (("fastest", "plain"), ("idle", "plain_idle"))])
    return table(["family", "plain TCP / clairvoyant", "after an idle time", "ours / plain TCP", "after an idle time"],
                 [[family, *cells([r for r in rows if r["family"] == family])] for family in families]
                 + [["all", *cells(rows)], ["all, median", *cells(rows, median)]])


def policies(rows):
    def line(name, answers, deadlines, level=True):
        return [name, f"{mean(a['seconds'] for a in answers):.3f}", f"{100 * mean(a['seconds'] > d for a, d in zip(answers, deadlines)):.0f}",
                f"{mean(a['level_at_deadline'] for a in answers):.2f}" if level else "-", f"{mean(a.get('bytes', 0) for a in answers) / 1e6:.2f}"]
    deadlines = [row["plan"]["deadlines_s"][MIDDLE_DEADLINE] for row in rows]
    lines = [line(f"deadline, `{ability}`", [row["deadline"][ability][MIDDLE_DEADLINE] for row in rows], deadlines) for ability in ABILITIES]
    for row in rows:
        for ability in ABILITIES:  # without a deadline all of it counts
            row["fastest"][ability]["level_at_deadline"] = row["fastest"][ability]["mean_level"]
        for name in ("finest", "coarsest"):
            row[name]["level_at_deadline"] = row[name]["mean_level"]
    lines += [line(f"fastest at level 1, `{ability}`", [row["fastest"][ability] for row in rows], deadlines) for ability in ABILITIES]
    lines += [line("CacheGen's policy on our levels", [row["cachegen"] for row in rows], deadlines),
              line("our finest, fixed", [row["finest"] for row in rows], deadlines),
              line("our coarsest, fixed", [row["coarsest"] for row in rows], deadlines),
              line("8 bits over plain TCP", [row["eight_bits"] for row in rows], deadlines, level=False),
              line("text: recompute all", [row["recompute"] for row in rows], deadlines, level=False)]
    for ability in ABILITIES:
        bounds = [row["plan"][ability] for row in rows]
        lines.append([f"clairvoyant, `{ability}`", f"{mean(b['fastest']['clairvoyant_s'] for b in bounds):.3f}",
                      f"{100 * mean(not b['deadline'][MIDDLE_DEADLINE]['feasible'] for b in bounds):.0f}",
                      f"{mean(b['deadline'][MIDDLE_DEADLINE]['clairvoyant_level'] for b in bounds):.2f}", "-"])
    return table(["policy", "mean load delay, s", "later than the deadline, %", "mean level then", "MB"], lines)


def constants(rows):
    lines = []
    for row in sorted((r for r in rows if r["family"] == "constant"), key=lambda r: r["plan"]["mean_bytes_per_second"]):
        ours, front, eight, text = row["fastest"]["NONE"]["seconds"], row["fastest"]["FRONT"]["seconds"], row["eight_bits"]["seconds"], row["recompute"]["seconds"]
        lines.append([f"{row['plan']['mean_bytes_per_second'] * 8e-9:.1f}", f"{1000 * row['rtt']:.1f}", f"{eight:.3f}", f"{text:.3f}", f"{ours:.3f}",
                      f"{row['plan']['NONE']['fastest']['clairvoyant_s']:.3f}", f"{eight / ours:.1f}", f"{text / ours:.1f}", f"{front:.3f}", f"{text / front:.1f}"])
    return table(["Gbit/s", "round trip, ms", "8 bits, s", "text, s", "ours, s", "clairvoyant, s", "8 bits / ours", "text / ours", "ours `FRONT`, s", "text / `FRONT`"], lines)


def processor():
    with open("/proc/cpuinfo") as f:
        return next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())


def report(runs, checks):
    rows, facts, args = runs.rows, runs.facts, runs.args
    families = sorted({row["family"] for row in rows})
    text = (f"{processor()}, {os.cpu_count()} cores, load average {os.getloadavg()[1]:.1f} at the end, `-c opt`, {args.congestion}{', window kept over idle times' if args.keep_window else ''}, seed {args.seed}: "
            f"{facts['tokens']} tokens of {runs.values_per_token:.0f} values, so the traces' rates are divided by {1 / runs.scale:.1f}, as for {facts['tokens'] * args.stretch:.0f} tokens of Llama-3.1-8B; "
            f"prefill {1e6 * min(r['cost']['seconds_per_token'] for r in rows):.0f} to {1e6 * max(r['cost']['seconds_per_token'] for r in rows):.0f} us a token (measured before each "
            f"trace, the best of three), decode {1e6 * runs.decode_s_per_token:.1f} us (the best of 30); bits per value "
            + ", ".join(f"{b:.2f}" for b in facts["bits"]) + ".\n\n")
    text += ("Plain TCP got of what the trace promises: " + ", ".join(f"{name[len('final_'):]} {share:.3f}" for name, share in checks) + ".\n\n")
    text += ("### Against the clairvoyant\n\nEach cell: mean ratio of load delays (`fastest`, level 1; in brackets the simulator's for the same loads, and that of a connection that had been idle), points of deadlines at which more "
             "often a chunk was not in place (in brackets: the load had not ended), ratio of the mean levels in place at the deadline.\n\n")
    text += table(["family", *(f"`{a}`" for a in ABILITIES)],
                  [[family, *(cell([r for r in rows if r["family"] == family], a) for a in ABILITIES)] for family in families]
                  + [["all", *(cell(rows, a) for a in ABILITIES)], ["all, median ratio", *(medians(rows, a) for a in ABILITIES)]])
    text += ("\n### What TCP alone makes of it\n\nThe bytes of level 1 over plain TCP, with nothing decoded: ratio of its time to the clairvoyant's delay (`NONE`), and of our delay to its.\n\n")
    text += transports(rows, families)
    text += "\n### Policies under the same deadlines\n\n" + policies(rows)
    text += "\n### Constant links, level 1\n\n" + constants(rows)
    return text


def draw_delays(runs, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axis = plt.subplots(figsize=(7, 4.5))
    rows = sorted((r for r in runs.rows if r["family"] == "constant"), key=lambda r: r["plan"]["mean_bytes_per_second"])
    x = [row["plan"]["mean_bytes_per_second"] * 8e-9 for row in rows]
    for name, of, style in (("text", lambda r: r["recompute"]["seconds"], "o-"), ("8 bits", lambda r: r["eight_bits"]["seconds"], "s-"),
                            ("our finest", lambda r: r["finest"]["seconds"], "^-"), ("ours, NONE", lambda r: r["fastest"]["NONE"]["seconds"], "D-"),
                            ("clairvoyant, NONE", lambda r: r["plan"]["NONE"]["fastest"]["clairvoyant_s"], "k:"),
                            ("ours, FRONT", lambda r: r["fastest"]["FRONT"]["seconds"], "v-"),
                            ("clairvoyant, FRONT", lambda r: r["plan"]["FRONT"]["fastest"]["clairvoyant_s"], "k--")):
        axis.loglog(x, [of(row) for row in rows], style, label=name, markersize=4)
    axis.set_xlabel(f"link, Gbit/s (carried out at 1/{1 / runs.scale:.0f} of it, so as for {runs.facts['tokens'] * runs.args.stretch:.0f} tokens of Llama-3.1-8B)")
    axis.set_ylabel("load delay, s")
    axis.set_title("Real packets, level 1; round trips differ from rate to rate", fontsize=10)
    axis.grid(True, which="both", alpha=0.25)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def draw_story(story, trace, start, scale, path):
    """One recorded load: link, arrivals, estimate; chunks over time."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    end = story["outcome"]["delay_ms"] / 1000
    figure, (rates, chunks) = plt.subplots(2, 1, figsize=(10, 6), sharex=True)
    times = [end * i / 1000 for i in range(1001)]
    rates.plot(times, [trace.rate_at(start + t) * scale * 8e-6 for t in times], "k", linewidth=1, label="link")
    width = max(story["bin_ms"] / 1000, end / 100)
    bins = [0.0] * (int(end / width) + 2)
    for i, size in enumerate(story["arrivals"]):
        bins[min(int(i * story["bin_ms"] / 1000 / width), len(bins) - 1)] += size
    rates.bar([i * width for i in range(len(bins))], [size / width * 8e-6 for size in bins], width=width, align="edge", color="#9ecae1", label="arriving")
    sent = story["sent_ms"] / 1000
    for key, label, colour in (("estimate_bytes_per_second", "estimate", "#d95f02"), ("promised_bytes_per_second", "promised", "#7570b3")):
        rates.step([s["at_ms"] / 1000 + sent for s in story["server"]], [s[key] * 8e-6 for s in story["server"]], where="post", color=colour, label=label)
    rates.set_ylabel("Mbit/s")
    rates.legend(fontsize=8)
    rates.set_title(f"{trace.name} from {start:.1f} s, deadline {story['request']['deadline_ms']:.0f} ms, ability {story['request']['ability']}; link at 1/{1 / scale:.0f} of the trace", fontsize=9)
    blues = ["#c6dbef", "#6baed6", "#2171b5", "#08306b"]
    for event in story["events"]:
        begin, length = event["begin_ms"] / 1000, max((event.get("end_ms", event["begin_ms"]) - event["begin_ms"]) / 1000, end / 800)
        if event["kind"] == "segment":
            chunks.barh(event["chunk"] - 0.2, length, left=begin, height=0.4, color=blues[min(event["level"], 3)])
        elif event["kind"] == "decode":
            chunks.barh(event["chunk"] + 0.2, length, left=begin, height=0.3, color="#31a354")
        elif event["kind"] == "recompute":
            for chunk in range(event["chunk"], event["chunk"] + event["chunks"]):
                chunks.barh(chunk, length, left=begin, height=0.7, color="#fd8d3c")
        elif event["kind"] == "order":
            chunks.plot([begin, begin], [event["chunk"] - 0.4, event["chunk"] + event["chunks"] - 0.6], "r", linewidth=1)
        elif event["level"] is None:
            chunks.plot([begin], [event["chunk"]], "r|", markersize=10)
    chunks.axvline(story["request"]["deadline_ms"] / 1000, color="#d62728", label="deadline")
    chunks.invert_yaxis()
    chunks.set_ylabel("chunk")
    chunks.set_title("arrivals by level in blue, decodes in green, recompute in orange; deadline and orders to recompute in red", fontsize=8)
    chunks.set_xlabel("seconds since the load began")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def write(root, text, runs, bed, trace):
    docs = os.path.join(root, "docs")
    page = os.path.join(docs, "links.md")
    with open(page) as f:
        before, rest = f.read().split(BEGIN)
    with open(page, "w") as f:
        f.write(before + BEGIN + "\n" + text.strip() + "\n" + END + rest.split(END)[1])
    draw_delays(runs, os.path.join(docs, "packets_delay.png"))
    one = trace("steps", 0)
    start = 12.0
    # Slower than the tables' loads, so that one load sees several steps.
    runs.full_values, runs.scale = runs.full_values * STORY_STRETCH, runs.scale / STORY_STRETCH
    bed.set_rtt(one.rtt)
    plan = runs.case(one, start)
    bed.link.ask(one.on_link(runs.scale, start))
    story = runs.traced(["--deadline", f"{round(1000 * plan['deadlines_s'][2])}ms", "--recompute-ability", "any", "--prefill-tokens-per-second",
                         str(round(1 / runs.cost["seconds_per_token"]))], name="story")
    draw_story(story, one, start, runs.scale, os.path.join(docs, "packets_timeline.png"))

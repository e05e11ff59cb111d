"""The measured rows as text, as Markdown and as a picture."""
import rate_curve

NAMES = {"head": "per head", "layer": "one layer", "model": "whole model", "layer:plain": "one layer, no sensitivities",
         "model:plain": "whole model, no sensitivities"}


def name_of(row):
    if row["codec"] == "kvstream":
        return f"KVStream, {NAMES.get(row['group'], row['group'] + ' layers')}, level {row['level']}"
    return {"vector": "", "released": "CacheGen ", "paper": "CacheGen "}[row["codec"]] + row["label"]


def _cells(row):
    side = row.get("tables", 0) + row.get("scales", 0)
    return [name_of(row), f"{row.get('payload', row['bits_per_value']):.3f}" + (f" + {side:.3f}" if side else ""), f"{row['kl_prose']:.5f}",
            f"{row['kl_answers']:.5f}", f"{row['nll_change']:+.4f}", f"{row['perplexity_ratio']:.4f}", f"{row['accuracy']:.3f}"]


_HEAD = ["codec", "b/v (+ side information)", "KL prose", "KL answers", "change of NLL", "perplexity x", "retrieval"]


def _shares(rows):
    """One line per baseline and KL: ours at the same KL."""
    groups = rate_curve.groups_of(rows)
    lines = {}
    for c in rate_curve.comparisons(rows):
        key = (c["label"], c["kl"])
        if c["bits"] is None:
            text = "-"
        else:
            text = f"{c['bound']}{c['bits']:.2f} b/v: {c['of_payload']:.3f} / {c['of_all']:.3f}"
        lines.setdefault(key, [c["label"], c["kl"].replace("kl_", ""), f"{c['at']:.5f}"]).append(text)
    return ["codec", "KL of", "KL"] + [NAMES.get(g, g) for g in groups], list(lines.values())


def _markdown_table(head, lines):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines]) + "\n"


def text_row(row):
    name, bits, *rest = _cells(row)
    return f"{name:54s} {bits:>15s} " + " ".join(f"{cell:>9s}" for cell in rest)


def text_header():
    return f"{'codec':54s} {'b/v + side':>15s} " + " ".join(f"{h:>9s}" for h in ("KL prose", "KL answ.", "dNLL", "ppl x", "retrieval"))


def text_shares(rows):
    head, lines = _shares(rows)
    lines = [head, *lines]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip() for cells in lines)


def markdown(rows, promised, facts):
    """The tables of docs/quality_curve.md."""
    head, shares = _shares(rows)
    return f"""# Rate and quality

Written by `bazel run //tests/quality:curve -- --docs`; do not edit. {facts}

![bits per value against KL divergence](quality_curve.png)

{_markdown_table(_HEAD, [_cells(row) for row in rows])}
b/v of KVStream count every byte of a context's segments. Side information of the baselines: tables, stream lengths and scales of vectors;
the paper's form has its tables offline, like KVStream, which has them in the profile. Payloads of CacheGen are ideal code lengths. KL in nats, mean over 960 tokens (prose) and over the tokens
of 160 answers; change of NLL in nats a token of prose; retrieval: share of the 160 answers that are exact.

## At the same KL
Bits per value that KVStream needs for a baseline's KL (between levels linear in bits over log KL; "<=": its coarsest level is better already), and their share of the
baseline's payload / of all that the baseline stores.

{_markdown_table(head, shares)}
## Promises
{chr(10).join(f"- {sentence}{'' if kept else ' (**broken**)'}" for sentence, kept in promised)}
"""


def draw(rows, path):
    """Bits per value against KL, one panel a KL. The only place that needs python3-matplotlib."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter
    styles = {"head": ("#1b9e77", "v"), "layer": ("#2166ac", "o"), "model": ("#053061", "s"), "layer:plain": ("#92c5de", "o"), "model:plain": ("#8073ac", "s")}
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 5.6), dpi=90, sharey=True)
    for axes, kl, title in zip(panels, rate_curve.KLS, ("continuation of prose", "answers of retrieval")):
        for group in rate_curve.groups_of(rows):
            points = sorted(rate_curve.curve_of(rows, kl, "kvstream", group))
            color, marker = styles.get(group, ("#4393c3", "^"))
            axes.plot(*zip(*points), color=color, marker=marker, label=f"KVStream, {NAMES.get(group, group)}")
        for codec, color, marker, label in (("paper", "#b2182b", "D", "CacheGen, paper"), ("released", "#d6604d", "P", "CacheGen, released: payload"),
                                            ("vector", "#777777", "x", "vector-wise 8, 4, 3 bits")):
            points = sorted(rate_curve.curve_of(rows, kl, codec, bits="payload"))
            axes.plot(*zip(*points), color=color, marker=marker, linestyle="--", label=label)
        points = sorted(rate_curve.curve_of(rows, kl, "released"))
        axes.plot(*zip(*points), color="#f4a582", marker="P", linestyle=":", label="CacheGen, released: all that it stores")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([0.25, 0.5, 1, 2, 4, 8])
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bits per KV value (BF16: 16)")
        axes.set_title(title)
        axes.grid(True, which="major", alpha=0.35)
    panels[0].set_ylabel("KL divergence of the next token, nats")
    figure.suptitle("Reference model: bits per value against damage (left and below is better)")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=9, loc="lower center", ncol=4, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)

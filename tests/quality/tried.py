#!/usr/bin/python3
"""Prints the figures of docs/codec.md about ideas for the codec, those that are in it and those that are not.

    bazel run //tests/quality:tried [-- NAME ...]        NAMEs are substrings of the variants'; default: all, some twenty minutes

A NumPy model of the codec: KLT, one level, dead zone 0.6, reconstruction at the cells' means, ideal code lengths under a Laplace or Gauss
distribution per coordinate, sinks not counted. Transforms, distributions and sensitivities come from every second context of
tests/reference_lm/calibration, rates and KL from the others; the evaluation contexts are not read. Each variant is measured at several
steps; printed are bits per value at some KLs (linear over log KL, beyond the ends too) and their change against the first variant of the kind.
"""
import sys

import numpy as np

import reading
import sensitivity
from reading import R

SINKS, LAYERS, PER_LAYER = 4, 12, 128
GROUPS = {"layer": [slice(i, i + PER_LAYER) for i in range(0, LAYERS * PER_LAYER, PER_LAYER)], "model": [slice(0, LAYERS * PER_LAYER)]}
TARGETS = [("prose", kl) for kl in (0.012, 0.006, 0.003, 0.0015)] + [("retrieval", kl) for kl in (0.02, 0.006, 0.0015)]
FLOOR = 0.03


def flatten(lm, pairs):
    """[(key, value)] per layer -> [tokens, channels] behind the sinks, RoPE of keys undone."""
    tokens = len(pairs[0][0])
    back = -np.arange(tokens)
    return np.concatenate([np.concatenate([lm._rotate(k, back).reshape(tokens, -1), v.reshape(tokens, -1)], axis=1) for k, v in pairs], axis=1)[SINKS:]


def unflatten(lm, flat, kv):
    """The cache whose channels behind the sinks are flat; the sinks are kv's."""
    out, tokens = [], len(flat) + SINKS
    for i, (k, v) in enumerate(kv):
        part = flat[:, i * PER_LAYER:(i + 1) * PER_LAYER].reshape(len(flat), 2, *k.shape[1:])
        key = lm._rotate(np.concatenate([k[:SINKS] * 0, part[:, 0]]), np.arange(tokens))
        key[:SINKS] = k[:SINKS]
        out.append((key, np.concatenate([v[:SINKS], part[:, 1]])))
    return out


def log_softmax(logits):
    logits = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


class Data:
    """Samples and Fisher matrices of one half of the calibration contexts, KV and readings of the other."""

    def __init__(self, lm):
        self.lm, self.fisher, self.held_out, samples, queries = lm, {}, [], [], []
        rng = np.random.default_rng(sensitivity.SEED)
        for j, context in enumerate(reading.contexts_in("calibration")):
            tokens, cached = sensitivity.reading_of(lm, context)
            if j % 2:
                _, kv = lm.prefill(tokens[:cached], last_logits_only=True)
                self.held_out.append((context["kind"], tokens[cached:], kv, flatten(lm, kv), log_softmax(lm.prefill(tokens[cached:], kv)[0])))
                continue
            of_context = []
            _, kv = lm.prefill(context["tokens"], queries=of_context, last_logits_only=True)
            samples.append(flatten(lm, kv))
            queries.append(np.stack([(q.astype(np.float64) ** 2).reshape(len(q), lm.num_kv_heads, -1, lm.head_dim).mean(axis=(0, 2)) for q in of_context]))
            _, kv = lm.prefill(tokens[:cached], last_logits_only=True)
            reader = sensitivity.Reader(lm, tokens[cached:], kv)
            for _ in range(sensitivity.DRAWS):
                g = flatten(lm, reader.gradients(reader.draw(rng), rng.choice([-1.0, 1.0], len(tokens) - cached)))
                self.fisher[context["kind"]] = self.fisher.get(context["kind"], 0) + g.T.astype(np.float64) @ g / (len(tokens) - cached)
        self.samples, self.query_power = np.concatenate(samples), np.mean(queries, axis=0)
        self.unit = self._units()
        for matrix in self.fisher.values():
            matrix /= (np.diag(matrix) * self.unit ** 2).mean()
        self.fisher["both"] = sum(self.fisher.values()) / 2

    def _units(self):
        """Those of a profile without sensitivities (codec/calibration.cc), base step 1."""
        x = self.samples.astype(np.float64).reshape(len(self.samples), LAYERS, 2, -1)
        mean_power, variance = (x.mean(axis=0) ** 2).mean(axis=-1), x.var(axis=0).mean(axis=-1)
        scale = np.sqrt(variance + np.minimum(mean_power, 3 * variance))
        pair = self.query_power.reshape(LAYERS, -1, 2, self.lm.head_dim // 2).mean(axis=2)
        weight = np.concatenate([pair, pair], axis=-1).reshape(LAYERS, -1)
        weight = np.clip(np.sqrt(weight / weight.mean(axis=1, keepdims=True)), 0.1, 10)
        return np.stack([scale[:, :1] / weight, np.repeat(scale[:, 1:] * 1.2, PER_LAYER // 2, axis=1)], axis=1).ravel()

    def damage(self, kind="both", pairs=True):
        """By channel: what an error of a unit does, mean 1."""
        d = np.diag(self.fisher[kind]).copy().reshape(LAYERS, 2, -1, 2, self.lm.head_dim // 2)
        if pairs:
            d[:, 0] = d[:, 0].mean(axis=2, keepdims=True)
        d = d.ravel() * self.unit ** 2
        return d / d.mean()


def beyond(x, deviation, shape):
    """P(|X| > x) of a Laplace (0) or Gauss (1) distribution."""
    if shape == 0:
        return np.exp(-x * np.sqrt(2) / deviation)
    z = x / deviation / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)  # Abramowitz and Stegun, 7.1.26
    return t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * np.exp(-z * z)


def code_bits(cells, deviation, shape):
    size = np.abs(cells)
    high, low = np.where(size == 0, 0.6, size + 0.5), np.where(size == 1, 0.6, size - 0.5)
    p = np.where(size == 0, 1 - beyond(high, deviation, shape), (beyond(low, deviation, shape) - beyond(high, deviation, shape)) / 2)
    return -np.log2(np.maximum(p, 2.0 ** -20))


def cells_of(x, deviation, rdo):
    """x in steps. rdo > 0: cells step towards zero where rdo x bits saved exceed the squared error added."""
    size = np.abs(x)
    cells = (np.sign(x) * np.where(size < 0.6, 0, np.floor(size + 0.5))).astype(np.int32)
    if rdo:
        lower = np.sign(cells) * np.maximum(np.abs(cells) - 1, 0)
        cells = np.where((x - lower) ** 2 + rdo * code_bits(lower, deviation, 0) < (x - cells) ** 2 + rdo * code_bits(cells, deviation, 0), lower, cells)
    return cells


class Codec:
    """A KLT per group in the metric in which noise shall be white. metric(data, group) -> (to it, back), matrices for rows of channels."""

    def __init__(self, data, groups, metric, rdo=0.0):
        self.data, self.rdo, self.parts = data, rdo, []
        self.mean = data.samples.mean(axis=0)
        for group in groups:
            to, back = metric(data, group)
            z = (data.samples[:, group] - self.mean[group]).astype(np.float64) @ to
            _, vectors = np.linalg.eigh(z.T @ z)
            self.parts.append((group, (to @ vectors[:, ::-1]).astype(np.float32), (vectors[:, ::-1].T @ back).astype(np.float32)))

    def point(self, step, recent=0):
        """(bits per value, KL prose, KL retrieval). recent: so many of a context's last tokens have a third of the step."""
        data, bits = self.data, 0.0
        decoded = [np.empty_like(flat) for _, _, _, flat, _ in data.held_out]
        for group, forward, inverse in self.parts:
            y = (data.samples[:, group] - self.mean[group]) @ forward
            fits = {}
            for d in {step, step / 3} if recent else {step}:
                deviation = np.maximum(np.sqrt((y ** 2).mean(axis=0)) / d, 0.02)
                cells = cells_of(y / d, deviation, self.rdo)
                shape = np.argmin([code_bits(cells[::4], deviation, s).mean(axis=0) for s in (0, 1)], axis=0)
                below = np.abs(cells) - np.abs(y) / d
                shrink = [np.where(chosen, below, 0).sum(axis=0) / (chosen.sum(axis=0) + 20) for chosen in (np.abs(cells) == 1, np.abs(cells) > 1)]
                fits[d] = deviation, shape, shrink
            for out, (_, _, _, flat, _) in zip(decoded, data.held_out):
                z = (flat[:, group] - self.mean[group]) @ forward
                split = len(z) - recent
                for d, rows in ((step, slice(0, split)), (step / 3, slice(split, len(z)))):
                    if rows.start == rows.stop:
                        continue
                    deviation, shape, shrink = fits[d]
                    cells = cells_of(z[rows] / d, deviation, self.rdo)
                    bits += np.where(shape == 0, code_bits(cells, deviation, 0), code_bits(cells, deviation, 1)).sum()
                    size = np.abs(cells)
                    value = np.sign(cells) * np.maximum(size - np.where(size == 1, *shrink), 0) * d
                    out[rows, group] = value.astype(np.float32) @ inverse + self.mean[group]
        kls = {"prose": [], "retrieval": []}
        for flat, (kind, tokens, kv, _, log_p) in zip(decoded, data.held_out):
            log_q = log_softmax(data.lm.prefill(tokens, unflatten(data.lm, flat, kv))[0])
            kls[kind].append((np.exp(log_p) * (log_p - log_q)).sum(axis=-1))
        return (bits / sum(flat.size for flat in decoded), *(np.concatenate(kls[kind]).mean() for kind in kls))


def diagonal(factor):
    """White noise in units over factor(data) by channel."""
    def metric(data, group):
        unit = (data.unit / factor(data))[group]
        return np.diag(1 / unit), np.diag(unit)
    return metric


def floored(damage, floor=FLOOR):
    return np.sqrt((damage + floor) / (1 + floor))


def pooled(damage, channels):
    return np.repeat(damage.reshape(-1, channels).mean(axis=1), channels)


def whole_fisher(data, group):
    unit = data.unit[group]
    matrix = data.fisher["both"][group, group] * unit[:, None] * unit
    values, vectors = np.linalg.eigh((matrix + FLOOR * np.eye(len(unit))) / (1 + FLOOR))
    root = np.sqrt(np.maximum(values, 1e-6))
    return (vectors * root) @ vectors.T / unit[:, None], (vectors / root) @ vectors.T * unit


SENSITIVE = diagonal(lambda data: floored(data.damage()))
FINE, COARSE = (2.0, 1.08, 0.6, 0.36), (1.08, 0.6, 0.36)
# kind -> [(name, metric, steps, rdo, recent tokens)]; the first of a kind is what the others are compared with.
VARIANTS = {
    "against no sensitivities": [
        ("none", diagonal(lambda data: np.ones_like(data.unit)), FINE, 0, 0),
        ("per layer, square root", diagonal(lambda data: pooled(data.damage(), 64) ** 0.25), FINE, 0, 0),
        ("per layer", diagonal(lambda data: pooled(data.damage(), 64) ** 0.5), FINE, 0, 0),
        ("per head", diagonal(lambda data: pooled(data.damage(), 32) ** 0.5), FINE, 0, 0),
        ("per channel, no floor", diagonal(lambda data: floored(data.damage(), 0)), FINE, 0, 0),
        ("per channel, floor 0.01", diagonal(lambda data: floored(data.damage(), 0.01)), FINE, 0, 0),
        ("per channel, floor 0.03", SENSITIVE, FINE, 0, 0),
        ("floor 0.01, from prose", diagonal(lambda data: floored(data.damage("prose"), 0.01)), FINE, 0, 0),
        ("floor 0.01, from recall", diagonal(lambda data: floored(data.damage("retrieval"), 0.01)), FINE, 0, 0),
    ],
    "against the codec": [
        ("sensitivities", SENSITIVE, COARSE, 0, 0),
        ("whole Fisher matrix", whole_fisher, COARSE, 0, 0),
        ("rate-distortion 0.06", SENSITIVE, COARSE, 0.06, 0),
        ("rate-distortion 0.12", SENSITIVE, COARSE, 0.12, 0),
        ("last 64 tokens finer", SENSITIVE, COARSE[:2], 0, 64),
        ("last 256 tokens finer", SENSITIVE, COARSE[:2], 0, 256),
    ],
}


def bits_at(points, which, kl):
    points = sorted(points)
    bits, logs = [p[0] for p in points], [np.log(p[which]) for p in points]
    i = next((i for i in range(len(points) - 2) if logs[i + 1] <= np.log(kl)), len(points) - 2)
    return bits[i] + (np.log(kl) - logs[i]) / (logs[i + 1] - logs[i]) * (bits[i + 1] - bits[i])


def main():
    data = Data(R.load(reading.REFERENCE))
    wanted = sys.argv[1:]
    share = pooled(data.damage(), 64)[::64].reshape(LAYERS, 2).sum(axis=1) / (2 * LAYERS)
    print("share of the damage by layer, equal steps:", " ".join(f"{s:.3f}" for s in share))
    print("bits per value at KL: " + "  ".join(f"{kind} {kl}" for kind, kl in TARGETS))
    for group, slices in GROUPS.items():
        for kind, variants in VARIANTS.items():
            reference = None
            for i, (name, metric, steps, rdo, recent) in enumerate(variants):
                if i and wanted and not any(w in name for w in wanted):
                    continue
                codec = Codec(data, slices, metric, rdo)
                points = [codec.point(step, recent) for step in steps]
                found = [bits_at(points, 1 if which == "prose" else 2, kl) for which, kl in TARGETS]
                reference = reference or found
                print(f"{group:6s} {name:26s} " + " ".join(f"{b:.3f}" for b in found) + f"   {kind}: " + " ".join(f"{b / r - 1:+.0%}" for b, r in zip(found, reference)))
                print(" " * 9 + "measured: " + "; ".join(f"{b:.3f} b/v, KL {p:.5f} {r:.5f}" for b, p, r in points), flush=True)


if __name__ == "__main__":
    main()

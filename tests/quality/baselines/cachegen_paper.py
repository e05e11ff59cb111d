"""The codec that the CacheGen paper describes: groups of ten tokens, the first an anchor, the others differences to it.

Per chunk of 256 tokens, layer, and keys or values:
  anchors       every tenth token from the chunk's first on, 8 bits by one scale per token
  differences   of the other tokens to their decoded anchor, in steps of step_scale x (0.5, 1, 1.5 in the first, middle, last third of the
                layers) x the standard deviation of the layer's keys or values on the calibration contexts. (The paper leaves the unit open.
                The deviation of the differences themselves was tried too: 1 % more bits at the released default's KL on prose, 8 % on
                answers.)
  entropy code  under tables per layer and channel, anchors and differences apart, trained on the calibration contexts and held by
                both sides, so that they are not counted
"""
import numpy as np

import code_length
import vectorwise
from side_information import SCALE_BITS, Bits

CHUNK_TOKENS = 256
GROUP_TOKENS = 10
THIRDS = (0.5, 1.0, 1.5)
LARGEST = 127  # of both symbols; a difference beyond is clamped, which happens to next to none


def third_of(layer, layers):
    return THIRDS[min(2, layer * 3 // layers)]


def anchor_tokens(tokens):
    """(indices of the anchors, for every token the place of its anchor among them)."""
    position = np.arange(tokens) % CHUNK_TOKENS
    is_anchor = position % GROUP_TOKENS == 0
    return np.flatnonzero(is_anchor), np.cumsum(is_anchor) - 1


class Codec:
    """Tables and scales of one model, trained on the KV of calibration contexts; used for one step_scale after the other."""

    def __init__(self, calibration):
        """calibration: list of kv, each [(key, value)] per layer of [tokens, heads, head_size]."""
        self._calibration = calibration
        self._layers = len(calibration[0])
        self._deviation = np.empty((self._layers, 2))
        for i in range(self._layers):
            for k in range(2):
                flat = np.concatenate([kv[i][k].reshape(len(kv[i][k]), -1) for kv in calibration]).astype(np.float64)
                self._deviation[i, k] = np.sqrt(flat.var(axis=0).mean())
        self._tables = {}

    @staticmethod
    def _differences(tensor):
        """Anchor symbols [anchors, channels], decoded anchors of every token [tokens, channels], which tokens are no anchors, and their
        differences."""
        flat = tensor.reshape(len(tensor), -1).astype(np.float32)
        anchors, group = anchor_tokens(len(flat))
        symbols, scale = vectorwise.quantise(flat[anchors], LARGEST)
        base = (symbols * (scale / LARGEST))[group]
        others = np.ones(len(flat), bool)
        others[anchors] = False
        return symbols, base, others, (flat - base)[others]

    def _step(self, layer, k, step_scale):
        return step_scale * third_of(layer, self._layers) * self._deviation[layer, k]

    def _code_tensor(self, tensor, step):
        """(counts of anchor symbols, counts of difference symbols, decoded [tokens, channels])."""
        anchors, decoded, others, difference = self._differences(tensor)
        symbols = np.clip(np.round(difference / step), -LARGEST, LARGEST)
        decoded[others] += symbols * step
        alphabet = 2 * LARGEST + 1
        return (code_length.count_symbols(anchors + LARGEST, alphabet), code_length.count_symbols(symbols + LARGEST, alphabet), decoded)

    def _train(self, step_scale):
        """Per layer, keys then values: probabilities of the anchors' and of the differences' symbols."""
        tables = {}
        for i in range(self._layers):
            for k in range(2):
                counts = [self._code_tensor(kv[i][k], self._step(i, k, step_scale))[:2] for kv in self._calibration]
                tables[i, k] = [code_length.trained_probabilities(sum(c[part] for c in counts)) for part in range(2)]
        return tables

    def code(self, kv, step_scale):
        """kv: [(key, value)] per layer, [tokens, heads, head_size] -> (Bits, decoded kv)."""
        if step_scale not in self._tables:
            self._tables[step_scale] = self._train(step_scale)
        spent, out = Bits(), []
        for i, layer in enumerate(kv):
            pair = []
            for k, tensor in enumerate(layer):
                *counts, decoded = self._code_tensor(tensor, self._step(i, k, step_scale))
                payload = sum(code_length.ideal_bits(c, t).sum() for c, t in zip(counts, self._tables[step_scale][i, k]))
                spent.add(Bits(tensor.size, payload=payload, scales=len(anchor_tokens(len(tensor))[0]) * SCALE_BITS))
                pair.append(decoded.reshape(tensor.shape).astype(np.float32))
            out.append(tuple(pair))
        return spent, out

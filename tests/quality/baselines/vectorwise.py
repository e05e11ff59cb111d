"""Uniform quantisation with one scale per token, layer and key or value vector (CacheGen's "default quantization").

No entropy coding: `bits` a value and a scale of 16 bits a vector.
"""
import numpy as np

from side_information import SCALE_BITS, Bits


def quantise(flat, largest):
    """flat [tokens, channels] -> (symbols -largest..largest, scale [tokens, 1]): a token's largest magnitude becomes `largest`."""
    scale = np.abs(flat).max(axis=1, keepdims=True)
    scale[scale == 0] = 1
    return np.round(flat * (largest / scale)), scale


def code(kv, bits):
    """kv: [(key, value)] per layer, [tokens, heads, head_size] -> (Bits, decoded kv)."""
    largest = 2 ** (bits - 1) - 1
    spent, out = Bits(), []
    for layer in kv:
        decoded = []
        for tensor in layer:
            flat = tensor.reshape(len(tensor), -1)
            symbols, scale = quantise(flat, largest)
            decoded.append((symbols * (scale / largest)).reshape(tensor.shape).astype(np.float32))
            spent.add(Bits(flat.size, payload=flat.size * bits, scales=len(flat) * SCALE_BITS))
        out.append(tuple(decoded))
    return spent, out

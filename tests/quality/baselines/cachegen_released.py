"""The codec of CacheGen's released code (also LMCache's serde `cachegen`): no differences between tokens, a scale per token and layer,
31, 15 or 11 symbols, and probability tables per layer and channel made from the chunk itself and sent with it.

Per chunk of 256 tokens, layer, and keys or values:
  quantise      x -> round(x * C / largest magnitude of the token), C = bins / 2 - 1
  tables        33 cumulative frequencies of 16 bits for every channel, whatever the number of bins
  streams       one per channel, padded to bytes, and a length of 32 bits each

The configuration for a 7B model of 32 layers gives keys of layers 0-9 32 bins and 16 beyond, values of layers 0 and 1 32 bins and 16
beyond; other depths take the same shares of their layers.
"""
import numpy as np

import code_length
import vectorwise
from side_information import SCALE_BITS, Bits

CHUNK_TOKENS = 256
TABLE_BITS = 33 * 16
LENGTH_BITS = 32
KEY_SHARE = 10 / 32    # of the layers, from the first, whose keys have the finer bins
VALUE_SHARE = 2 / 32

# name -> (bins of the first layers, bins of the others)
SETTINGS = {"finest": (32, 32), "default": (32, 16), "coarsest": (16, 12)}


def bins_of(setting, layer, layers, is_value):
    first, rest = SETTINGS[setting]
    return first if layer < round(layers * (VALUE_SHARE if is_value else KEY_SHARE)) else rest


def _code_chunk(flat, bins):
    """flat [tokens, channels] of one chunk -> (Bits, decoded)."""
    largest = bins // 2 - 1
    symbols, scale = vectorwise.quantise(flat, largest)
    counts = code_length.count_symbols(symbols + largest, 32)
    bits = code_length.ideal_bits(counts, code_length.counted_frequencies(counts) / 65536)
    channels = flat.shape[1]
    return Bits(flat.size, payload=(np.ceil(bits / 8) * 8).sum(), tables=channels * (TABLE_BITS + LENGTH_BITS),
                scales=len(flat) * SCALE_BITS), symbols * (scale / largest)


def code(kv, setting):
    """kv: [(key, value)] per layer, [tokens, heads, head_size] -> (Bits, decoded kv)."""
    spent, out = Bits(), []
    for i, layer in enumerate(kv):
        decoded = []
        for is_value, tensor in enumerate(layer):
            flat = tensor.reshape(len(tensor), -1)
            chunks = []
            for begin in range(0, len(flat), CHUNK_TOKENS):
                bits, chunk = _code_chunk(flat[begin:begin + CHUNK_TOKENS], bins_of(setting, i, len(kv), is_value))
                spent.add(bits)
                chunks.append(chunk)
            decoded.append(np.concatenate(chunks).reshape(tensor.shape).astype(np.float32))
        out.append(tuple(decoded))
    return spent, out

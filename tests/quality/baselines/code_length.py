"""What an arithmetic coder would write, in bits, without writing it.

An arithmetic coder with 16-bit probabilities stays within a few bits a stream of the ideal length, the sum of -log2 of the
probabilities that its tables give to the symbols.  The baselines are charged that ideal length: it favours them, and so leaves
nothing to argue about how well their coder was rebuilt.
"""
import numpy as np


def count_symbols(symbols, alphabet):
    """symbols [tokens, channels] of 0..alphabet-1 -> counts [channels, alphabet]."""
    channels = symbols.shape[1]
    rows = symbols.astype(np.int64) + np.arange(channels)[None, :] * alphabet
    return np.bincount(rows.ravel(), minlength=channels * alphabet).reshape(channels, alphabet)


def counted_frequencies(counts, precision=16):
    """Tables made from the symbols that they will code, as CacheGen's released code makes them: [channels, alphabet] integers that
    sum to 2^precision.  The cumulative shares are scaled to 2^precision less one slot a symbol, rounded, and a slot a symbol is added,
    so that every symbol keeps a frequency of 1 or more."""
    channels, alphabet = counts.shape
    shares = np.concatenate([np.zeros((channels, 1)), np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)], axis=1)
    cumulative = np.round(shares * (2 ** precision - alphabet)).astype(np.int64) + np.arange(alphabet + 1)
    return np.diff(cumulative, axis=1)


def trained_probabilities(counts, pooled_weight=32.0, uniform_weight=0.01):
    """Tables for other symbols than those counted: [channels, alphabet].  A channel's counts, and as prior the distribution of all
    channels (worth pooled_weight symbols), which itself has uniform_weight symbols of everything."""
    pooled = counts.sum(axis=0) + uniform_weight
    weights = counts + pooled_weight * pooled / pooled.sum()
    return weights / weights.sum(axis=1, keepdims=True)


def ideal_bits(counts, probabilities):
    """Bits per channel of symbols counted as [channels, alphabet] under probabilities of the same shape."""
    return -(counts * np.log2(probabilities)).sum(axis=1)

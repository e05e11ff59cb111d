"""Pins the arithmetic of the baselines and of the curve, with figures worked out by hand."""
import math
import unittest

import numpy as np

import cachegen_paper
import cachegen_released
import code_length
import promises
import rate_curve
import vectorwise


def one_layer(flat, heads=1):
    """A kv of one layer whose keys and values are flat [tokens, channels]."""
    tensor = np.asarray(flat, np.float32).reshape(len(flat), heads, -1)
    return [(tensor, tensor.copy())]


class CodeLength(unittest.TestCase):
    def test_counts_by_channel(self):
        counts = code_length.count_symbols(np.array([[0, 2], [1, 2], [0, 0]]), 3)
        self.assertEqual(counts.tolist(), [[2, 1, 0], [1, 0, 2]])

    def test_counted_frequencies_fill_the_scale_and_keep_every_symbol(self):
        frequency = code_length.counted_frequencies(np.array([[3, 1, 0, 0], [0, 0, 0, 4]]), precision=8)
        # 252 slots by share, one more for each of the four symbols.
        self.assertEqual(frequency.tolist(), [[190, 64, 1, 1], [1, 1, 1, 253]])

    def test_ideal_bits_are_the_entropy(self):
        counts = np.array([[4, 2, 1, 1]])
        self.assertAlmostEqual(code_length.ideal_bits(counts, counts / 8)[0], 4 * 1 + 2 * 2 + 3 + 3)

    def test_trained_tables_lean_on_the_pool(self):
        table = code_length.trained_probabilities(np.array([[96, 0], [0, 32]]), pooled_weight=32, uniform_weight=0)
        # The pool is (3/4, 1/4), worth 32 symbols.
        self.assertTrue(np.allclose(table, [[(96 + 24) / 128, 8 / 128], [24 / 64, (32 + 8) / 64]]))


class Vectorwise(unittest.TestCase):
    def test_largest_magnitude_is_kept_and_bits_are_counted(self):
        spent, out = vectorwise.code(one_layer([[1.0, -7.0, 0.4], [0, 0, 0]]), 4)
        self.assertTrue(np.allclose(out[0][0].reshape(2, 3), [[1, -7, 0], [0, 0, 0]]))
        self.assertEqual(spent.per_value(), (4.0, 0.0, 16 * 4 / 12))


class Released(unittest.TestCase):
    def test_bins_by_layer(self):
        keys = [cachegen_released.bins_of("default", i, 32, False) for i in range(32)]
        values = [cachegen_released.bins_of("default", i, 32, True) for i in range(32)]
        self.assertEqual(keys, [32] * 10 + [16] * 22)
        self.assertEqual(values, [32] * 2 + [16] * 30)

    def test_counts_tables_lengths_and_padded_streams(self):
        flat = np.tile([[15.0, -15.0]], (300, 1))  # constant channels: next to no payload
        spent, out = cachegen_released.code(one_layer(flat), "finest")
        self.assertTrue(np.array_equal(out[0][0].reshape(300, 2), flat))
        # Two chunks, keys and values, two channels each: 8 tables of 33 x 16 bits with a length of 32.
        self.assertEqual(spent.tables, 8 * (33 * 16 + 32))
        self.assertEqual(spent.scales, 2 * 300 * 16)
        # 256 or 44 symbols of probability (65504 + 1) / 65536 cost a fraction of a bit: one byte a stream.
        self.assertEqual(spent.payload, 8 * 8)

    def test_error_is_within_half_a_step(self):
        flat = np.random.default_rng(7).normal(size=(64, 8))
        _, out = cachegen_released.code(one_layer(flat), "coarsest")
        step = np.abs(flat).max(axis=1, keepdims=True) / 5  # 12 bins: a model of one layer has no finer first ones
        self.assertLessEqual((np.abs(out[0][0].reshape(64, 8) - flat) / step).max(), 0.5 + 1e-5)


class Paper(unittest.TestCase):
    def test_anchors_start_anew_with_every_chunk(self):
        anchors, group = cachegen_paper.anchor_tokens(270)
        self.assertEqual(anchors.tolist(), [*range(0, 256, 10), 256, 266])
        self.assertEqual([group[9], group[10], group[255], group[256], group[269]], [0, 1, 25, 26, 27])

    def test_thirds(self):
        self.assertEqual([cachegen_paper.third_of(i, 12) for i in range(12)], [0.5] * 4 + [1.0] * 4 + [1.5] * 4)

    def test_differences_are_to_the_decoded_anchor_in_steps_of_the_deviation(self):
        # One channel of +-1: deviation 1, step 0.25 x 0.5; the anchor is its own scale and exact.
        flat = np.tile([[1.0], [-1.0]], (10, 1))
        codec = cachegen_paper.Codec([one_layer(flat)])
        spent, out = codec.code(one_layer(flat + 0.05), 0.25)
        # Anchor 1.05; differences 0 and -2 = -16 steps.
        self.assertTrue(np.allclose(out[0][0].ravel(), flat.ravel() + 0.05))
        self.assertEqual(spent.scales, 2 * 2 * 16)
        self.assertEqual(spent.values, 40)

    def test_clamps_a_difference_beyond_the_alphabet(self):
        codec = cachegen_paper.Codec([one_layer([[1.0], [-1.0]] * 5)])
        _, out = codec.code(one_layer([[1.0]] + [[1000.0]] * 9), 0.25)
        self.assertAlmostEqual(float(out[0][0][1, 0, 0]), 1 + 127 * 0.125, places=4)


class Curve(unittest.TestCase):
    POINTS = [(1.0, 0.1), (2.0, 0.01), (3.0, 0.02), (4.0, 0.001)]

    def test_interpolates_bits_over_log_kl(self):
        bits, bound = rate_curve.bits_at(self.POINTS, 0.1 / math.sqrt(10))
        self.assertAlmostEqual(bits, 1.5)
        self.assertEqual(bound, "")

    def test_ends_of_the_curve(self):
        self.assertEqual(rate_curve.bits_at(self.POINTS, 0.5), (1.0, "<="))
        self.assertEqual(rate_curve.bits_at(self.POINTS, 0.0001), (None, ""))

    def test_takes_the_cheapest_of_several_crossings(self):
        self.assertAlmostEqual(rate_curve.bits_at(self.POINTS, 0.015)[0], 1 + math.log10(0.1 / 0.015))

    def test_promises_break_where_rates_do(self):
        def ours(group, scale):
            return [{"codec": "kvstream", "group": group, "level": i, "bits_per_value": scale * bits, "kl_prose": kl, "kl_answers": kl,
                     "nll_change": 0.0, "accuracy": 0.93, "accuracy_original": 0.93} for i, (bits, kl) in enumerate([(0.3, 0.01), (1.0, 0.00001)])]

        def theirs(codec, label, bits, kl):
            return {"codec": codec, "label": label, "payload": bits, "tables": 2.0, "bits_per_value": bits + 2, "kl_prose": kl, "kl_answers": kl}
        others = [theirs("released", "released, default", 3.2, 0.01), theirs("vector", "vector-wise, 8 bits", 8, 0.00001),
                  theirs("paper", "a", 3.0, 0.02), theirs("paper", "b", 4.0, 0.005)]
        self.assertTrue(all(kept for _, kept in promises.check(ours("layer", 1) + ours("model", 1) + others)))
        broken = [text for text, kept in promises.check(ours("layer", 1) + ours("model", 2.5) + others) if not kept]
        self.assertEqual(len(broken), 6)  # payload, paper's form, payload and tables, for both KLs
        self.assertTrue(all(text.startswith("model") for text in broken))


if __name__ == "__main__":
    unittest.main()

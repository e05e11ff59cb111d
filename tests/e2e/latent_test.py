"""A model with latent attention (DeepSeek's shape: 512 + 64 channels, YaRN) through profile, put, load and decode of the real binaries."""
import json
import unittest

import numpy as np

import harness
from harness import R, ctl

LAYERS, LATENT, ROTATED, TOKENS = 2, 512, 64, 600


class LatentTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.rng = np.random.default_rng(5)
        self.mixing = (self.rng.normal(0, 1, (LAYERS, 48, LATENT + ROTATED)) / np.sqrt(48)).astype(np.float32)
        self.config = self.path("config.json")
        with open(self.config, "w") as f:
            json.dump({"model_type": "deepseek_v3", "num_hidden_layers": LAYERS, "num_attention_heads": 128, "num_key_value_heads": 128,
                       "hidden_size": 7168, "kv_lora_rank": LATENT, "qk_rope_head_dim": ROTATED, "qk_nope_head_dim": 128, "v_head_dim": 128,
                       "torch_dtype": "bfloat16", "max_position_embeddings": 163840, "rope_theta": 10000,
                       "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
                                        "original_max_position_embeddings": 4096}}, f)

    def context(self, name, tokens):
        """A fresh context; its rotated part is far larger than the latent, as in real ones. Rotation is left out: it costs bits only."""
        tensors = {}
        for layer in range(LAYERS):
            x = self.rng.normal(0, 1, (tokens, 48)).astype(np.float32) @ self.mixing[layer] + 0.05 * self.rng.normal(0, 1, (tokens, LATENT + ROTATED))
            x[:, LATENT:] *= 8
            tensors[f"layers.{layer}.latent"] = ("BF16", x.astype(np.float32).reshape(tokens, 1, LATENT + ROTATED))
        tensors["tokens"] = ("I32", self.rng.integers(0, 1000, tokens).astype(np.int32))
        path = self.path(name + ".safetensors")
        R.write_safetensors(path, tensors, {"format": "kv-cache"})
        return path

    def test_latents_come_back_as_a_local_decode_has_them(self):
        context, profile, kvs = self.context("context", TOKENS), self.path("m.kvprofile"), self.path("c.kvs")
        built = ctl("profile", "build", "--config", self.config, "--kv", self.context("a", 1200), self.context("b", 1200), "--out", profile)
        self.assertEqual([built[k] for k in ("planes", "kv_heads", "head_size", "values_per_token")], [1, 1, 576, 2 * 576])
        self.assertEqual(built["warnings"], [])
        ctl("encode", "--profile", profile, "--in", context, "--out", kvs)
        with harness.Daemon(self.path("data")) as daemon:
            put = ctl("put", "--server", daemon.address, "--profile", profile, "--in", context)
            self.assertEqual(put["chunks_stored"], 3)
            for level in range(4):
                loaded, decoded = self.path(f"loaded-{level}.safetensors"), self.path(f"decoded-{level}.safetensors")
                ctl("load", "--server", daemon.address, "--profile", profile, "--tokens-from", context, "--policy", "fixed", "--level", level,
                    "--out", loaded)
                ctl("decode", "--profile", profile, "--in", kvs, "--level", level, "--out", decoded)
                self.assertTrue(harness.same_kv(loaded, decoded), f"level {level}")
        names = {f"layers.{layer}.latent" for layer in range(LAYERS)}
        original, finest = harness.bits(context), harness.bits(self.path("loaded-3.safetensors"))
        self.assertEqual(set(finest), names)
        for name in names:
            a, b = ((x[name].astype(np.uint32) << 16).view(np.float32) for x in (original, finest))
            # Sinks are exact; the finest step is 0.04 of each part's own scale.
            self.assertTrue(np.array_equal(a[:4], b[:4]))
            for part in (slice(0, LATENT), slice(LATENT, None)):
                error = np.sqrt(np.mean((a[..., part] - b[..., part]) ** 2) / np.mean(a[..., part] ** 2))
                self.assertLess(error, 0.03, name)
                self.assertGreater(error, 0)


if __name__ == "__main__":
    unittest.main()

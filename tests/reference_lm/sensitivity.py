#!/usr/bin/python3
"""How much the reference model minds errors of its cached keys and values, for `kvstreamctl profile build --sensitivity`.

    sensitivity.py --out FILE [CONTEXT.json ...]         default: the contexts under calibration/

FILE   layers.{i}.key_sensitivity, layers.{i}.value_sensitivity [kv_heads, head_size] F32: the mean square of the gradient of the
       log-likelihood with respect to a cached value (keys after RoPE)

For small independent errors e of the cache the expected KL divergence of the model's next-token distribution is 1/2 sum F e^2, F being
the diagonal of the Fisher information: the expected square of the gradient of log p(y) over predicted tokens y drawn from the model
itself. Gradients of several predictions are summed with random signs before they are squared, which leaves the expectation as it
is and takes one backward pass for all of them.

The model reads on from a context as it would in use: prose from its first 1280 tokens, a list of facts from its first 1400, after
which some of its own entries are asked again.

With PyTorch the same is a few lines: keep the cache as leaves that require gradients, run the model on the tokens after it, draw
y from the logits, call backward on (signs * log_softmax(logits)[y]).sum(), and accumulate the squares of the leaves' gradients.
calibration/sensitivity.safetensors is the committed result; `sensitivity.py --check` compares the gradients with finite differences.
"""
import argparse
import glob
import os
import random

import numpy as np

import dump_kv
import reference_lm as R

HERE = os.path.dirname(os.path.abspath(__file__))
DRAWS = 8
SINKS = 4  # of a context's tokens, which the codec keeps exact
SEED = 5


def reading_of(lm, context):
    """(tokens, how many of them are the cached context); the model reads the others."""
    tokens = context["tokens"]
    if context["kind"] == "prose":
        return tokens, 1280
    known = lm.decode(tokens[:1380])
    entries = [line for line in context["text"].split("\n")[2:] if line in known and len(line) > 6]
    random.Random(3).shuffle(entries)
    return tokens[:1400] + lm.encode("\n" + "\n".join(entries[:14]) + "\n"), 1400


def _norm_backward(x, weight, eps, out):
    """Gradient with respect to x of RMSNorm(x) * weight, given that of its result."""
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    out = out * weight
    return out * r - x * r ** 3 * np.mean(out * x, axis=-1, keepdims=True)


class Reader:
    """One forward pass over the tokens behind a cache, and as many backward passes as wanted."""

    def __init__(self, lm, tokens, kv):
        """kv: cache of what stands in front of tokens, [(key, value)] per layer of [cached, G, hd]."""
        self.lm, self.cached = lm, kv[0][0].shape[0]
        self.positions = self.cached + np.arange(len(tokens))
        hidden = np.triu(np.ones((len(tokens), len(tokens)), bool), 1)
        w, self.saved = lm.weights, []
        x = w["model.embed_tokens.weight"][np.asarray(tokens)]
        for i in range(lm.num_layers):
            y = R._rms_norm(x, self._w(i, "input_layernorm"), lm.eps)
            q, k, v = ((y @ self._w(i, f"self_attn.{n}_proj").T).reshape(len(tokens), -1, lm.head_dim) for n in "qkv")
            q, k = lm._rotate(q, self.positions), lm._rotate(k, self.positions)
            key, value = np.concatenate([kv[i][0], k]), np.concatenate([kv[i][1], v])
            shares, out = [], np.empty_like(q)
            for head in range(lm.num_heads):
                g = self._kv_head(head)
                scores = q[:, head] @ key[:, g].T / np.float32(np.sqrt(lm.head_dim))
                scores[:, self.cached:][hidden] = -np.inf
                shares.append(R._softmax_rows(scores))
                out[:, head] = shares[-1] @ value[:, g]
            middle = x + out.reshape(len(tokens), -1) @ self._w(i, "self_attn.o_proj").T
            z = R._rms_norm(middle, self._w(i, "post_attention_layernorm"), lm.eps)
            gate, up = z @ self._w(i, "mlp.gate_proj").T, z @ self._w(i, "mlp.up_proj").T
            sigmoid = 1 / (1 + np.exp(-gate))
            self.saved.append((x, q, key, value, shares, middle, gate, up, sigmoid))
            x = middle + (gate * sigmoid * up) @ self._w(i, "mlp.down_proj").T
        self.last = x
        logits = R._rms_norm(x, w["model.norm.weight"], lm.eps) @ w["model.embed_tokens.weight"].T
        self.probabilities = R._softmax_rows(logits.astype(np.float64))

    def _w(self, layer, name):
        return self.lm.weights[f"model.layers.{layer}.{name}.weight"]

    def _kv_head(self, head):
        return head // (self.lm.num_heads // self.lm.num_kv_heads)

    def draw(self, rng):
        """A token of every position, from the model's own distribution."""
        cumulative = self.probabilities.cumsum(axis=1)
        return (cumulative < rng.random((len(cumulative), 1)) * cumulative[:, -1:]).sum(axis=1)

    def gradients(self, drawn, signs):
        """Gradient of sum(signs * log p(drawn)) with respect to the cache: [(key, value)] per layer, [cached, G, hd]."""
        lm, count = self.lm, len(drawn)
        logits = -self.probabilities * signs[:, None]
        logits[np.arange(count), drawn] += signs
        dx = _norm_backward(self.last, lm.weights["model.norm.weight"], lm.eps, logits.astype(np.float32) @ lm.weights["model.embed_tokens.weight"])
        out = [None] * lm.num_layers
        for i in reversed(range(lm.num_layers)):
            x, q, key, value, shares, middle, gate, up, sigmoid = self.saved[i]
            inner = dx @ self._w(i, "mlp.down_proj")
            dz = (inner * up * sigmoid * (1 + gate * (1 - sigmoid))) @ self._w(i, "mlp.gate_proj") + (
                inner * gate * sigmoid) @ self._w(i, "mlp.up_proj")
            dmiddle = dx + _norm_backward(middle, self._w(i, "post_attention_layernorm"), lm.eps, dz)
            dout = (dmiddle @ self._w(i, "self_attn.o_proj")).reshape(q.shape)
            dkey, dvalue, dq = np.zeros_like(key), np.zeros_like(value), np.empty_like(q)
            for head, share in enumerate(shares):
                g = self._kv_head(head)
                dvalue[:, g] += share.T @ dout[:, head]
                dshare = dout[:, head] @ value[:, g].T
                dscores = share * (dshare - (dshare * share).sum(axis=1, keepdims=True)) / np.float32(np.sqrt(lm.head_dim))
                dq[:, head] = dscores @ key[:, g]
                dkey[:, g] += dscores.T @ q[:, head]
            out[i] = dkey[:self.cached], dvalue[:self.cached]
            own = (lm._rotate(dq, -self.positions), lm._rotate(dkey[self.cached:], -self.positions), dvalue[self.cached:])
            dy = sum(d.reshape(count, -1) @ self._w(i, f"self_attn.{n}_proj") for d, n in zip(own, "qkv"))
            dx = dmiddle + _norm_backward(x, self._w(i, "input_layernorm"), lm.eps, dy)
        return out


def measure(lm, contexts, progress=None):
    """[layers, keys and values, kv_heads, head_size] float64; every kind of context counts alike, whatever its own sum."""
    rng, by_kind = np.random.default_rng(SEED), {}
    for context in contexts:
        if progress:
            progress(context["name"])
        tokens, cached = reading_of(lm, context)
        _, kv = lm.prefill(tokens[:cached], last_logits_only=True)
        reader = Reader(lm, tokens[cached:], kv)
        for _ in range(DRAWS):
            gradients = reader.gradients(reader.draw(rng), rng.choice([-1.0, 1.0], len(tokens) - cached))
            squares = np.array([[(g[SINKS:].astype(np.float64) ** 2).mean(axis=0) for g in pair] for pair in gradients])
            by_kind[context["kind"]] = by_kind.get(context["kind"], 0) + squares / (len(tokens) - cached)
    return sum(squares / squares.sum() for squares in by_kind.values()) / len(by_kind)


def check(lm):
    """Fails unless gradients agree with central differences along random directions."""
    context = dump_kv.load_context(os.path.join(HERE, "calibration", "prose-git.json"))
    tokens, cached, rng = context["tokens"][:240], 200, np.random.default_rng(1)
    _, kv = lm.prefill(tokens[:cached])
    reader = Reader(lm, tokens[cached:], kv)
    drawn, signs = reader.draw(rng), rng.choice([-1.0, 1.0], len(tokens) - cached)
    gradients = reader.gradients(drawn, signs)

    def value(moved):
        logits, _ = lm.prefill(tokens[cached:], moved)
        return -(R.token_nll(logits, drawn) * signs).sum()
    for layer, which in ((0, 0), (3, 1), (6, 0), (8, 1), (11, 0)):
        direction = rng.normal(size=kv[layer][which].shape).astype(np.float32)
        direction *= 0.02 * np.sign(gradients[layer][which]) * np.sign(direction)  # every term counts, so that rounding does not
        ends = []
        for sign in (1, -1):
            moved = [list(pair) for pair in kv]
            moved[layer][which] = moved[layer][which] + sign * direction
            ends.append(value(moved))
        measured, expected = (ends[0] - ends[1]) / 2, float((gradients[layer][which] * direction).sum())
        print(f"layer {layer} {'value' if which else 'key'}: difference {measured:.5f}, gradient {expected:.5f}")
        if abs(measured - expected) > 0.02 * abs(expected):
            raise SystemExit("sensitivity: gradients are wrong")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contexts", nargs="*", metavar="CONTEXT.json", help="default: all of calibration/")
    parser.add_argument("--out", help="file to write")
    parser.add_argument("--check", action="store_true", help="compare gradients with finite differences")
    args = parser.parse_args()
    lm = R.load(HERE)
    if args.check:
        check(lm)
    if args.out:
        paths = args.contexts or sorted(glob.glob(os.path.join(HERE, "calibration", "*.json")))
        found = measure(lm, [dump_kv.load_context(p) for p in paths], progress=lambda name: print("read", name, flush=True))
        R.write_safetensors(args.out, {f"layers.{i}.{kind}_sensitivity": ("F32", found[i, k])
                                       for i in range(len(found)) for k, kind in enumerate(("key", "value"))})


if __name__ == "__main__":
    main()

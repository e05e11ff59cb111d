"""Reference language model in NumPy: a small LLaMA-architecture decoder that exposes its KV cache.

The module exists to answer one question honestly: *how much worse does a model read a context after
that context's KV cache went through a lossy codec?*  It therefore lets a caller

  1. prefill a context and take its KV cache out, layer by layer;
  2. hand a (decoded, possibly damaged) KV cache back in and run a suffix on top of it.

Conventions, used everywhere below
  T   number of tokens of a sequence, S number of cached tokens in front of it
  D   model width (hidden_size)          H   query heads            G   KV heads (grouped-query attention)
  hd  head dimension                     V   vocabulary size        L   layers
  All arithmetic is float32.  Losses are natural-log ("nats") unless a name says bits.

KV cache layout: a list with one (key, value) pair per layer, each float32 of shape [tokens, G, hd].
Keys are stored AFTER rotary position embedding, which is what serving engines keep in their caches;
a cache is thus valid only at the positions at which it was computed.

Only NumPy is needed.  Files are Hugging Face compatible: config.json (LlamaForCausalLM), model.safetensors,
tokenizer.json (byte-level BPE).

    lm = load("reference_lm")
    ids = lm.encode("The kernel ", bos=True)
    logits, kv = lm.prefill(ids)
    more = lm.encode("is")
    logits2, kv2 = lm.prefill(more, past_kv=kv)        # continues at position len(ids)
"""
import json
import os
import re

import numpy as np

# ----------------------------------------------------------------------------- safetensors

_DTYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "BF16": np.uint16}


def float_to_bf16_bits(x):
    """float32 array -> uint16 array holding bfloat16 bit patterns, rounded to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bf16_bits_to_float(bits):
    """uint16 bfloat16 bit patterns -> float32 array (exact)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_safetensors(path):
    """Read a safetensors file.  Returns (tensors, metadata); F16/BF16 tensors come back as float32."""
    with open(path, "rb") as f:
        header_length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(header_length))
        data = f.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[begin:end], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = bf16_bits_to_float(array)
        elif entry["dtype"] == "F16":
            array = array.astype(np.float32)
        tensors[name] = array
    return tensors, metadata


def write_safetensors(path, tensors, metadata=None):
    """Write {name: (dtype string, array)}; float arrays are converted to the dtype named (F32, F16, BF16, I32)."""
    header, blobs, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = {k: str(v) for k, v in metadata.items()}
    for name, (dtype, array) in tensors.items():
        raw = float_to_bf16_bits(array) if dtype == "BF16" else np.ascontiguousarray(array, _DTYPES[dtype])
        blob = raw.astype(raw.dtype.newbyteorder("<")).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little"))
        f.write(text)
        for blob in blobs:
            f.write(blob)


def save_kv(path, kv, tokens=None, dtype="F16", model="reference_lm"):
    """Save a KV cache: tensors layers.{i}.key and layers.{i}.value of shape [tokens, G, hd], plus "tokens" (I32)."""
    tensors = {}
    for i, (key, value) in enumerate(kv):
        tensors[f"layers.{i}.key"] = (dtype, key)
        tensors[f"layers.{i}.value"] = (dtype, value)
    if tokens is not None:
        tensors["tokens"] = ("I32", np.asarray(tokens, np.int32))
    count, heads, head_dim = kv[0][0].shape
    write_safetensors(path, tensors, {"format": "kv-cache", "model": model, "num_layers": len(kv), "num_tokens": count,
                                      "num_kv_heads": heads, "head_dim": head_dim, "key_state": "post-rope"})


def load_kv(path):
    """Load a KV cache.  Returns (kv, tokens or None); values are float32 whatever the stored dtype."""
    tensors, _ = read_safetensors(path)
    layers = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith("layers."))
    kv = [(tensors[f"layers.{i}.key"], tensors[f"layers.{i}.value"]) for i in range(layers)]
    return kv, tensors.get("tokens")


def slice_kv(kv, begin, end):
    """The cache of tokens begin..end-1."""
    return [(key[begin:end], value[begin:end]) for key, value in kv]


def concat_kv(first, second):
    """Cache of a sequence from the caches of its two consecutive parts."""
    return [(np.concatenate([a, c]), np.concatenate([b, d])) for (a, b), (c, d) in zip(first, second)]


# ----------------------------------------------------------------------------- tokenizer


def _byte_to_char():
    """GPT-2's printable stand-in character for each byte value."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {b: chr(b) for b in printable}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


class Tokenizer:
    """Byte-level BPE read from a Hugging Face tokenizer.json.  Lossless on any UTF-8 text."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            spec = json.load(f)
        self.vocab = spec["model"]["vocab"]
        self.rank = {tuple(m.split(" ")): i for i, m in enumerate(spec["model"]["merges"])}
        self.splitter = re.compile(spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"])
        self.char_of_byte = _byte_to_char()
        self.byte_of_char = {c: b for b, c in self.char_of_byte.items()}
        self.piece_of_id = {i: p for p, i in self.vocab.items()}
        self.bos_id, self.eos_id = self.vocab["<s>"], self.vocab["</s>"]
        self._cache = {}

    def _encode_word(self, word):
        if word in self._cache:
            return self._cache[word]
        pieces = [self.char_of_byte[b] for b in word.encode("utf-8")]
        while len(pieces) > 1:
            best = min(zip(pieces, pieces[1:]), key=lambda pair: self.rank.get(pair, 1 << 30))
            if best not in self.rank:
                break
            merged, i = [], 0
            while i < len(pieces):
                if i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == best:
                    merged.append(pieces[i] + pieces[i + 1])
                    i += 2
                else:
                    merged.append(pieces[i])
                    i += 1
            pieces = merged
        ids = [self.vocab[p] for p in pieces]
        self._cache[word] = ids
        return ids

    def encode(self, text, bos=False):
        """Text -> list of token ids; bos=True puts the start-of-document token in front."""
        ids = [self.bos_id] if bos else []
        for word in self.splitter.findall(text):
            ids += self._encode_word(word)
        return ids

    def decode_bytes(self, ids):
        """Token ids -> the exact bytes they stand for (special tokens stand for none)."""
        return b"".join(bytes(self.byte_of_char[c] for c in self.piece_of_id[int(i)])
                        for i in ids if int(i) not in (self.bos_id, self.eos_id))

    def decode(self, ids):
        return self.decode_bytes(ids).decode("utf-8", "replace")


# ----------------------------------------------------------------------------- model


def _rms_norm(x, weight, eps):
    """x [T, D] divided by its root mean square over D, times weight [D]."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def _softmax_rows(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


class ReferenceLM:
    """LLaMA decoder: RMSNorm, rotary embedding (half-split convention), grouped-query attention, SwiGLU, tied output."""

    QUERY_BLOCK = 256  # queries attended at once; bounds the score matrix to H * QUERY_BLOCK * (S + T) floats

    def __init__(self, directory):
        with open(os.path.join(directory, "config.json")) as f:
            c = json.load(f)
        self.config = c
        self.num_layers = c["num_hidden_layers"]
        self.num_heads = c["num_attention_heads"]
        self.num_kv_heads = c["num_key_value_heads"]
        self.head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        self.max_positions = c["max_position_embeddings"]
        self.eps = c["rms_norm_eps"]
        self.rope_theta = c["rope_theta"]
        self.weights, _ = read_safetensors(os.path.join(directory, "model.safetensors"))
        self.tokenizer = Tokenizer(os.path.join(directory, "tokenizer.json"))
        self.encode, self.decode = self.tokenizer.encode, self.tokenizer.decode

    def _rotate(self, x, positions):
        """Rotary embedding of x [T, heads, hd] at absolute positions [T]: channel i is paired with channel i + hd/2."""
        half = self.head_dim // 2
        frequency = self.rope_theta ** (-np.arange(half, dtype=np.float64) * 2 / self.head_dim)  # radians per token
        angle = positions[:, None].astype(np.float64) * frequency
        cos, sin = np.cos(angle).astype(np.float32)[:, None], np.sin(angle).astype(np.float32)[:, None]
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def _attend(self, query, key, value, past):
        """query [T, H, hd] against key/value [S+T, G, hd]; row t sees cached tokens and tokens 0..t.  Returns [T, H*hd]."""
        tokens, group = query.shape[0], self.num_heads // self.num_kv_heads
        out = np.empty((tokens, self.num_heads, self.head_dim), np.float32)
        key_t = np.ascontiguousarray(key.transpose(1, 2, 0))  # [G, hd, S+T]
        value_t = np.ascontiguousarray(value.transpose(1, 0, 2))  # [G, S+T, hd]
        scale = np.float32(1 / np.sqrt(self.head_dim))
        for begin in range(0, tokens, self.QUERY_BLOCK):
            end = min(begin + self.QUERY_BLOCK, tokens)
            visible = past + end
            hidden = np.arange(visible)[None, :] > past + np.arange(begin, end)[:, None]
            for head in range(self.num_heads):
                g = head // group
                scores = (query[begin:end, head] * scale) @ key_t[g, :, :visible]
                scores[hidden] = -np.inf
                out[begin:end, head] = _softmax_rows(scores) @ value_t[g, :visible]
        return out.reshape(tokens, -1)

    def prefill(self, tokens, past_kv=None, start=None, queries=None, last_logits_only=False):
        """Run tokens, optionally on top of a KV cache.

        tokens    T token ids
        past_kv   cache of the S tokens in front of them (None: none)
        start     absolute position of tokens[0]; default S
        queries   a list: every layer's rotated queries [T, H, hd] are appended to it (None: nobody asks)
        last_logits_only  True: only the last row of logits is computed and returned, [1, V], as a server would
        Returns (logits, kv): logits float32 [T, V], row t predicts the token after tokens[t];
        kv is the cache of THESE T tokens only (join with concat_kv(past_kv, kv)).
        """
        w, eps = self.weights, self.eps
        ids = np.asarray(tokens, np.int64)
        past = 0 if past_kv is None else past_kv[0][0].shape[0]
        positions = np.arange(len(ids)) + (past if start is None else start)
        x = w["model.embed_tokens.weight"][ids]
        kv = []
        for i in range(self.num_layers):
            p = f"model.layers.{i}."
            y = _rms_norm(x, w[p + "input_layernorm.weight"], eps)
            query = (y @ w[p + "self_attn.q_proj.weight"].T).reshape(len(ids), self.num_heads, self.head_dim)
            key = (y @ w[p + "self_attn.k_proj.weight"].T).reshape(len(ids), self.num_kv_heads, self.head_dim)
            value = (y @ w[p + "self_attn.v_proj.weight"].T).reshape(len(ids), self.num_kv_heads, self.head_dim)
            query, key = self._rotate(query, positions), self._rotate(key, positions)
            if queries is not None:
                queries.append(query)
            kv.append((key, value))
            if past:
                key = np.concatenate([past_kv[i][0].astype(np.float32), key])
                value = np.concatenate([past_kv[i][1].astype(np.float32), value])
            x = x + self._attend(query, key, value, past) @ w[p + "self_attn.o_proj.weight"].T
            y = _rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
            gate = y @ w[p + "mlp.gate_proj.weight"].T
            up = y @ w[p + "mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
        if last_logits_only:
            x = x[-1:]
        x = _rms_norm(x, w["model.norm.weight"], eps)
        return x @ w["model.embed_tokens.weight"].T, kv

    def read_on(self, suffixes, past_kv):
        """Several continuations of one cached context, each on its own: what prefill(suffix, past_kv) gives, for all at once.

        suffixes  lists of token ids
        past_kv   cache of the context, [S, G, hd] a tensor
        Returns one float32 [len(suffix), V] of logits a suffix.
        """
        w, eps, past = self.weights, self.eps, past_kv[0][0].shape[0]
        count, length, group = len(suffixes), max(map(len, suffixes)), self.num_heads // self.num_kv_heads
        ids = np.zeros((count, length), np.int64)  # padded at the end, where no token of the suffix looks
        for row, suffix in zip(ids, suffixes):
            row[:len(suffix)] = suffix
        positions = np.tile(past + np.arange(length), count)
        hidden = np.triu(np.ones((length, length), bool), 1)
        scale = np.float32(1 / np.sqrt(self.head_dim))
        keys_t = [np.ascontiguousarray(key.transpose(1, 2, 0), np.float32) for key, _ in past_kv]
        values_1 = [np.concatenate([value, np.ones_like(value[..., :1])], axis=2).transpose(1, 0, 2).astype(np.float32, order="C") for _, value in past_kv]
        x = w["model.embed_tokens.weight"][ids.ravel()]
        for i in range(self.num_layers):
            p = f"model.layers.{i}."
            y = _rms_norm(x, w[p + "input_layernorm.weight"], eps)
            query, key, value = ((y @ w[f"{p}self_attn.{n}_proj.weight"].T).reshape(count * length, -1, self.head_dim) for n in "qkv")
            query, key = self._rotate(query, positions) * scale, self._rotate(key, positions)
            out = np.empty((count * length, self.num_heads, self.head_dim), np.float32)
            for head in range(self.num_heads):
                g, q = head // group, query[:, head]
                own_key, own_value = (a[:, g].reshape(count, length, -1) for a in (key, value))
                own = q.reshape(count, length, -1) @ own_key.transpose(0, 2, 1)
                own[:, hidden] = -np.inf
                own = own.reshape(count * length, -1)
                cached = q @ keys_t[i][g]
                top = np.maximum(cached.max(axis=1), own.max(axis=1))[:, None]
                np.exp(np.subtract(cached, top, out=cached), out=cached)
                own = np.exp(own - top)
                summed = cached @ values_1[i][g]  # the last column is the sum of the weights
                total = summed[:, -1:] + own.sum(axis=1, keepdims=True)
                out[:, head] = (summed[:, :-1] + (own.reshape(count, length, -1) @ own_value).reshape(count * length, -1)) / total
            x = x + out.reshape(count * length, -1) @ w[p + "self_attn.o_proj.weight"].T
            y = _rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
            gate = y @ w[p + "mlp.gate_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (y @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
        logits = (_rms_norm(x, w["model.norm.weight"], eps) @ w["model.embed_tokens.weight"].T).reshape(count, length, -1)
        return [logits[j, :len(suffix)] for j, suffix in enumerate(suffixes)]

    def generate(self, tokens, count, past_kv=None):
        """Greedy continuation: returns count token ids after tokens (on top of past_kv)."""
        kv, out, new = past_kv, [], list(tokens)
        for _ in range(count):
            logits, fresh = self.prefill(new, kv)
            kv = fresh if kv is None else concat_kv(kv, fresh)
            new = [int(np.argmax(logits[-1]))]
            out += new
        return out


def load(directory):
    """Load the model and tokenizer from a directory holding config.json, model.safetensors and tokenizer.json."""
    return ReferenceLM(directory)


def token_nll(logits, targets):
    """Negative log-likelihood in nats of targets [T] under logits [T, V]; returns float64 [T]."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=-1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    return log_sum - logits[np.arange(len(targets)), np.asarray(targets)]


def score_continuation(lm, kv, tokens, continuation):
    """NLL in nats of each continuation token when the context is read from kv [len(tokens)].

    The last context token is run again on top of the first len(tokens)-1 cached ones (as engines do on a full
    prefix hit), because its logits predict the first continuation token.
    """
    n = len(tokens)
    logits, _ = lm.prefill([tokens[-1]] + list(continuation[:-1]), slice_kv(kv, 0, n - 1))
    return token_nll(logits, continuation)


def score_query(lm, kv, query, answer):
    """Ask a query on top of a cached context.  Returns (exact, nll): whether greedy decoding gives exactly the
    answer tokens (teacher forcing: every answer token is the argmax), and the answer's total NLL in nats."""
    logits, _ = lm.prefill(list(query) + list(answer[:-1]), kv)
    rows = logits[len(query) - 1:]
    return bool((rows.argmax(axis=-1) == np.asarray(answer)).all()), float(token_nll(rows, answer).sum())

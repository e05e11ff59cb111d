#!/usr/bin/python3
"""Prefills contexts with the reference model and writes their KV caches as safetensors, the form that kvstreamctl reads.

    dump_kv.py --out DIR [--queries FILE] [--dtype BF16|F16] CONTEXT.json ...

DIR/<context name>.safetensors   layers.{i}.key, layers.{i}.value [tokens, kv_heads, head_size] (keys after RoPE), tokens (I32)
--queries FILE                   query statistics over all the contexts given, for `kvstreamctl profile build --queries FILE`:
                                 layers.{i}.query_rms [kv_heads, head_size] F32, the root mean square of the queries that read each KV head
--full-queries DIR               every context's queries themselves: layers.{i}.query [tokens, q_heads, head_size] F32, after RoPE
"""
import argparse
import json
import os
import sys

import numpy as np

import reference_lm as R

HERE = os.path.dirname(os.path.abspath(__file__))


def load_context(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def dump(lm, contexts, out_dir, dtype="BF16", queries_file=None, full_queries_dir=None, progress=None):
    """Writes the KV of contexts (dicts with name and tokens); returns the paths, in order.  progress(name) is called before each."""
    os.makedirs(out_dir, exist_ok=True)
    square_sums, total, paths = None, 0, []
    for context in contexts:
        if progress:
            progress(context["name"])
        queries = []
        _, kv = lm.prefill(context["tokens"], queries=queries, last_logits_only=True)
        paths.append(os.path.join(out_dir, context["name"] + ".safetensors"))
        R.save_kv(paths[-1], kv, context["tokens"], dtype)
        if full_queries_dir:
            os.makedirs(full_queries_dir, exist_ok=True)
            R.write_safetensors(os.path.join(full_queries_dir, context["name"] + ".safetensors"),
                                {f"layers.{i}.query": ("F32", q) for i, q in enumerate(queries)})
        # Sum over tokens and over the query heads that read the same KV head: [layers, kv_heads, head_size].
        squares = np.stack([(q.astype(np.float64) ** 2).reshape(len(q), lm.num_kv_heads, -1, lm.head_dim).sum(axis=(0, 2)) for q in queries])
        square_sums = squares if square_sums is None else square_sums + squares
        total += len(context["tokens"]) * (lm.num_heads // lm.num_kv_heads)
    if queries_file:
        rms = np.sqrt(square_sums / total).astype(np.float32)
        R.write_safetensors(queries_file, {f"layers.{i}.query_rms": ("F32", rms[i]) for i in range(len(rms))})
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contexts", nargs="+", metavar="CONTEXT.json")
    parser.add_argument("--model", default=HERE, help="directory of config.json, model.safetensors, tokenizer.json")
    parser.add_argument("--out", required=True, help="directory for the KV dumps")
    parser.add_argument("--queries", help="file for the query statistics")
    parser.add_argument("--full-queries", help="directory for the queries themselves")
    parser.add_argument("--dtype", choices=("BF16", "F16"), default="BF16")
    args = parser.parse_args()
    dump(R.load(args.model), [load_context(p) for p in args.contexts], args.out, args.dtype, args.queries, args.full_queries,
         progress=lambda name: print("prefill", name, file=sys.stderr))


if __name__ == "__main__":
    main()

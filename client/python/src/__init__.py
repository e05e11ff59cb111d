"""KVStream: stores the KV caches of long contexts and streams them back, adapting to the link.

    import kvstream

    profile = kvstream.Profile.load("model.kvprofile")
    client = kvstream.Client("127.0.0.1:7411")
    client.put(profile, tokens, kv, model="name@revision")
    kv, result = client.load(profile, tokens, model="name@revision", deadline_ms=500)

KV is a list with a (key, value) pair of NumPy arrays [tokens, heads, head size] for each layer, or one array
[layers, 2, tokens, heads, head size]; float16, or uint16 holding the bits of float16 or bfloat16. Keys are after RoPE.
Arrays of other libraries are taken as well (DLPack, __cuda_array_interface__), also in GPU memory for a load's `out`.
docs/client.md has the whole story.
"""

from ._kvstream import (
    Client,
    KVStreamError,
    LoadedChunk,
    LoadResult,
    LookupResult,
    PagedKv,
    Profile,
    PutResult,
    build_profile,
    chunk_ids,
    decode,
    encode,
)

__all__ = [
    "Client",
    "KVStreamError",
    "LoadResult",
    "LoadedChunk",
    "LookupResult",
    "PagedKv",
    "Profile",
    "PutResult",
    "build_profile",
    "chunk_ids",
    "decode",
    "encode",
]

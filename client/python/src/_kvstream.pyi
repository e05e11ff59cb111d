import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypedDict, Union

import numpy as np
import numpy.typing as npt

# float16 or uint16 (the bits of float16 or bfloat16); a bfloat16 extension type is taken as well.
KvArray = npt.NDArray[Any]
# A (key, value) pair of arrays [tokens, heads, head size] for each layer, or one array [layers, 2, tokens, heads, head size].
# Of a model with latents: an array [tokens, 1, size] for each layer, or one array [layers, tokens, 1, size].
# Other libraries' arrays in host memory are taken by DLPack.
HostArray = Union[KvArray, Dlpack]
Kv = Union[HostArray, Sequence[tuple[HostArray, HostArray]], Sequence[HostArray]]
# The same shapes in GPU memory.
DeviceArray = Union[Dlpack, CudaArray]
DeviceKv = Union[DeviceArray, Sequence[tuple[DeviceArray, DeviceArray]], Sequence[DeviceArray], PagedKv]
Tokens = Union[Sequence[int], npt.NDArray[np.integer[Any]]]
Policy = Literal["default", "deadline", "fastest", "cachegen", "fixed", "recompute"]
Ability = Literal["none", "suffix", "any", "front"]

PagedLayout = Literal["plane_major_nhd", "plane_major_hnd", "block_major_nhd", "block_major_hnd", "latent"]

class Dlpack(Protocol):
    def __dlpack__(self, *, stream: int | None = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class CudaArray(Protocol):
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

class TorchStream(Protocol):
    @property
    def cuda_stream(self) -> int: ...

class CupyStream(Protocol):
    @property
    def ptr(self) -> int: ...

class PagedKv:
    def __init__(
        self, *, caches: Sequence[DeviceArray], block_table: DeviceArray, layout: PagedLayout = "plane_major_nhd"
    ) -> None: ...
    @property
    def caches(self) -> Sequence[DeviceArray]: ...
    @property
    def block_table(self) -> DeviceArray: ...
    @property
    def layout(self) -> PagedLayout: ...

class Geometry(TypedDict):
    layers: int
    kv_heads: int
    head_size: int
    dtype: Literal["float16", "bfloat16"]
    planes: int
    rotary_size: int
    rotary_offset: int

class ServerStats(TypedDict):
    version: str
    uptime_seconds: float
    store: str
    chunks: int
    payload_bytes: int
    disk_bytes: int
    capacity_bytes: int
    evicted_segments: int
    evicted_bytes: int
    evicted_chunks: int
    expired_chunks: int
    pins: int
    pinned_bytes: int
    profile_ids: list[bytes]
    loads_in_flight: int
    loads_finished: int
    loads_failed: int
    load_bytes_sent: int
    chunks_by_level: list[int]
    chunks_recomputed: int
    store_writes: Literal["unknown", "taken", "refused", "refused_until_restart"]
    damaged_files: int

class ListedChunk(TypedDict):
    id: bytes
    parent_id: bytes | None
    profile_id: bytes
    model: str
    first_token: int
    tokens: int
    segment_bytes: list[int]
    created: float
    expires: float | None

class ListedPin(TypedDict):
    id: bytes
    owner: str
    until: float

class KVStreamError(RuntimeError):
    code: str

class Profile:
    @staticmethod
    def load(path: str) -> Profile: ...
    @staticmethod
    def from_bytes(data: bytes) -> Profile: ...
    def to_bytes(self) -> bytes: ...
    def save(self, path: str) -> None: ...
    @property
    def id(self) -> bytes: ...
    @property
    def levels(self) -> int: ...
    @property
    def steps(self) -> list[float]: ...
    @property
    def chunk_tokens(self) -> int: ...
    @property
    def sink_tokens(self) -> int: ...
    @property
    def group(self) -> str: ...
    @property
    def geometry(self) -> Geometry: ...

class PutResult:
    @property
    def chunks_stored(self) -> int: ...
    @property
    def chunks_existing(self) -> int: ...
    @property
    def bytes_stored(self) -> int: ...

class LookupResult:
    @property
    def matched_chunks(self) -> int: ...
    @property
    def matched_tokens(self) -> int: ...
    @property
    def level_bytes(self) -> list[int]: ...

class LoadedChunk:
    @property
    def level(self) -> int | None: ...
    @property
    def tokens(self) -> int: ...
    @property
    def bytes(self) -> int: ...

class LoadResult:
    @property
    def load_delay(self) -> float: ...
    @property
    def bytes(self) -> int: ...
    @property
    def goodput_bytes_per_second(self) -> float: ...
    @property
    def bandwidth_estimate_bytes_per_second(self) -> float: ...
    @property
    def deadline_missed(self) -> bool: ...
    @property
    def chunks(self) -> list[LoadedChunk]: ...
    @property
    def recomputed_tokens(self) -> int: ...
    @property
    def recompute_seconds(self) -> float: ...

class Client:
    def __init__(
        self, server: str, *, rpc_timeout: float = 60.0, decode_threads: int = 1, encode_threads: int = 1
    ) -> None: ...
    def put_profile(self, profile: Profile) -> None: ...
    def get_profile(self, id: bytes) -> Profile: ...
    def warm_up(
        self,
        profile: Profile,
        *,
        device: int | None = None,
        first_layer: int = 0,
        layers: int = 0,
        first_head: int = 0,
        heads: int = 0,
    ) -> None: ...
    def put(
        self,
        profile: Profile,
        tokens: Tokens,
        kv: Kv | DeviceKv,
        *,
        model: str,
        adapter: str = "",
        tenant_salt: bytes = b"",
        extra_keys: Sequence[bytes] = (),
        progress: Callable[[int], None] | None = None,
        stream: int | TorchStream | CupyStream | None = None,
        device: int | None = None,
        ttl_seconds: float = 0.0,
    ) -> PutResult: ...
    def lookup(
        self,
        profile: Profile,
        tokens: Tokens,
        *,
        model: str,
        adapter: str = "",
        tenant_salt: bytes = b"",
        extra_keys: Sequence[bytes] = (),
    ) -> LookupResult: ...
    def load(
        self,
        profile: Profile,
        tokens: Tokens,
        *,
        model: str,
        adapter: str = "",
        tenant_salt: bytes = b"",
        extra_keys: Sequence[bytes] = (),
        deadline_ms: float | None = None,
        policy: Policy = "default",
        level: int = 0,
        floor_level: int = 0,
        floor_below_share: float = 0.0,
        ability: Ability = "none",
        recompute: Callable[[int, int], None] | None = None,
        prefill_seconds_per_token: float = 0.0,
        prefill_seconds_per_token_pair: float = 0.0,
        bandwidth_hint_bytes_per_second: float = 0.0,
        out: Kv | DeviceKv | None = None,
        progress: Callable[[int, int], None] | None = None,
        trace: str | os.PathLike[str] | None = None,
        stream: int | TorchStream | CupyStream | None = None,
        device: int | None = None,
        first_layer: int | None = None,
        first_head: int | None = None,
    ) -> tuple[Any, LoadResult]: ...
    def delete(self, chunk_ids: Sequence[bytes], *, force: bool = False) -> int: ...
    def delete_matching(
        self,
        *,
        context_end: bytes | None = None,
        model: str = "",
        dry_run: bool = False,
        force: bool = False,
    ) -> tuple[int, int, int]: ...
    def renew(self, chunk_ids: Sequence[bytes], ttl_seconds: float) -> int: ...
    def pin(self, chunk_ids: Sequence[bytes], *, owner: str, ttl_seconds: float) -> int: ...
    def unpin(self, chunk_ids: Sequence[bytes], *, owner: str | None) -> int: ...
    def list_pins(
        self, page_size: int = 0, page_token: bytes = b"", *, owner: str = ""
    ) -> tuple[list[ListedPin], bytes]: ...
    def list_chunks(
        self,
        page_size: int = 0,
        page_token: bytes = b"",
        profile_id: bytes | None = None,
        model: str = "",
    ) -> tuple[list[ListedChunk], bytes]: ...
    def stats(self) -> ServerStats: ...
    def ping(self) -> tuple[bool, float]: ...

def build_profile(
    config_json: str,
    samples: Sequence[Kv],
    *,
    query_rms: npt.ArrayLike | None = None,
    sensitivity: npt.ArrayLike | None = None,
    group: Literal["head", "layer", "model"] | int = "layer",
    steps: Sequence[float] = ...,
    value_step_ratio: float = ...,
    chunk_tokens: int = ...,
    sink_tokens: int = ...,
) -> Profile: ...
def chunk_ids(
    profile: Profile,
    tokens: Tokens,
    *,
    model: str,
    adapter: str = "",
    tenant_salt: bytes = b"",
    extra_keys: Sequence[bytes] = (),
) -> list[bytes]: ...
def encode(profile: Profile, kv: Kv, *, first_position: int = 0) -> list[list[bytes]]: ...
def decode(
    profile: Profile, chunks: Sequence[Sequence[bytes]], *, level: int | None = None, out: Kv | None = None
) -> Any: ...

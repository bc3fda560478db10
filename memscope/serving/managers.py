"""The ways to manage key/value memory that a replay knows: one registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from memscope.errors import UnknownNameError, UsageError
from memscope.serving.requests import RequestTable
from memscope.serving.shapes import KvShape, vector_bytes
from memscope.trace.tables import Int64Array
from memscope.units import KiB, MiB

BLOCK_BYTES = 512
"""Blocks of the caching allocator are multiples of this."""


def tensor_token_bytes(shape: KvShape) -> list[tuple[int, int]]:
    """Bytes of a token in each tensor of one request, and its window (0: none): keys and values of each layer."""
    return [
        (layer.heads_per_gpu(shape.tensor_parallel) * vector_bytes(dim, shape.kv_dtype), layer.window or 0)
        for layer in shape.layers
        for dim in (layer.key_dim, layer.value_dim)
        if dim
    ]


def tensors_unit_bytes(shape: KvShape) -> int:
    """The largest unit that divides a block and every token."""
    return math.gcd(BLOCK_BYTES, *(size for size, _ in tensor_token_bytes(shape)))


MAX_LENGTH = 1 << 24
"""Tokens of the longest sequence that is accepted: tables have an entry for each."""
PAGE_SIZES = (64 * KiB, 2 * MiB)
"""Physical pages that a driver maps: 2 MiB through CUDA; 64 KiB needs vAttention's own driver."""


@dataclass(frozen=True, slots=True)
class ManagerOptions:
    """What managers are told.

    Attributes
    ----------
    block_size
        Tokens of a block (``paged``, ``paged-prefix``).
    page_bytes
        Bytes of a physical page (``virtual``).
    max_length
        The longest sequence that is accepted, in tokens.
    """

    block_size: int = 16
    page_bytes: int = 2 * MiB
    max_length: int = 4096

    def __post_init__(self) -> None:
        if self.block_size < 1 or self.max_length < 1:
            raise UsageError("a block size and a longest sequence are at least one token")
        if self.max_length > MAX_LENGTH:
            raise UsageError(f"a longest sequence of {self.max_length:,} tokens is more than {MAX_LENGTH:,}")
        if self.page_bytes not in PAGE_SIZES:
            raise UsageError("a page is 64KiB or 2MiB")


class Kind(Enum):
    """How a manager's memory is taken."""

    ON_DEMAND = auto()
    """As a function of the tokens held (paged, virtual)."""
    REGIONS = auto()
    """One region for each sequence, taken when its request starts, placed by binary buddies."""
    PREFIXES = auto()
    """Full blocks of prompts are shared by their key; the rest of a sequence is its own."""
    TENSORS = auto()
    """Every layer's keys and values are a tensor, in PyTorch's caching allocator."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A manager's rules as tables, in units.

    Attributes
    ----------
    kind
        How it is taken.
    unit_bytes
        Bytes of a unit.
    tokens_of, alloc_of
        int64 (longest + 1,): units that so many tokens hold, and that they take.
    region
        int64 (n,): units reserved for each request (:attr:`Kind.REGIONS`, else empty).
    quantum
        Units that memory is a multiple of.
    granule
        Units of the buddy allocator's smallest block.
    node_tokens, private_tokens
        Tokens of a shared block, and by which a sequence's own memory grows.
    tensor_units
        Units of one token in a request's largest tensor.
    shares_samples
        Whether the samples of a request share its prompt.
    pads
        Whether static batches are padded to their longest prompt.
    windows
        Layers by window (0 for all tokens), and units of a token in them.
    notes
        What is modelled otherwise than one would think, a sentence each.
    """

    kind: Kind
    unit_bytes: int
    tokens_of: Int64Array
    alloc_of: Int64Array
    region: Int64Array
    quantum: int = 1
    granule: int = 1
    node_tokens: int = 1
    private_tokens: int = 1
    tensor_units: int = 0
    shares_samples: bool = False
    pads: bool = False
    windows: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()


MakeMemory = Callable[[KvShape, RequestTable, ManagerOptions, int], Memory]


@dataclass(frozen=True, slots=True)
class Manager:
    """One way to manage memory: its name, what it does in a line, how its tables are made.

    Then whether it has blocks of ``block_size``.
    """

    name: str
    summary: str
    make: MakeMemory
    has_blocks: bool = False


def _no_region() -> Int64Array:
    return np.empty(0, np.int64)


def _growing(shape: KvShape, table: Int64Array, longest: int, notes: tuple[str, ...] = ()) -> Memory:
    tokens = shape.sequence_bytes_table(longest)
    unit = math.gcd(int(np.gcd.reduce(table)), shape.unit_bytes)
    alloc = table // unit
    return Memory(
        Kind.ON_DEMAND, unit, tokens // unit, alloc, _no_region(), quantum=int(np.gcd.reduce(alloc)), notes=notes
    )


def _paged(shape: KvShape, _requests: RequestTable, options: ManagerOptions, longest: int) -> Memory:
    """Blocks, those of a prompt shared by its request's samples; each group of layers with a window has its own."""
    memory = _growing(shape, shape.paged_bytes_table(longest, options.block_size), longest)
    windows = tuple((window or 0, size // memory.unit_bytes) for window, size in shape.groups)
    return replace(memory, shares_samples=True, private_tokens=options.block_size, windows=windows)


def _virtual(shape: KvShape, _requests: RequestTable, options: ManagerOptions, longest: int) -> Memory:
    """Pages behind the tokens that are there.

    vAttention also maps pages for the next steps ahead, and leaves those of a request that is done where they are, for
    the next one; both are taken back as soon as another request needs them, and it counts them as free itself. They
    save time, not memory, and are not counted as taken here. Source: microsoft/vattention, ``vattention/vattention.cu``
    (``get_num_free_kvblocks``, ``reclaim_kvblocks_on_demand``) at 00b5ddc.
    """
    notes = ("a window's old tokens keep their pages until the request ends",) if _has_windows(shape) else ()
    return _growing(shape, shape.virtual_bytes_table(longest, options.page_bytes), longest, notes)


def _contiguous(shape: KvShape, longest: int, reserved_tokens: Int64Array) -> Memory:
    unit = shape.unit_bytes
    tokens = shape.sequence_bytes_table(longest) // unit
    return Memory(Kind.REGIONS, unit, tokens, tokens, tokens[reserved_tokens], granule=shape.bytes_per_token // unit)


def _max_length(shape: KvShape, requests: RequestTable, _options: ManagerOptions, longest: int) -> Memory:
    reserved = np.full(len(requests), longest, np.int64)
    return replace(_contiguous(shape, longest, reserved), pads=True)


def _oracle_length(shape: KvShape, requests: RequestTable, _options: ManagerOptions, longest: int) -> Memory:
    return _contiguous(shape, longest, np.minimum(requests.cached_tokens, longest))


def _buddy(shape: KvShape, requests: RequestTable, _options: ManagerOptions, longest: int) -> Memory:
    power = np.int64(1) << np.ceil(np.log2(requests.output_tokens)).astype(np.int64)
    return _contiguous(shape, longest, np.minimum(requests.prompt_tokens + power, longest))


def _prefix(shape: KvShape, longest: int, node_tokens: int, private_tokens: int, notes: tuple[str, ...]) -> Memory:
    if _has_windows(shape):
        notes = (*notes, "layers with a window keep all their tokens, as shared blocks need them")
    tokens = np.arange(longest + 1, dtype=np.int64)
    alloc = -(-tokens // private_tokens) * private_tokens
    return Memory(
        Kind.PREFIXES,
        shape.bytes_per_token,
        tokens,
        alloc,
        _no_region(),
        quantum=private_tokens,
        node_tokens=node_tokens,
        private_tokens=private_tokens,
        shares_samples=True,
        windows=((0, 1),),
        notes=notes,
    )


def _paged_prefix(shape: KvShape, requests: RequestTable, options: ManagerOptions, longest: int) -> Memory:
    size, chunk = options.block_size, requests.chunk_tokens
    if chunk and chunk % size and size % chunk:
        raise UsageError(
            f"prefixes are known by chunks of {chunk} tokens: a block size must divide that, or be a multiple of it; "
            f"{size} is neither"
        )
    return _prefix(shape, longest, size, size, ())


def _radix(shape: KvShape, requests: RequestTable, _options: ManagerOptions, longest: int) -> Memory:
    """Blocks of one token: samples of a request share all of its prompt, and nothing is ever copied."""
    notes = ("prefixes are shared as far as the trace tells them apart: whole chunks",) if requests.has_prefixes else ()
    return _prefix(shape, longest, requests.chunk_tokens or 1, 1, notes)


def _has_windows(shape: KvShape) -> bool:
    return any(layer.window is not None for layer in shape.layers)


def _concat(shape: KvShape, _requests: RequestTable, _options: ManagerOptions, longest: int) -> Memory:
    """Tensors of each request, a row for each of its samples, as ``generate(num_return_sequences=…)`` makes them.

    Under the static scheduler all requests of a batch are padded alike, but each still has tensors of its own, so that
    requests can be put back one by one; ``generate`` has one tensor for all of them.
    """
    unit = tensors_unit_bytes(shape)
    tokens = shape.sequence_bytes_table(longest) // unit
    notes = ("a request that runs out of memory with no other one running is given up",)
    largest = max(size for size, _ in tensor_token_bytes(shape)) // unit
    return Memory(Kind.TENSORS, unit, tokens, tokens, _no_region(), tensor_units=largest, pads=True, notes=notes)


MANAGERS: dict[str, Manager] = {
    manager.name: manager
    for manager in (
        Manager("max-length", "a contiguous region of the longest sequence for each request, by buddies", _max_length),
        Manager("oracle-length", "a contiguous region of its true final length, known beforehand", _oracle_length),
        Manager("buddy", "a contiguous region for the output rounded up to a power of two", _buddy),
        Manager(
            "concat",
            "a tensor a layer, made anew for each token, in PyTorch's allocator (Hugging Face)",
            _concat,
        ),
        Manager("paged", "blocks of tokens on demand (vLLM)", _paged, has_blocks=True),
        Manager("paged-prefix", "blocks on demand, equal prefixes shared, cached until evicted", _paged_prefix, True),
        Manager("virtual", "a contiguous virtual range, pages mapped on demand (vAttention)", _virtual),
        Manager("radix", "a tree of prefixes by the token (SGLang)", _radix),
    )
}


def manager_named(name: str) -> Manager:
    """A manager of the registry.

    Raises
    ------
    UsageError
        If there is none of that name; the message lists them.
    """
    if name not in MANAGERS:
        raise UnknownNameError(f"there is no manager {name!r}", name, MANAGERS)
    return MANAGERS[name]

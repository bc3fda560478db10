"""What a recording must say of the caches of small generations, as plain rows. PyTorch is not needed to check them."""

from __future__ import annotations

from dataclasses import dataclass

from memscope.trace.cache_labels import read_cache_label
from memscope.trace.categories import Category
from memscope.trace.trace import Trace

BATCH, PROMPT, NEW_TOKENS, WINDOW = 2, 12, 6, 8
N_HEADS, HEAD_SIZE = 2, 16
TOKEN_BYTES = N_HEADS * HEAD_SIZE * 2
N_HELD = PROMPT + NEW_TOKENS - 1  # the last token is not fed back
GROWING = tuple(range(PROMPT, N_HELD + 1))


@dataclass(frozen=True)
class CacheRows:
    """Rows expected of a program's caches.

    Attributes
    ----------
    kinds
        The kind of each row of layers, in the order of caches, events and layers; so are the other columns.
    lengths
        Of each cache, the lengths noted.
    parts
        What the tensors of the first cache's first layer are.
    has_encoder
        Whether the second cache is that of the attention to an encoder.
    """

    kinds: tuple[str, ...]
    lengths: tuple[tuple[int, ...], ...] = (GROWING,)
    parts: tuple[str, ...] = ("keys", "values")
    n_sequences: tuple[int, ...] = (BATCH, BATCH)
    token_bytes: tuple[int, ...] = (TOKEN_BYTES, TOKEN_BYTES)
    capacity_tokens: tuple[int, ...] = (-1, -1)
    window_tokens: tuple[int, ...] = (-1, -1)
    has_encoder: bool = False


_FULL, _STATIC = ("DynamicLayer", "DynamicLayer"), ("StaticLayer", "StaticLayer")
_NONE = (-1, -1)
_STATIC_PARTS = ("keys", "values", "length")
_WINDOW_PARTS = ("keys", "values", "window")
_GROUPED_PARTS = tuple(f"{of}{part}" for of in ("keys", "values") for part in ("", " residual", " scale", " zero"))
_DECODED = tuple(range(1, NEW_TOKENS + 1))

EXPECTED: dict[str, CacheRows] = {
    "dynamic": CacheRows(_FULL),
    "static": CacheRows(_STATIC, parts=_STATIC_PARTS, capacity_tokens=(N_HELD, N_HELD)),
    "static compiled": CacheRows(_STATIC, parts=_STATIC_PARTS, capacity_tokens=(N_HELD, N_HELD)),
    "sliding": CacheRows(
        ("DynamicSlidingWindowLayer",) * 2, parts=_WINDOW_PARTS, window_tokens=(WINDOW - 1, WINDOW - 1)
    ),
    "sliding static": CacheRows(
        ("StaticSlidingWindowLayer",) * 2,
        parts=_STATIC_PARTS,
        capacity_tokens=(WINDOW, WINDOW),
        window_tokens=(WINDOW, WINDOW),
    ),
    "hybrid": CacheRows(
        ("DynamicSlidingWindowLayer", "DynamicLayer"), parts=_WINDOW_PARTS, window_tokens=(WINDOW - 1, -1)
    ),
    "hybrid static": CacheRows(
        ("StaticSlidingWindowLayer", "StaticLayer"),
        parts=_STATIC_PARTS,
        capacity_tokens=(WINDOW, N_HELD),
        window_tokens=(WINDOW, -1),
    ),
    "convolution": CacheRows(
        ("LinearAttentionLayer", "DynamicLayer"), parts=("conv state",), token_bytes=(-1, TOKEN_BYTES)
    ),
    "fp8": CacheRows(
        ("Fp8QuantizedLayer",) * 2, parts=("keys", "keys scale", "values", "values scale"), token_bytes=_NONE
    ),
    "quanto": CacheRows(("QuantoQuantizedLayer",) * 2, parts=_GROUPED_PARTS, token_bytes=_NONE),
    "hqq": CacheRows(("HQQQuantizedLayer",) * 2, parts=_GROUPED_PARTS, token_bytes=_NONE),
    "offloaded": CacheRows(_FULL),
    "offloaded static": CacheRows(_STATIC, parts=_STATIC_PARTS, capacity_tokens=(N_HELD, N_HELD)),
    "beams": CacheRows(
        _FULL * 2,
        n_sequences=(BATCH, BATCH, 3 * BATCH, 3 * BATCH),
        token_bytes=(TOKEN_BYTES,) * 4,
        capacity_tokens=_NONE * 2,
        window_tokens=_NONE * 2,
    ),
    "encoder-decoder": CacheRows(
        _FULL * 2,
        lengths=(_DECODED, (PROMPT,)),
        n_sequences=(BATCH,) * 4,
        token_bytes=(TOKEN_BYTES,) * 4,
        capacity_tokens=_NONE * 2,
        window_tokens=_NONE * 2,
        has_encoder=True,
    ),
    "encoder-decoder static": CacheRows(
        _STATIC * 2,
        lengths=(_DECODED, (PROMPT,)),
        parts=_STATIC_PARTS,
        n_sequences=(BATCH,) * 4,
        token_bytes=(TOKEN_BYTES,) * 4,
        capacity_tokens=(NEW_TOKENS, NEW_TOKENS, PROMPT, PROMPT),
        window_tokens=_NONE * 2,
        has_encoder=True,
    ),
    "used again": CacheRows(
        _STATIC, lengths=((PROMPT, PROMPT + 1, 0, 5, 7),), parts=_STATIC_PARTS, capacity_tokens=(16, 16)
    ),
    "cropped": CacheRows(
        _FULL * 3,
        lengths=((PROMPT, PROMPT - 4, PROMPT - 2, 0, 3),),
        n_sequences=(BATCH, BATCH, 1, 1, BATCH, BATCH),
        token_bytes=(TOKEN_BYTES,) * 6,
        capacity_tokens=_NONE * 3,
        window_tokens=_NONE * 3,
    ),
    "copied": CacheRows(
        _FULL * 2,
        lengths=((PROMPT,), (PROMPT, PROMPT + 2)),
        n_sequences=(BATCH,) * 4,
        token_bytes=(TOKEN_BYTES,) * 4,
        capacity_tokens=_NONE * 2,
        window_tokens=_NONE * 2,
    ),
}


def check_rows(trace: Trace, expected: CacheRows) -> None:
    """The layers, the lengths and the parts are those that they must be."""
    layers, lengths = trace.cache_layers, trace.cache_lengths
    order = sorted(range(len(layers)), key=lambda row: int(layers.cache_id[row]))
    assert tuple(trace.strings[layers.kind_id[row]] for row in order) == expected.kinds
    for column in ("capacity_tokens", "window_tokens", "n_sequences"):
        assert tuple(getattr(layers, column)[order].tolist()) == getattr(expected, column), column
    assert tuple(layers.key_token_bytes[order].tolist()) == expected.token_bytes
    assert tuple(layers.value_token_bytes[order].tolist()) == expected.token_bytes
    assert layers.layer[order].tolist() == [0, 1] * (len(layers) // 2)
    assert not layers.device.any()
    assert not lengths.device.any()
    found = [tuple(lengths.n_tokens[lengths.cache_id == number].tolist()) for number in sorted(set(lengths.cache_id))]
    assert found == list(expected.lengths)
    assert lengths.event.tolist() == sorted(lengths.event.tolist())
    assert lengths.time_ns.tolist() == sorted(lengths.time_ns.tolist())
    owners = trace.owners
    labels = {trace.strings[i] for i in owners.label_id[owners.category == Category.KV_CACHE]}
    parts = {said.part for said in map(read_cache_label, labels) if said.cache_id == 1 and said.layer == 0}
    assert parts == set(expected.parts)
    assert all(said.is_cross == (expected.has_encoder and said.cache_id == 2) for said in map(read_cache_label, labels))

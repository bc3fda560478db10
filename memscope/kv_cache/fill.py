"""How much of each of a cache's allocations holds tokens, from what was recorded of its layers and lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.kv_cache.growth import let_go_events
from memscope.kv_cache.parts import CacheParts
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int32Array, Int64Array, frozen_array

_MAX_TOKENS, _MAX_SEQUENCES = 1 << 32, 1 << 20
"""More than any cache has; what is above is no number of tokens or sequences."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of each sequence in one cache on one device: step functions over events.

    Attributes
    ----------
    event, n_tokens
        int64 (m,): ``n_tokens[i]`` holds from ``event[i]`` on (−1: not told); the first holds before it too, because
        a cache is made in the very pass that fills it.
    """

    event: Int64Array
    n_tokens: Int64Array

    def at(self, event: Int64Array) -> Int64Array:
        """Tokens before some events, −1 where they are not told: int64, as the events."""
        if not len(self.event):
            return np.full(len(event), NONE_ID, np.int64)
        found: Int64Array = self.n_tokens[np.maximum(np.searchsorted(self.event, event, "right") - 1, 0)]
        return found


@dataclass(frozen=True, slots=True)
class Fill:
    """How the parts hold tokens; every array is read-only int64 (parts,).

    Attributes
    ----------
    layer_row
        The row of the trace's ``cache_layers`` that describes each part; −1 where none does.
    capacity_tokens, window_tokens
        Tokens of each sequence that there is room for (−1: it grows), and that are kept (−1: all).
    rate_bytes
        Bytes of one token of all sequences in this part; −1 where that is not the same for all tokens.
    n_sequences
        −1 where it is not told.
    lengths
        By cache.
    """

    layer_row: Int64Array
    capacity_tokens: Int64Array
    window_tokens: Int64Array
    rate_bytes: Int64Array
    n_sequences: Int64Array
    lengths: dict[int, Lengths]

    def __post_init__(self) -> None:
        for name in ("layer_row", "capacity_tokens", "window_tokens", "rate_bytes", "n_sequences"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))

    def kept_tokens(self, index: int, n_tokens: Int64Array) -> Int64Array:
        """Of so many tokens taken in, those that a part holds for each sequence; −1 where they are not told."""
        most = [int(limit[index]) for limit in (self.capacity_tokens, self.window_tokens) if limit[index] != NONE_ID]
        return np.minimum(n_tokens, min(most)) if most else n_tokens


def find_fill(lifetimes: DeviceLifetimes, parts: CacheParts) -> Fill:
    """What the recording says of each part's layer, and of each cache's length."""
    layers = lifetimes.trace.cache_layers
    here = np.flatnonzero(layers.device == lifetimes.device)
    row = _descriptions(lifetimes, parts, here)
    known = row != NONE_ID

    def column(values: Int64Array | Int32Array) -> Int64Array:
        return np.where(known, values[np.maximum(row, 0)] if len(values) else NONE_ID, NONE_ID).astype(np.int64)

    n_sequences = column(layers.n_sequences)
    is_values = np.array([parts.parts[i].startswith("values") for i in parts.part_id.tolist()], np.bool_)
    is_plain = np.array([parts.parts[i] in ("keys", "values") for i in parts.part_id.tolist()], np.bool_)
    token_bytes = np.where(is_values, column(layers.value_token_bytes), column(layers.key_token_bytes))
    requested = lifetimes.allocations.requested_bytes[parts.rows]
    # A tensor holds a token of each sequence at least, and no more than was asked for it, whatever a description says.
    is_told = is_plain & (token_bytes > 0) & (n_sequences > 0) & (n_sequences <= _MAX_SEQUENCES)
    is_told &= token_bytes <= requested // np.maximum(n_sequences, 1)
    n_sequences = np.where(n_sequences <= _MAX_SEQUENCES, n_sequences, NONE_ID)
    capacity = column(layers.capacity_tokens)
    rate = np.where(is_told, np.where(is_told, token_bytes, 0) * np.where(is_told, n_sequences, 0), NONE_ID)
    rate = np.where(is_told & (capacity > 0), np.minimum(rate, requested // np.maximum(capacity, 1)), rate)
    return Fill(
        layer_row=row,
        capacity_tokens=np.where(is_told & (capacity > 0), capacity, NONE_ID),
        window_tokens=np.where(is_told, np.maximum(column(layers.window_tokens), NONE_ID), NONE_ID),
        rate_bytes=rate,
        n_sequences=n_sequences,
        lengths=_lengths(lifetimes),
    )


def _descriptions(lifetimes: DeviceLifetimes, parts: CacheParts, here: Int64Array) -> Int64Array:
    """For each part the row of ``cache_layers`` that describes it: int64 (parts,), −1 for none.

    The first that was noted while the part was there, because layers are described at the end of the pass that made
    them; else the last before it.
    """
    layers, table = lifetimes.trace.cache_layers, lifetimes.allocations
    found = np.full(len(parts), NONE_ID, np.int64)
    asked = np.flatnonzero((parts.cache_id != NONE_ID) & (parts.layer != NONE_ID))
    if not len(here) or not len(asked):
        return found
    both = np.concatenate(
        [
            np.column_stack([layers.cache_id[here], layers.layer[here]]),
            np.column_stack([parts.cache_id[asked], parts.layer[asked]]),
        ]
    ).astype(np.int64)
    _, name = np.unique(both, axis=0, return_inverse=True)
    name = name.reshape(-1)
    of_layer, of_part = name[: len(here)], name[len(here) :]
    stride = int(lifetimes.trace.n_events) + 2
    key = of_layer * stride + np.clip(layers.event[here], 0, stride - 1)
    order = np.argsort(key, kind="stable")
    key, of_layer = key[order], of_layer[order]
    born = np.maximum(table.alloc_event[parts.rows[asked]], 0)
    died = let_go_events(lifetimes)[parts.rows[asked]]
    after = np.searchsorted(key, of_part * stride + born, "left")
    inside = np.minimum(after, len(key) - 1)
    has_after = (after < len(key)) & (of_layer[inside] == of_part)
    in_life = has_after & (key[inside] - of_part * stride <= died)
    before = np.maximum(after - 1, 0)
    has_before = (after > 0) & (of_layer[before] == of_part)
    chosen = np.where(in_life, inside, np.where(has_before, before, np.where(has_after, inside, NONE_ID)))
    found[asked] = np.where(chosen >= 0, here[order[np.maximum(chosen, 0)]], NONE_ID)
    return found


def _lengths(lifetimes: DeviceLifetimes) -> dict[int, Lengths]:
    table = lifetimes.trace.cache_lengths
    here = np.flatnonzero(table.device == lifetimes.device)
    order = here[np.lexsort((table.event[here], table.cache_id[here]))]
    ids, first = np.unique(table.cache_id[order], return_index=True)
    return {
        int(cache_id): Lengths(table.event[rows], _credible(table.n_tokens[rows]))
        for cache_id, rows in zip(ids, np.split(order, first[1:]), strict=False)
    }


def _credible(n_tokens: Int64Array) -> Int64Array:
    """Lengths, −1 where they are none."""
    return np.where((n_tokens >= 0) & (n_tokens <= _MAX_TOKENS), n_tokens, NONE_ID)

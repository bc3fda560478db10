"""What a device's key/value cache held at any moment, layer by layer and cache by cache, and how it grew."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from memscope.device.device import Device
from memscope.kv_cache._parts import CacheParts, Growth, find_growth, find_parts, members_of, most_at_once
from memscope.kv_cache.series import (
    SPLITS,
    Fill,
    KvSplit,
    PartTimes,
    find_fill,
    held_tokens,
    part_times,
    split_at,
    split_series,
)
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array


@dataclass(frozen=True, slots=True)
class KvRow:
    """Bytes of one layer, one cache or one pool at a moment.

    Attributes
    ----------
    name
        ``layer 3``, ``cache 2``, a pool's owner or the line that made it.
    key
        The layer's or cache's number, −1 where there is none.
    n_tensors
        Allocations.
    token_bytes, other_bytes, unused_bytes, stale_bytes, untold_bytes, rounding_bytes
        As in :class:`~memscope.kv_cache.series.KvSplit`.
    """

    name: str
    key: int
    n_tensors: int
    token_bytes: int
    other_bytes: int
    unused_bytes: int
    stale_bytes: int
    untold_bytes: int
    rounding_bytes: int

    @property
    def block_bytes(self) -> int:
        """Their sum."""
        return sum(int(getattr(self, name)) for name in SPLITS)


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """One cache (one ``generate()``, one batch of requests) over the recording.

    Attributes
    ----------
    cache_id
        Its number.
    kinds
        How its layers keep tokens, and how many do: ``DynamicLayer`` 16.
    n_layers, n_sequences
        ``n_sequences`` is None where it was not recorded.
    n_tokens, capacity_tokens
        Tokens of each sequence at the end, and how many there was room for (None: it grows, or not recorded).
    bytes_per_token
        One token of one sequence in all of its layers on this device; None where it is not the same for all tokens.
    begin_event, end_event
        First event with memory of it (−1: before the first), and the one that freed the last (−1: never).
    peak_bytes
        Most bytes of blocks at once.
    """

    cache_id: int
    kinds: tuple[tuple[str, int], ...]
    n_layers: int
    n_sequences: int | None
    n_tokens: int | None
    capacity_tokens: int | None
    bytes_per_token: int | None
    begin_event: int
    end_event: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class GrowthCost:
    """What growing by copying did, as recorded.

    Attributes
    ----------
    n_copies, moved_bytes
        Tensors made anew from an old one that was still there, and the bytes of those.
    copy_peak_bytes, copy_peak_event
        Most bytes that old tensors took beside their replacements.
    """

    n_copies: int
    moved_bytes: int
    copy_peak_bytes: int
    copy_peak_event: int


class KvLens:
    """One device's key/value cache.

    Parameters
    ----------
    device
        The device.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.parts: CacheParts = find_parts(device.lifetimes, device.attribution)

    def __bool__(self) -> bool:
        return len(self.parts) > 0

    @cached_property
    def growth(self) -> Growth:
        """Which allocation replaced which."""
        return find_growth(self.device.lifetimes, self.device.attribution, self.parts)

    @cached_property
    def fill(self) -> Fill:
        """What was recorded of layers and lengths."""
        return find_fill(self.device.lifetimes, self.parts)

    @cached_property
    def times(self) -> PartTimes:
        """When each part is there."""
        return part_times(self.device.lifetimes, self.parts, self.growth, self.fill)

    @cached_property
    def series(self) -> KvSplit:
        """What the cache's bytes are after each event: int64 (n + 1,) each."""
        return split_series(self.device.lifetimes, self.parts, self.fill, self.times)

    @cached_property
    def peak_event(self) -> int:
        """First event after which the cache has most bytes, and of those moments most tokens; −1: before the first."""
        size = self.series.block_bytes
        largest = np.flatnonzero(size == size.max())
        return self.device.usage.event_at(int(largest[np.argmax(self.series.token_bytes[largest])]))

    def _index(self, event: int) -> int:
        return 0 if event == NONE_ID else self.device.usage.index_of(event)

    def parts_at(self, event: int) -> tuple[Int64Array, KvSplit]:
        """The parts that are there after an event (indices of ``parts``), and what each holds."""
        return split_at(self.device.lifetimes, self.parts, self.fill, self.times, self._index(event))

    def total_at(self, event: int) -> KvRow:
        """All of the cache after an event."""
        live, split = self.parts_at(event)
        return _row("all", NONE_ID, split, np.ones(len(live), np.bool_))

    def by_layer(self, event: int) -> tuple[KvRow, ...]:
        """The layers after an event, in order; what no layer is known of comes last."""
        live, split = self.parts_at(event)
        return _grouped(split, self.parts.layer[live], "layer")

    def by_cache(self, event: int) -> tuple[KvRow, ...]:
        """The caches (or requests) after an event, in order; what no cache is known of comes last."""
        live, split = self.parts_at(event)
        return _grouped(split, self.parts.cache_id[live], "cache")

    def pools_at(self, event: int) -> tuple[KvRow, ...]:
        """What only its owner knows the fill of, by the engine whose rule it fits or by its owner, largest first."""
        live, split = self.parts_at(event)
        untold = np.flatnonzero(split.untold_bytes > 0)
        found: dict[str, list[int]] = {}
        for position in untold.tolist():
            found.setdefault(self._pool_name(int(live[position])), []).append(position)
        rows = []
        for name, positions in found.items():
            chosen = np.zeros(len(live), np.bool_)
            chosen[positions] = True
            rows.append(_row(name, NONE_ID, split, chosen))
        return tuple(sorted(rows, key=lambda row: -row.block_bytes))

    def _pool_name(self, index: int) -> str:
        """The rule that told a part, or its owner, in which the layer's number is left open: layers share a pool."""
        row = int(self.parts.rows[index])
        rule = self.device.attribution.rule_of(row)
        if rule is not None:
            return rule.name
        owner = self.device.owner_of(row)
        if not owner:
            return "key/value cache"
        layer = int(self.parts.layer[index])
        return owner if layer == NONE_ID else re.sub(rf"(?<!\d){layer}(?!\d)", "*", owner, count=1)

    @cached_property
    def cost(self) -> GrowthCost:
        """What growing by copying did."""
        table, growth = self.device.allocations, self.growth
        old = self.parts.rows[growth.old]
        first = self.device.lifetimes.first_event - 1
        size = table.block_bytes[old]
        most, event = most_at_once(self.times.stale[growth.old] + first, self.times.end[growth.old] + first, size)
        return GrowthCost(len(growth), int(table.requested_bytes[old].sum()), most, event)

    @cached_property
    def held_tokens(self) -> Int64Array:
        """Tokens of all sequences of the caches that have memory, after each event: int64 (n + 1,), −1 where not told.

        As was noted: tokens that a window has left behind count, because the cache took them in. Not told is where any
        cache is not told of.
        """
        return held_tokens(self.device.lifetimes, self.parts, self.fill, self.times)

    def tokens_at(self, event: int) -> int | None:
        """Tokens of all sequences of the caches that have memory after an event; None where not told."""
        tokens = int(self.held_tokens[self._index(event)])
        return None if tokens == NONE_ID else tokens

    @cached_property
    def caches(self) -> tuple[CacheSummary, ...]:
        """The caches that were told apart, in order."""
        return tuple(self._summary(i, members) for i, members in members_of(self.parts.cache_id) if i != NONE_ID)

    def bytes_per_token(self, event: int) -> int | None:
        """One token of one sequence in all layers of the caches that have memory after an event.

        None where that is not the same for all tokens or all caches, or was not recorded.
        """
        live, _ = self.parts_at(event)
        present = set(self.parts.cache_id[live].tolist())
        found = {cache.bytes_per_token for cache in self.caches if cache.cache_id in present}
        return found.pop() if len(found) == 1 and NONE_ID not in present else None

    def _summary(self, cache_id: int, members: Int64Array) -> CacheSummary:
        trace, times = self.device.trace, self.times
        described = np.unique(self.fill.layer_row[members])
        described = described[described != NONE_ID]
        layers = trace.cache_layers.take(described)
        # A layer that was described again, because it changed, counts as it was last.
        last = {int(layer): position for position, layer in enumerate(layers.layer.tolist())}
        chosen = layers.take(np.array(list(last.values()), np.int64))
        kinds: dict[str, int] = {}
        for kind_id in chosen.kind_id.tolist():
            kind = trace.shown_string(int(kind_id)) or "unknown"
            kinds[kind] = kinds.get(kind, 0) + 1
        per_token = [int(size) for size in (*chosen.key_token_bytes, *chosen.value_token_bytes)]
        capacity = chosen.capacity_tokens[chosen.window_tokens == NONE_ID]
        is_static = len(capacity) > 0 and int(capacity.min()) > 0
        lengths = self.fill.lengths.get(cache_id)
        n_tokens = int(lengths.n_tokens[-1]) if lengths is not None and len(lengths.n_tokens) else NONE_ID
        rows, usage = self.parts.rows[members], self.device.usage
        peak, _ = most_at_once(times.begin[members], times.end[members], self.device.allocations.block_bytes[rows])
        end = int(times.end[members].max())
        return CacheSummary(
            cache_id=cache_id,
            kinds=tuple(kinds.items()),
            n_layers=len(np.unique(self.parts.layer[members])),
            n_sequences=_positive(int(chosen.n_sequences.max(initial=NONE_ID))),
            n_tokens=None if n_tokens == NONE_ID else n_tokens,
            capacity_tokens=int(capacity.max()) if is_static else None,
            bytes_per_token=sum(per_token) if per_token and min(per_token) >= 0 and sum(per_token) <= peak else None,
            begin_event=usage.event_at(int(times.begin[members].min())),
            end_event=NONE_ID if end >= len(usage) else usage.event_at(end),
            peak_bytes=peak,
        )


def _positive(value: int) -> int | None:
    return value if value > 0 else None


def _row(name: str, key: int, split: KvSplit, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> KvRow:
    return KvRow(name, key, int(np.count_nonzero(chosen)), **{n: int(getattr(split, n)[chosen].sum()) for n in SPLITS})


def _grouped(split: KvSplit, key: Int64Array, word: str) -> tuple[KvRow, ...]:
    """A row for each value of the key, in order; −1 comes last."""
    values, of_part, n_tensors = np.unique(key, return_inverse=True, return_counts=True)
    sums = {name: np.zeros(len(values), np.int64) for name in SPLITS}
    for name, total in sums.items():
        np.add.at(total, of_part.reshape(-1), getattr(split, name))
    order = [i for i, value in enumerate(values) if value != NONE_ID]
    order += [i for i, value in enumerate(values) if value == NONE_ID]
    return tuple(
        KvRow(
            f"{word} not recorded" if values[i] == NONE_ID else f"{word} {values[i]}",
            int(values[i]),
            int(n_tensors[i]),
            **{name: int(total[i]) for name, total in sums.items()},
        )
        for i in order
    )

"""What of a key/value cache holds tokens, from what was recorded of layers and lengths; and its bytes over events."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from memscope.kv_cache._parts import CacheParts, Growth, members_of
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.cache_labels import is_beside_tokens
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array, Int64Array, frozen_array

SPLITS = ("token_bytes", "other_bytes", "unused_bytes", "stale_bytes", "untold_bytes", "rounding_bytes")
"""What a cache's bytes are, in stacking order; together they are the bytes of its blocks."""
_MAX_CUTS = 1 << 22
"""Cuts of tensors of one cache, beyond which they are not followed: no program has as many."""
_MAX_TOKENS, _MAX_SEQUENCES = 1 << 32, 1 << 20
"""More than any cache has; what is above is no number of tokens or sequences."""


@dataclass(frozen=True, slots=True)
class CacheLengths:
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
    lengths: dict[int, CacheLengths]

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
    died = lifetimes.died_event[parts.rows[asked]]
    after = np.searchsorted(key, of_part * stride + born, "left")
    inside = np.minimum(after, len(key) - 1)
    has_after = (after < len(key)) & (of_layer[inside] == of_part)
    in_life = has_after & (key[inside] - of_part * stride <= died)
    before = np.maximum(after - 1, 0)
    has_before = (after > 0) & (of_layer[before] == of_part)
    chosen = np.where(in_life, inside, np.where(has_before, before, np.where(has_after, inside, NONE_ID)))
    found[asked] = np.where(chosen >= 0, here[order[np.maximum(chosen, 0)]], NONE_ID)
    return found


def _lengths(lifetimes: DeviceLifetimes) -> dict[int, CacheLengths]:
    table = lifetimes.trace.cache_lengths
    here = np.flatnonzero(table.device == lifetimes.device)
    order = here[np.lexsort((table.event[here], table.cache_id[here]))]
    ids, first = np.unique(table.cache_id[order], return_index=True)
    return {
        int(cache_id): CacheLengths(table.event[rows], _credible(table.n_tokens[rows]))
        for cache_id, rows in zip(ids, np.split(order, first[1:]), strict=False)
    }


def _credible(n_tokens: Int64Array) -> Int64Array:
    """CacheLengths, −1 where they are none."""
    return np.where((n_tokens >= 0) & (n_tokens <= _MAX_TOKENS), n_tokens, NONE_ID)


@dataclass(frozen=True, slots=True)
class KvSplit:
    """Bytes of blocks in the category ``kv_cache``; every array is read-only int64 of one length.

    That is n + 1 moments (index 0 before a device's first event, index i after event ``first_event + i − 1``), or the
    parts at one moment.

    Attributes
    ----------
    token_bytes
        Hold tokens.
    other_bytes
        Hold what the cache keeps beside its tokens: lengths, window sizes, states of layers without attention.
    unused_bytes
        Are in a tensor beyond its tokens: a static cache's tail, what a window has left behind.
    stale_bytes
        Were replaced by a longer copy and not yet freed, or freed and wait for a stream.
    untold_bytes
        Are in tensors of which only their owner knows what they hold, as an engine's pool.
    rounding_bytes
        Were added by the allocator.
    """

    token_bytes: Int64Array
    other_bytes: Int64Array
    unused_bytes: Int64Array
    stale_bytes: Int64Array
    untold_bytes: Int64Array
    rounding_bytes: Int64Array

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, frozen_array(getattr(self, field.name), np.int64))

    def __len__(self) -> int:
        return len(self.token_bytes)

    @property
    def block_bytes(self) -> Int64Array:
        """Their sum."""
        total: Int64Array = np.sum([getattr(self, name) for name in SPLITS], axis=0, dtype=np.int64)
        return total


@dataclass(frozen=True, slots=True)
class Crops:
    """When growing tensors hold fewer tokens than they were made for; every array is read-only int64 (k,).

    In order of parts, then of moments: from the moment ``index`` on, until the next entry of the part or until it is
    stale, it holds ``token_bytes`` of tokens.
    """

    part: Int64Array
    index: Int64Array
    token_bytes: Int64Array

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, frozen_array(getattr(self, field.name), np.int64))

    def at(self, index: int) -> tuple[Int64Array, Int64Array]:
        """Parts that are cut short at a moment, and what they hold."""
        begun = np.flatnonzero(self.index <= index)
        is_last = np.append(np.diff(self.part[begun]) != 0, True)[: len(begun)]
        return self.part[begun[is_last]], self.token_bytes[begun[is_last]]


@dataclass(frozen=True, slots=True)
class PartTimes:
    """When the parts are there, as indices of moments; every array is read-only int64 (parts,).

    Attributes
    ----------
    begin, stale, end
        First moment with it, first at which it is of no more use, first without it; after all moments for never.
    group
        Which parts fill up together (a cache's of one capacity and window); −1 for those whose tokens do not change.
    fixed_token_bytes, fixed_other_bytes, fixed_untold_bytes
        Of those whose tokens do not change.
    crops
        Tensors that were cut short and not made anew yet.
    """

    begin: Int64Array
    stale: Int64Array
    end: Int64Array
    group: Int64Array
    fixed_token_bytes: Int64Array
    fixed_other_bytes: Int64Array
    fixed_untold_bytes: Int64Array
    crops: Crops

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "crops":
                object.__setattr__(self, field.name, frozen_array(getattr(self, field.name), np.int64))


def part_times(lifetimes: DeviceLifetimes, parts: CacheParts, growth: Growth, fill: Fill) -> PartTimes:
    """When each part is there, and what it holds where that does not change."""
    table, rows, first = lifetimes.allocations, parts.rows, lifetimes.first_event
    n_moments = lifetimes.n_events + 1
    born, freed, let_go = table.alloc_event[rows], table.free_event[rows], lifetimes.died_event[rows]
    let_go = np.where(table.is_pending_at_start[rows], first - 1, let_go)
    begin = np.where(born == NONE_ID, 0, born - first + 1)
    end = np.where(freed == NONE_ID, n_moments, freed - first + 1)
    stale = np.where(let_go == NEVER, n_moments, let_go - first + 1)
    np.minimum.at(stale, growth.old, begin[growth.new])
    is_static = fill.capacity_tokens != NONE_ID
    requested = table.requested_bytes[rows]
    tokens, other, untold = _fixed(parts, growth, fill, requested)
    names = np.column_stack([parts.cache_id, fill.capacity_tokens, fill.window_tokens])[is_static]
    group = np.full(len(parts), NONE_ID, np.int64)
    if len(names):
        group[is_static] = np.unique(names, axis=0, return_inverse=True)[1].reshape(-1)
    end = np.maximum(end, begin)
    stale = np.clip(stale, begin, end)
    return PartTimes(
        begin=begin,
        stale=stale,
        end=end,
        group=group,
        fixed_token_bytes=np.where(is_static, 0, tokens),
        fixed_other_bytes=np.where(is_static, 0, other),
        fixed_untold_bytes=np.where(is_static, 0, untold),
        crops=_find_crops(parts, fill, np.where(is_static, 0, tokens), (begin, stale), first),
    )


def _find_crops(
    parts: CacheParts, fill: Fill, token_bytes: Int64Array, life: tuple[Int64Array, Int64Array], first_event: int
) -> Crops:
    """Where the length of a growing cache goes down while its tensors are there: they are cut, not made anew."""
    part, index, held = [], [], []
    grows = (token_bytes > 0) & (fill.rate_bytes > 0) & (fill.window_tokens == NONE_ID)
    begin, stale = life
    for cache_id, members in members_of(np.where(grows, parts.cache_id, NONE_ID)):
        lengths = fill.lengths.get(cache_id)
        if cache_id == NONE_ID or lengths is None:
            continue
        told = lengths.n_tokens
        is_cut = np.append(False, np.diff(told) < 0) & (told != NONE_ID) if len(told) else np.empty(0, np.bool_)
        noted, cut = np.maximum(lengths.event[is_cut] - first_event, 0), told[is_cut]
        low = np.searchsorted(noted, begin[members], "right")
        n_cuts = np.maximum(np.searchsorted(noted, stale[members]) - low, 0)
        if int(n_cuts.sum()) > _MAX_CUTS:
            continue
        member = np.repeat(members, n_cuts)
        which = np.repeat(low - np.append(0, np.cumsum(n_cuts))[:-1], n_cuts) + np.arange(len(member))
        size = np.minimum(cut[which], token_bytes[member] // fill.rate_bytes[member]) * fill.rate_bytes[member]
        shorter = size < token_bytes[member]
        part.append(member[shorter])
        index.append(noted[which[shorter]])
        held.append(size[shorter])
    none = np.empty(0, np.int64)
    columns = [np.concatenate([none, *column]) for column in (part, index, held)]
    order = np.lexsort((columns[1], columns[0]))
    return Crops(*(column[order] for column in columns))


def _fixed(
    parts: CacheParts, growth: Growth, fill: Fill, requested_bytes: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Bytes of tokens, of other things, and of which it is not known, in tensors made as long as they need to be.

    That they are is known where a layer says that it grows, and where one replaced another.
    """
    is_grown = np.zeros(len(parts), np.bool_)
    is_grown[growth.old] = is_grown[growth.new] = True
    is_other: BoolArray = np.array([is_beside_tokens(part) for part in parts.parts], np.bool_)[parts.part_id]
    is_told = ~is_other & ((fill.layer_row != NONE_ID) | is_grown)
    rate = np.maximum(fill.rate_bytes, 1)
    has_window = (fill.window_tokens != NONE_ID) & (fill.rate_bytes > 0)
    kept = np.where(has_window, np.minimum(fill.window_tokens, requested_bytes // rate) * rate, requested_bytes)
    tokens = np.where(is_told, kept, 0)
    return tokens, np.where(is_other, requested_bytes, 0), np.where(is_told | is_other, 0, requested_bytes)


def split_at(
    lifetimes: DeviceLifetimes, parts: CacheParts, fill: Fill, times: PartTimes, index: int
) -> tuple[Int64Array, KvSplit]:
    """The parts that are there at a moment (indices), and what each holds."""
    table = lifetimes.allocations
    live = np.flatnonzero((times.begin <= index) & (times.end > index))
    rows = parts.rows[live]
    requested = table.requested_bytes[rows]
    tokens, untold = times.fixed_token_bytes[live].copy(), times.fixed_untold_bytes[live].copy()
    other = times.fixed_other_bytes[live]
    cut, held = times.crops.at(index)
    is_here = np.isin(cut, live)
    tokens[np.searchsorted(live, cut[is_here])] = held[is_here]
    for group, here in members_of(times.group[live]):
        if group == NONE_ID:
            continue
        member = int(live[here[0]])
        kept = _kept(parts, fill, member, lifetimes.first_event, np.array([index]))[0]
        tokens[here] = np.maximum(kept, 0) * fill.rate_bytes[live[here]]
        untold[here] = np.where(kept == NONE_ID, requested[here], 0)
    is_stale = times.stale[live] <= index
    stale = np.where(is_stale, requested, 0)
    tokens, other, untold = (np.where(is_stale, 0, part) for part in (tokens, other, untold))
    rounding = table.block_bytes[rows] - requested
    return live, KvSplit(tokens, other, requested - tokens - other - untold - stale, stale, untold, rounding)


def _kept(parts: CacheParts, fill: Fill, member: int, first_event: int, index: Int64Array) -> Int64Array:
    """Tokens of each sequence that a static part holds at some moments; −1 where they are not told."""
    lengths = fill.lengths.get(int(parts.cache_id[member]))
    if lengths is None:
        return np.full(len(index), NONE_ID, np.int64)
    # What holds from an event on was noted before it: at the moment after the event before.
    return fill.kept_tokens(member, lengths.at(index + first_event))


def split_series(lifetimes: DeviceLifetimes, parts: CacheParts, fill: Fill, times: PartTimes) -> KvSplit:
    """What the cache's bytes are after each event. Linear in the events, the parts and the notes of lengths."""
    table, rows = lifetimes.allocations, parts.rows
    requested = table.requested_bytes[rows]
    n_moments = lifetimes.n_events + 1
    change = {name: np.zeros(n_moments + 1, np.int64) for name in SPLITS}

    def add(name: str, begin: Int64Array, end: Int64Array, size_bytes: Int64Array) -> None:
        np.add.at(change[name], begin, size_bytes)
        np.subtract.at(change[name], end, size_bytes)

    fixed = times.group == NONE_ID
    begin, stale, end = times.begin, times.stale, times.end
    add("token_bytes", begin, stale, times.fixed_token_bytes)
    add("other_bytes", begin, stale, times.fixed_other_bytes)
    add("untold_bytes", begin, stale, times.fixed_untold_bytes)
    unused = requested - times.fixed_token_bytes - times.fixed_other_bytes - times.fixed_untold_bytes
    add("unused_bytes", begin[fixed], stale[fixed], unused[fixed])
    add("stale_bytes", stale, end, requested)
    _add_crops(change, times)
    add("rounding_bytes", begin, end, table.block_bytes[rows] - requested)
    for group, members in members_of(times.group):
        if group != NONE_ID:
            _add_static(change, lifetimes, parts, fill, times, members)
    return KvSplit(**{name: np.cumsum(change[name])[:n_moments] for name in SPLITS})


def _add_crops(change: dict[str, Int64Array], times: PartTimes) -> None:
    """Move what crops cut off from tokens to unused, until the tensor is stale."""
    crops = times.crops
    if not len(crops.part):
        return
    is_first = np.append(True, np.diff(crops.part) != 0)
    before = np.where(is_first, times.fixed_token_bytes[crops.part], np.roll(crops.token_bytes, 1))
    less = before - crops.token_bytes
    stale = times.stale[crops.part]
    for name, sign in (("token_bytes", -1), ("unused_bytes", 1)):
        np.add.at(change[name], crops.index, sign * less)
        np.subtract.at(change[name], stale, sign * less)


def _add_static(
    change: dict[str, Int64Array],
    lifetimes: DeviceLifetimes,
    parts: CacheParts,
    fill: Fill,
    times: PartTimes,
    members: Int64Array,
) -> None:
    """Add parts that fill up together: their rate and room change as they come and go, their tokens with the notes."""
    first, n_moments = lifetimes.first_event, lifetimes.n_events + 1
    lengths = fill.lengths.get(int(parts.cache_id[members[0]]))
    begin, stale = times.begin[members], times.stale[members]
    noted = np.empty(0, np.int64) if lengths is None else np.clip(lengths.event - first, 0, n_moments)
    ticks = np.unique(np.concatenate([begin, stale, noted]))
    rate, room = np.zeros(len(ticks), np.int64), np.zeros(len(ticks), np.int64)
    for total, size in (
        (rate, fill.rate_bytes[members]),
        (room, lifetimes.allocations.requested_bytes[parts.rows[members]]),
    ):
        np.add.at(total, np.searchsorted(ticks, begin), size)
        np.subtract.at(total, np.searchsorted(ticks, stale), size)
        np.cumsum(total, out=total)
    kept = _kept(parts, fill, int(members[0]), first, ticks)
    tokens = np.maximum(kept, 0) * rate
    untold = np.where(kept == NONE_ID, room, 0)
    for name, value in (("token_bytes", tokens), ("untold_bytes", untold), ("unused_bytes", room - tokens - untold)):
        np.add.at(change[name], ticks, np.diff(value, prepend=0))


def held_tokens(lifetimes: DeviceLifetimes, parts: CacheParts, fill: Fill, times: PartTimes) -> Int64Array:
    """Tokens of all sequences of the caches that have memory, after each event: int64 (n + 1,), −1 where not told."""
    n_moments = lifetimes.n_events + 1
    tokens, untold = np.zeros(n_moments + 1, np.int64), np.zeros(n_moments + 1, np.int64)
    for cache_id, members in members_of(parts.cache_id):
        lengths = fill.lengths.get(cache_id)
        begin, stale = times.begin[members], times.stale[members]
        noted = (
            np.empty(0, np.int64) if lengths is None else np.clip(lengths.event - lifetimes.first_event, 0, n_moments)
        )
        ticks = np.unique(np.concatenate([begin, stale, noted]))
        n_live = np.zeros(len(ticks), np.int64)
        np.add.at(n_live, np.searchsorted(ticks, begin), 1)
        np.subtract.at(n_live, np.searchsorted(ticks, stale), 1)
        is_live = np.cumsum(n_live) > 0
        n_sequences = int(fill.n_sequences[members].max())
        length = np.full(len(ticks), NONE_ID) if lengths is None else lengths.at(ticks + lifetimes.first_event)
        is_told = (length != NONE_ID) & (n_sequences > 0)
        np.add.at(tokens, ticks, np.diff(np.where(is_live & is_told, length * n_sequences, 0), prepend=0))
        np.add.at(untold, ticks, np.diff((is_live & ~is_told).astype(np.int64), prepend=0))
    held = np.cumsum(tokens)[:n_moments]
    return frozen_array(np.where(np.cumsum(untold)[:n_moments] > 0, NONE_ID, held), np.int64)

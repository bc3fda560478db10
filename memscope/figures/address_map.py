"""The address space at a moment: segments as rows, blocks in the colours of their categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.attribution import Attribution
from memscope.attribution.ledger import FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE, PENDING_FREES
from memscope.device.device import Device, Moment
from memscope.figures.ledger import hatch
from memscope.figures.theme import FREE_ROWS, Theme, bare_axis, empty_figure
from memscope.lifetimes.state import AllocatorState, releasable_bytes
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.tables import BoolArray, Int64Array
from memscope.units import MiB, format_bytes, format_fraction
from memscope.words.labels import plain, pool_label, row_label, stream_label

GroupKey = tuple[int, int, bool]
"""(pool id, stream id, is large): dense ids of the trace."""

MERGED = "merged"
"""Kind of a band of neighbouring blocks too small to be drawn one by one."""

KINDS = (
    *(category.label for category in Category),
    PENDING_FREES,
    FREE_RELEASABLE,
    FREE_PINNED,
    FREE_PRIVATE_POOLS,
    MERGED,
)
_KIND = {name: position for position, name in enumerate(KINDS)}

N_ROWS = 24
"""Rows that the groups share at the moment of most reserved memory."""
MAX_RECTANGLES = 2_500
_MIN_WIDTH_FRAC = 0.002
_GAP_FRAC = 0.004


@dataclass(frozen=True, slots=True)
class MapGroup:
    """One group's rows: ``first_row … first_row + n_rows − 1``, each ``row_bytes`` wide."""

    key: GroupKey
    row_bytes: int
    first_row: int
    n_rows: int
    n_segments: int
    reserved_bytes: int
    active_bytes: int


@dataclass(frozen=True, slots=True)
class Rectangles:
    """Pieces to draw: ``start_frac … end_frac`` of their row. A block that crosses a row's end has several.

    Attributes
    ----------
    row
        int64 (m,).
    start_frac, end_frac
        float64 (m,), from 0 to 1.
    source
        int64 (m,): position of the block, band or segment that a piece is of.
    """

    row: Int64Array
    start_frac: np.ndarray
    end_frac: np.ndarray
    source: Int64Array


@dataclass(frozen=True, slots=True)
class AddressMap:
    """A state laid out.

    Attributes
    ----------
    blocks, segments
        Their pieces.
    kind
        int64 (b,): position in :data:`KINDS` of each drawn block or band.
    size_bytes, active_bytes, address, n_merged
        int64 (b,): of each drawn block or band.
    allocation_id
        int64 (b,): row of the allocation that holds it, −1 for free memory and bands.
    """

    groups: tuple[MapGroup, ...]
    n_rows: int
    segments: Rectangles
    blocks: Rectangles
    kind: Int64Array
    address: Int64Array
    size_bytes: Int64Array
    active_bytes: Int64Array
    n_merged: Int64Array
    allocation_id: Int64Array


def map_scale(device: Device, n_rows: int = N_ROWS) -> dict[GroupKey, int]:
    """Row width in bytes of each group: from the state at which most is reserved.

    Rows are shared out by the square root of a group's bytes, one at least, and each row is a round number of bytes.
    """
    lifetimes = device.lifetimes
    event = lifetimes.usage.peak_reserved_event
    state = lifetimes.state_at(lifetimes.usage.peak_event if event is None else event)
    groups = {key: state.segments.size_bytes[chosen] for key, chosen in _groups(state).items()}
    weight = sum(int(sizes.sum()) ** 0.5 for sizes in groups.values())
    n_rows = max(n_rows - (len(groups) - 1), n_rows // 2)  # the headings need room too
    return {
        key: _row_width(sizes, max(int(n_rows * int(sizes.sum()) ** 0.5 / weight), 1)) for key, sizes in groups.items()
    }


def _row_width(sizes: Int64Array, n_rows: int) -> int:
    """The smallest round width at which segments of these sizes fit so many rows."""
    width = _round_up(int(sizes.sum()) // n_rows)
    while _pack(sizes, width)[1] > n_rows:
        width = _round_up(width + 1)
    return width


def _round_up(size: int) -> int:
    """At least a size: the next of 1, 1.25, 1.5, 1.75 times a power of two, from 2 MiB."""
    power = 2 * MiB
    while power * 2 <= size:
        power *= 2
    return next((power * quarter // 4 for quarter in (4, 5, 6, 7) if power * quarter // 4 >= size), power * 2)


def _groups(state: AllocatorState) -> dict[GroupKey, Int64Array]:
    """Positions of each group's segments in order of address; large before small, default pool first."""
    segments = state.segments
    keys = np.stack([segments.pool_id, segments.stream_id, ~segments.is_large], axis=1).astype(np.int64)
    distinct, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    return {
        (int(pool), int(stream), not is_small): np.flatnonzero(group == position)
        for position, (pool, stream, is_small) in enumerate(distinct)
    }


def lay_out(state: AllocatorState, attribution: Attribution, scale: dict[GroupKey, int]) -> AddressMap:
    """Lay a state out in rows. O(segments + blocks), in array operations but for one step a segment."""
    segments, blocks = state.segments, state.blocks
    start = np.zeros(len(segments), np.int64)
    width = np.ones(len(segments), np.int64)
    first = np.zeros(len(segments), np.int64)
    groups = []
    row = 0
    for key, members in _groups(state).items():
        reserved = segments.size_bytes[members]
        row_bytes = scale.get(key) or _round_up(int(reserved.max()))
        start[members], n_rows = _pack(reserved, row_bytes)
        width[members], first[members] = row_bytes, row
        inside = np.isin(blocks.segment_id, members) & (blocks.state != BlockState.INACTIVE)
        active = int(blocks.size_bytes[inside].sum())
        groups.append(MapGroup(key, row_bytes, row, n_rows, len(members), int(reserved.sum()), active))
        row += n_rows
    owner = blocks.segment_id
    block_start = start[owner] + blocks.address - segments.address[owner]
    bands = _merge(state, width[owner], MAX_RECTANGLES)
    band_start, band_end = block_start[bands[0]], block_start[bands[1]] + blocks.size_bytes[bands[1]]
    band_owner = owner[bands[0]]
    n_merged = bands[1] - bands[0] + 1
    sums = np.concatenate([[0], np.cumsum(blocks.size_bytes * (blocks.state != BlockState.INACTIVE))])
    kind = np.where(n_merged > 1, _KIND[MERGED], _kinds(state, attribution)[bands[0]])
    return AddressMap(
        groups=tuple(groups),
        n_rows=row,
        segments=_cut(start, start + segments.size_bytes, width, first),
        blocks=_cut(band_start, band_end, width[band_owner], first[band_owner]),
        kind=kind,
        address=blocks.address[bands[0]],
        size_bytes=band_end - band_start,
        active_bytes=sums[bands[1] + 1] - sums[bands[0]],
        n_merged=n_merged,
        allocation_id=np.where(n_merged > 1, NONE_ID, state.allocation_ids[bands[0]]),
    )


def _pack(size_bytes: Int64Array, row_bytes: int) -> tuple[Int64Array, int]:
    """Place segments on a tape that wraps every ``row_bytes``; one that fits a row is never broken.

    Returns
    -------
    start, n_rows
        int64 (segments,): where each begins on the tape; rows used.
    """
    gap = int(row_bytes * _GAP_FRAC)
    start = np.zeros(len(size_bytes), np.int64)
    if int(size_bytes.sum()) + gap * (len(size_bytes) - 1) <= row_bytes:
        start[1:] = np.cumsum(size_bytes + gap)[:-1]
        return start, 1
    at = 0
    for position, size in enumerate(size_bytes.tolist()):
        offset = at % row_bytes
        if offset and offset + size > row_bytes:
            at += row_bytes - offset
        start[position] = at
        at += size + (gap if (at + size) % row_bytes else 0)
    last = int(start[-1] + size_bytes[-1])
    return start, -(-last // row_bytes)


def _merge(state: AllocatorState, width: Int64Array, limit: int) -> tuple[Int64Array, Int64Array]:
    """First and last block of what is drawn as one: neighbours too narrow to be seen become a band."""
    blocks = state.blocks
    if not len(blocks):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    narrowest = _MIN_WIDTH_FRAC
    while True:
        is_narrow = blocks.size_bytes < narrowest * width
        joins = is_narrow[1:] & is_narrow[:-1] & (blocks.segment_id[1:] == blocks.segment_id[:-1])
        starts = np.flatnonzero(np.concatenate([[True], ~joins]))
        if len(starts) <= limit or is_narrow.all():
            break
        narrowest *= 2
    ends = np.concatenate([starts[1:], [len(blocks)]]) - 1
    return starts, ends


def _kinds(state: AllocatorState, attribution: Attribution) -> Int64Array:
    """Position in KINDS of every block: int64 (blocks,)."""
    blocks, segments = state.blocks, state.segments
    held: BoolArray = state.allocation_ids != NONE_ID
    kind = np.full(len(blocks), _KIND[Category.UNKNOWN.label], np.int64)
    kind[held] = attribution.category[state.allocation_ids[held]]
    kind[blocks.state == BlockState.ACTIVE_PENDING_FREE] = _KIND[PENDING_FREES]
    free = blocks.state == BlockState.INACTIVE
    kind[free] = _KIND[FREE_PINNED]
    kind[free & (releasable_bytes(state) > 0)] = _KIND[FREE_RELEASABLE]
    kind[free & (segments.pool_id[blocks.segment_id] > 0)] = _KIND[FREE_PRIVATE_POOLS]
    return kind


def _cut(start: Int64Array, end: Int64Array, width: Int64Array, first_row: Int64Array) -> Rectangles:
    """Cut spans of the tape at the ends of rows."""
    if not len(start):
        none = np.empty(0, np.int64)
        return Rectangles(none, none.astype(np.float64), none.astype(np.float64), none)
    first, last = start // width, (end - 1) // width
    n_pieces = last - first + 1
    source = np.repeat(np.arange(len(start)), n_pieces)
    offset = np.arange(len(source)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    row = first[source] + offset
    left = np.maximum(start[source], row * width[source]) - row * width[source]
    right = np.minimum(end[source], (row + 1) * width[source]) - row * width[source]
    return Rectangles(first_row[source] + row, left / width[source], right / width[source], source)


ROW_PX = 20
_HEADER_ROWS = 1.35
"""Height of a group's heading, in rows."""


def map_figure(
    moment: Moment, theme: Theme, *, scale: dict[GroupKey, int] | None = None, pinned: int | None = None
) -> go.Figure:
    """Draw the address map of a moment.

    The first shapes outline the pinned allocation; bars carry the row of their allocation (or −1) as ``customdata``.

    Parameters
    ----------
    scale
        Row widths from :func:`~memscope.figures.address_map.map_scale`; computed if not given.
    pinned
        Row of the allocation to outline.
    """
    scale = map_scale(moment.device) if scale is None else scale
    layout = map_of(moment, scale)
    lines = layout.n_rows + _HEADER_ROWS * len(layout.groups)
    figure = empty_figure(
        theme,
        int(max(lines, 1) * ROW_PX) + 8,  # a device that holds nothing has a picture too
        margin={"l": 0, "r": 0, "t": 0, "b": 8},
        barmode="overlay",
        hovermode="closest",
        xaxis=bare_axis(range=[0, 1]),
        yaxis=bare_axis(range=[max(lines, 1), 0]),
    )
    y = _row_positions(layout)
    _add_segments(figure, layout, y, theme)
    _add_blocks(figure, moment, layout, y, theme)
    notes = [_heading(moment, group, theme, y) for group in layout.groups]
    figure.update_layout(annotations=notes, shapes=pinned_shapes(layout, pinned, theme))
    return figure


def map_of(moment: Moment, scale: dict[GroupKey, int]) -> AddressMap:
    """The layout that :func:`map_figure` draws."""
    return lay_out(moment.state, moment.device.attribution, scale)


def pinned_shapes(layout: AddressMap, pinned: int | None, theme: Theme) -> list[dict[str, Any]]:
    """Outlines of the pieces of an allocation; none where it is not drawn by itself."""
    if pinned is None:
        return []
    y = _row_positions(layout)
    pieces = np.flatnonzero(layout.allocation_id[layout.blocks.source] == pinned)
    return [
        {
            "type": "rect",
            "x0": float(layout.blocks.start_frac[i]),
            "x1": float(layout.blocks.end_frac[i]),
            "y0": float(y[layout.blocks.row[i]]) - 0.47,
            "y1": float(y[layout.blocks.row[i]]) + 0.47,
            "line": {"color": theme.ink, "width": 2.5},
        }
        for i in pieces[:200]
    ]


def _row_positions(layout: AddressMap) -> np.ndarray:
    """Vertical middle of each row, leaving room for the headings: float64 (rows,)."""
    y = np.arange(layout.n_rows, dtype=np.float64) + 0.5
    for position, group in enumerate(layout.groups):
        y[group.first_row : group.first_row + group.n_rows] += _HEADER_ROWS * (position + 1)
    return y


def _heading(moment: Moment, group: MapGroup, theme: Theme, y: np.ndarray) -> dict[str, Any]:
    trace = moment.device.trace
    pool_id, stream_id, is_large = group.key
    pool = None if pool_id < 0 else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1]))
    stream = None if stream_id < 0 else int(trace.stream_handles[stream_id])
    used = format_fraction(group.active_bytes / group.reserved_bytes) if group.reserved_bytes else ""
    text = (
        f"<b>{'large' if is_large else 'small'} blocks</b> · {pool_label(pool)} · {stream_label(stream)} · "
        f"{group.n_segments:,} segment{'s' if group.n_segments != 1 else ''}, {format_bytes(group.reserved_bytes)}, "
        f"{used} in use · row = {format_bytes(group.row_bytes)}"
    )
    return {
        "x": 0,
        "xanchor": "left",
        "y": float(y[group.first_row]) - 0.62,
        "yanchor": "bottom",
        "text": text,
        "showarrow": False,
        "font": {"size": 12, "color": theme.muted},
    }


def _bars(pieces: Rectangles, chosen: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    base = pieces.start_frac[chosen]
    return {
        "orientation": "h",
        "base": base.astype(np.float32),
        "x": (pieces.end_frac[chosen] - base).astype(np.float32),
        "y": y[pieces.row[chosen]].astype(np.float32),
    }


def _add_segments(figure: go.Figure, layout: AddressMap, y: np.ndarray, theme: Theme) -> None:
    """A border behind each segment, so that its ends can be seen where blocks of two segments meet."""
    every = np.arange(len(layout.segments.row))
    figure.add_bar(
        **_bars(layout.segments, every, y),
        width=0.94,
        marker={"color": theme.surface, "line": {"width": 1, "color": theme.muted}},
        hoverinfo="skip",
    )


def _add_blocks(figure: go.Figure, moment: Moment, layout: AddressMap, y: np.ndarray, theme: Theme) -> None:
    kind = layout.kind[layout.blocks.source]
    for position, name in enumerate(KINDS):
        chosen = np.flatnonzero(kind == position)
        if not len(chosen):
            continue
        source = layout.blocks.source[chosen]
        marker: dict[str, Any] = {
            "color": theme.band,
            "pattern": {"shape": "|", "fgcolor": theme.surface, "size": 3, "solidity": 0.3},
        }
        if name != MERGED:
            marker = {"color": theme.color(name), "pattern": hatch(name, theme)}
        figure.add_bar(
            **_bars(layout.blocks, chosen, y),
            width=0.88,
            name=row_label(name),
            marker=marker | {"line": {"width": 0 if name in FREE_ROWS else 0.6, "color": theme.surface}},
            customdata=layout.allocation_id[source].tolist(),
            hovertext=_hover_texts(moment, layout, source, name),
            hovertemplate="%{hovertext}<extra></extra>",
        )


def _hover_texts(moment: Moment, layout: AddressMap, source: np.ndarray, name: str) -> list[str]:
    made: dict[int, str] = {}
    for i in source.tolist():
        if i not in made:
            made[i] = _hover_text(moment, layout, i, name)
    return [made[i] for i in source.tolist()]


def _hover_text(moment: Moment, layout: AddressMap, position: int, name: str) -> str:
    size = int(layout.size_bytes[position])
    text = f"<b>{format_bytes(size)}</b> "
    if name == MERGED:
        n = int(layout.n_merged[position])
        active = format_bytes(int(layout.active_bytes[position]))
        return f"<b>{n:,} smaller, {format_bytes(size)}</b><br>{active} of it in use"
    text += row_label(name)
    row = int(layout.allocation_id[position])
    if row != NONE_ID:
        owner, site = moment.device.owner_of(row), moment.device.site_of(row)
        text += "".join(f"<br>{plain(line, 72)}" for line in (owner, site) if line)
    return f"{text}<br>{moment.device.trace.address_text(int(layout.address[position]))}"

"""One trace out of several that follow each other: the chunks in which a long recording was drained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from memscope.errors import UsageError
from memscope.trace import schema
from memscope.trace.builder import StackInterner, StringTable
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import (
    CacheLayerTable,
    CacheLengthTable,
    Int32Array,
    Int64Array,
    MarkTable,
    OwnerTable,
    SampleTable,
)
from memscope.trace.trace import Trace


def join_traces(parts: Sequence[Trace]) -> Trace:
    """Put traces of one process one after the other; the final segments and blocks, and the metadata, are the last's.

    Each device's events follow each other in the order of the parts. Positions in marks, samples and owners are moved
    along; an owner that a later part names by address (an allocation from before that part) is left out.

    Raises
    ------
    UsageError
        If there is no part.
    """
    if not parts:
        raise UsageError("there is nothing to join")
    ids = _Ids()
    columns = [ids.columns(part) for part in parts]
    places = _places(parts)
    events = {name: _scattered([c[name] for c in columns], places) for name in schema.EVENT_COLUMNS}
    last, of_last = parts[-1], ids.maps[-1]
    placed = [_Placed(*of_part) for of_part in zip(parts, places, ids.maps, strict=True)]
    return Trace(
        **events,
        segments=_replaced(last.segments, of_last),
        blocks=_replaced(last.blocks, of_last),
        stacks=ids.stacks.table(),
        strings=ids.strings.strings(),
        stream_handles=np.array(list(ids.streams), np.int64),
        pools=np.array(list(ids.pools), np.int64).reshape(-1, 2),
        metadata=last.metadata,
        samples=SampleTable.stacked([_at(of.part.samples, of.place) for of in placed]),
        marks=MarkTable.stacked([_marks(of, len(events["action"])) for of in placed]),
        owners=_sorted_owners(OwnerTable.stacked([_owners(of, is_first=of is placed[0]) for of in placed])),
        cache_layers=CacheLayerTable.stacked([_cache_layers(of) for of in placed]),
        cache_lengths=CacheLengthTable.stacked([_at(of.part.cache_lengths, of.place) for of in placed]),
    )


class _Placed(NamedTuple):
    """A part, where its events go, and what its ids become."""

    part: Trace
    place: Int64Array
    maps: dict[str, Int32Array]


def _marks(of: _Placed, n_events: int) -> MarkTable:
    marks = of.part.marks
    event = _moved(marks.event, of.place, n_events)
    return replace(marks, event=event, label_id=_mapped(marks.label_id, of.maps["label_id"]))


def _owners(of: _Placed, *, is_first: bool) -> OwnerTable:
    owners = of.part.owners
    moved = replace(
        owners,
        alloc_event=_moved(owners.alloc_event, of.place, place_end=0),
        label_id=_mapped(owners.label_id, of.maps["label_id"]),
    )
    return moved if is_first else moved.take(owners.alloc_event != NONE_ID)


def _cache_layers(of: _Placed) -> CacheLayerTable:
    layers: CacheLayerTable = _at(of.part.cache_layers, of.place)
    return replace(layers, kind_id=_mapped(layers.kind_id, of.maps["label_id"]))


class _Ids:
    """Strings, frames, stacks, streams and pools of all parts, each once; ``maps`` leads from a part's ids to them."""

    def __init__(self) -> None:
        self.strings = StringTable()
        self.stacks = StackInterner(self.strings)
        self.streams: dict[int, int] = {}
        self.pools: dict[tuple[int, int], int] = {}
        self.maps: list[dict[str, Int32Array]] = []

    def columns(self, part: Trace) -> dict[str, np.ndarray[Any, Any]]:
        """A part's event columns in the ids of all."""
        frames = [
            self.stacks.frame(part.strings[name], part.strings[file], line)
            for name, file, line in zip(
                part.stacks.name_id.tolist(), part.stacks.filename_id.tolist(), part.stacks.line.tolist(), strict=True
            )
        ]
        maps = {
            "label_id": _int32([self.strings.intern(text) for text in part.strings]),
            "stack_id": _int32(
                [
                    self.stacks.stack([frames[f] for f in part.stacks.frames_of(stack).tolist()])
                    for stack in range(len(part.stacks))
                ]
            ),
            "stream_id": _int32(
                [self.streams.setdefault(handle, len(self.streams)) for handle in part.stream_handles.tolist()]
            ),
            "pool_id": _int32(
                [self.pools.setdefault((a, b), len(self.pools)) for a, b in part.pools.tolist()],
            ),
        }
        self.maps.append(maps)
        return {
            name: _mapped(getattr(part, name), maps[name]) if name in maps else getattr(part, name)
            for name in schema.EVENT_COLUMNS
        }


def _places(parts: Sequence[Trace]) -> list[Int64Array]:
    """Where each part's events go: int64 (n_i,) positions in the joined trace, device by device."""
    devices = sorted({int(device) for part in parts for device in np.unique(part.device)})
    places = [np.empty(len(part), np.int64) for part in parts]
    n = 0
    for device in devices:
        for part, place in zip(parts, places, strict=True):
            here = np.flatnonzero(part.device == device)
            place[here] = n + np.arange(len(here))
            n += len(here)
    return places


def _scattered(columns: Sequence[np.ndarray[Any, Any]], places: Sequence[Int64Array]) -> np.ndarray[Any, Any]:
    joined = np.empty(sum(map(len, columns)), columns[0].dtype)
    for column, place in zip(columns, places, strict=True):
        joined[place] = column
    return joined


def _moved(position: Int64Array, place: Int64Array, place_end: int) -> Int64Array:
    """Positions of a part in the joined trace; −1 stays, and one past the part's end becomes ``place_end``."""
    moved = np.full(len(position), NONE_ID, np.int64)
    inside = (position >= 0) & (position < len(place))
    moved[inside] = place[position[inside]]
    after = position >= len(place)
    moved[after] = place.max() + 1 if len(place) else place_end
    return moved


def _mapped(ids: np.ndarray[Any, Any], new: Int32Array) -> Int32Array:
    found = np.full(len(ids), NONE_ID, np.int32)
    known = ids != NONE_ID
    found[known] = new[ids[known]]
    return found


def _replaced(table: Any, maps: dict[str, Int32Array]) -> Any:
    """A table of segments or blocks in the ids of all."""
    changes = {name: _mapped(getattr(table, name), new) for name, new in maps.items() if hasattr(table, name)}
    return replace(table, **changes)


def _at(table: Any, place: Int64Array) -> Any:
    """A table whose rows stand at events, in the positions of all."""
    return replace(table, event=_moved(table.event, place, 0))


def _sorted_owners(owners: OwnerTable) -> OwnerTable:
    return owners.take(np.lexsort((owners.address, owners.device, owners.alloc_event)))


def _int32(values: Sequence[int]) -> Int32Array:
    return np.array(values, np.int32)

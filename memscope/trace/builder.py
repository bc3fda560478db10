"""Building a trace event by event, while something is being recorded."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from memscope.trace import schema
from memscope.trace._device_order import in_device_order
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action, BlockState, MarkKind
from memscope.trace.tables import (
    BlockTable,
    CacheLayerTable,
    CacheLengthTable,
    MarkTable,
    OwnerTable,
    SampleTable,
    SegmentTable,
    StackTable,
)
from memscope.trace.trace import Trace


class StringTable:
    """Texts by dense id; the same text always has the same id."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def intern(self, text: str) -> int:
        """Id of the text, new if it was not seen before."""
        return self._ids.setdefault(text, len(self._ids))

    def intern_optional(self, text: str | None) -> int:
        """Id of the text, ``NONE_ID`` for None."""
        return NONE_ID if text is None else self.intern(text)

    def strings(self) -> tuple[str, ...]:
        """All texts, by id."""
        return tuple(self._ids)


class StackInterner:
    """Stacks by dense id, made of frames by dense id.

    Frames are keyed by (name, file, line), stacks by their tuple of frame ids, so that a million events share the few
    thousand stacks they really have.
    """

    def __init__(self, strings: StringTable) -> None:
        self._strings = strings
        self._frames: dict[tuple[int, int, int], int] = {}
        self._stacks: dict[tuple[int, ...], int] = {}

    def frame(self, name: str, filename: str, line: int) -> int:
        """Id of a frame."""
        key = (self._strings.intern(name), self._strings.intern(filename), line)
        return self._frames.setdefault(key, len(self._frames))

    def stack(self, frame_ids: Sequence[int]) -> int:
        """Id of a stack of frame ids, innermost first; ``NONE_ID`` for an empty one."""
        if not frame_ids:
            return NONE_ID
        return self._stacks.setdefault(tuple(frame_ids), len(self._stacks))

    def table(self) -> StackTable:
        """The stacks as columns."""
        lengths = np.fromiter((len(stack) for stack in self._stacks), np.int64, len(self._stacks))
        offsets = np.zeros(len(self._stacks) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        frame_ids = np.fromiter((f for stack in self._stacks for f in stack), np.int32, int(offsets[-1]))
        frames = np.array(list(self._frames), np.int32).reshape(-1, 3)
        return StackTable(
            offsets=offsets, frame_ids=frame_ids, name_id=frames[:, 0], filename_id=frames[:, 1], line=frames[:, 2]
        )


_ARRAY_CODE = {1: "b", 2: "h", 4: "i", 8: "q"}


class _Rows:
    """Columns that grow by appending; about as compact as the finished arrays."""

    def __init__(self, columns: schema.Columns) -> None:
        self._dtypes = columns
        self._columns = {name: array(_ARRAY_CODE[dtype.itemsize]) for name, dtype in columns.items()}
        self._first = next(iter(self._columns.values()))
        self._appends = [column.append for column in self._columns.values()]

    def __len__(self) -> int:
        return len(self._first)

    def append(self, **values: int) -> int:
        """Add a row with every column given; its position is returned."""
        position = len(self)
        for name, column in self._columns.items():
            column.append(values[name])
        return position

    def append_in_order(self, *values: int) -> int:
        """Add a row, its columns in their order, which takes half the time; its position is returned."""
        position = len(self._first)
        for append, value in zip(self._appends, values, strict=True):
            append(value)
        return position

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the columns as arrays."""
        return {
            name: np.frombuffer(column, dtype=f"i{column.itemsize}").astype(self._dtypes[name])
            if len(column)
            else np.empty(0, self._dtypes[name])
            for name, column in self._columns.items()
        }


class TraceBuilder:
    """Collects events, marks and owners of a recording under way, and makes the trace at its end.

    Events are added as they come, whatever their device; the trace has one device's after the other's. Final segments
    and blocks are given with :meth:`add_segment` and :meth:`add_block`, device after device in order of address.
    """

    def __init__(self) -> None:
        self.strings = StringTable()
        self.stacks = StackInterner(self.strings)
        self._events = _Rows(schema.EVENT_COLUMNS)
        self._segments = _Rows(schema.SEGMENT_COLUMNS)
        self._blocks = _Rows(schema.BLOCK_COLUMNS)
        self._marks = _Rows(schema.MARK_COLUMNS)
        self._samples = _Rows(schema.SAMPLE_COLUMNS)
        self._cache_layers = _Rows(schema.CACHE_LAYER_COLUMNS)
        self._cache_lengths = _Rows(schema.CACHE_LENGTH_COLUMNS)
        self._owners: dict[tuple[int, int, int], tuple[int, int, bool, int]] = {}
        self._streams: dict[int, int] = {}
        self._pools: dict[tuple[int, int], int] = {(0, 0): 0}

    @property
    def n_events(self) -> int:
        """Events added so far; the next one gets this position."""
        return len(self._events)

    def stream(self, handle: int) -> int:
        """Dense id of a raw stream handle, of which the 64 bits are kept as an int64."""
        handle -= (handle >> 63) << 64 if handle > 0 else 0
        return self._streams.setdefault(handle, len(self._streams))

    def pool(self, pool: tuple[int, int]) -> int:
        """Dense id of a pool; (0, 0) is 0."""
        return self._pools.setdefault(pool, len(self._pools))

    def add_event(
        self,
        action: Action | int,
        *,
        address: int,
        size_bytes: int,
        time_ns: int = NONE_ID,
        device: int = 0,
        stream: int = 0,
        pool: tuple[int, int] = (0, 0),
        stack_id: int = NONE_ID,
        label: str | None = None,
    ) -> int:
        """Add an event and return its position. ``stream`` is a raw handle, ``stack_id`` comes from ``stacks``."""
        return self._events.append_in_order(
            time_ns,
            int(action),
            device,
            address,
            size_bytes,
            self.stream(stream),
            self.pool(pool),
            stack_id,
            self.strings.intern_optional(label),
        )

    def add_mark(self, kind: MarkKind, label: str, time_ns: int = NONE_ID, *, event: int | None = None) -> None:
        """Add a mark before the next event, or before the one given; marks are added in the order of their events."""
        self._marks.append(
            event=self.n_events if event is None else event,
            time_ns=time_ns,
            kind=int(kind),
            label_id=self.strings.intern(label),
        )

    def add_sample(
        self,
        *,
        device: int = 0,
        time_ns: int = NONE_ID,
        device_free_bytes: int = NONE_ID,
        device_used_bytes: int = NONE_ID,
        process_used_bytes: int = NONE_ID,
        others_used_bytes: int = NONE_ID,
    ) -> None:
        """Add a sample of the device's own count before the next event; what was not measured stays −1."""
        self._samples.append(
            event=self.n_events,
            time_ns=time_ns,
            device=device,
            device_free_bytes=device_free_bytes,
            device_used_bytes=device_used_bytes,
            process_used_bytes=process_used_bytes,
            others_used_bytes=others_used_bytes,
        )

    def add_cache_layer(
        self,
        *,
        cache_id: int,
        layer: int,
        kind: str,
        n_sequences: int,
        key_token_bytes: int = NONE_ID,
        value_token_bytes: int = NONE_ID,
        capacity_tokens: int = NONE_ID,
        window_tokens: int = NONE_ID,
        device: int = 0,
    ) -> None:
        """Say how a layer of a cache keeps its tokens from the next event on; −1 as in ``CacheLayerTable``."""
        self._cache_layers.append(
            event=self.n_events,
            device=device,
            cache_id=cache_id,
            layer=layer,
            kind_id=self.strings.intern(kind),
            n_sequences=n_sequences,
            key_token_bytes=key_token_bytes,
            value_token_bytes=value_token_bytes,
            capacity_tokens=capacity_tokens,
            window_tokens=window_tokens,
        )

    def add_cache_length(self, cache_id: int, n_tokens: int, time_ns: int = NONE_ID, *, device: int = 0) -> None:
        """Say how many tokens of each sequence a key/value cache holds from the next event on."""
        self._cache_lengths.append(
            event=self.n_events, time_ns=time_ns, device=device, cache_id=cache_id, n_tokens=n_tokens
        )

    def set_owner(
        self, alloc_event: int, category: Category, label: str, *, tagged: bool = False, tensor: str | None = None
    ) -> None:
        """Say who owns the allocation made by an event. A user's tag is never replaced by anything but a tag.

        ``tensor`` is the type and shape of the tensor that fills it, None where that is not known.
        """
        self._set_owner((alloc_event, NONE_ID, NONE_ID), category, label, tagged, tensor)

    def set_owner_at(self, device: int, address: int, category: Category, label: str, *, tagged: bool = False) -> None:
        """Say who owns the allocation that lay at an address before the first event."""
        self._set_owner((NONE_ID, device, address), category, label, tagged)

    def _set_owner(
        self, allocation: tuple[int, int, int], category: Category, label: str, tagged: bool, tensor: str | None = None
    ) -> None:
        if not tagged and self._owners.get(allocation, (0, 0, False, 0))[2]:
            return
        tensor_id = NONE_ID if tensor is None else self.strings.intern(tensor)
        self._owners[allocation] = (int(category), self.strings.intern(label), tagged, tensor_id)

    def add_segment(
        self,
        *,
        address: int,
        size_bytes: int,
        is_large: bool,
        is_expandable: bool = False,
        device: int = 0,
        stream: int = 0,
        pool: tuple[int, int] = (0, 0),
        stack_id: int = NONE_ID,
    ) -> int:
        """Add a segment of the final state and return its position."""
        return self._segments.append(
            device=device,
            address=address,
            size_bytes=size_bytes,
            stream_id=self.stream(stream),
            pool_id=self.pool(pool),
            is_large=is_large,
            is_expandable=is_expandable,
            stack_id=stack_id,
        )

    def add_block(
        self,
        segment_id: int,
        *,
        address: int,
        size_bytes: int,
        requested_bytes: int,
        state: BlockState | int,
        stack_id: int = NONE_ID,
    ) -> None:
        """Add a block of the final state."""
        self._blocks.append(
            segment_id=segment_id,
            address=address,
            size_bytes=size_bytes,
            requested_bytes=requested_bytes if state != BlockState.INACTIVE else 0,
            state=int(state),
            stack_id=stack_id,
        )

    def forget_final(self) -> None:
        """Forget marks, final segments and blocks: the events go on, and those will be given again."""
        self._marks = _Rows(schema.MARK_COLUMNS)
        self._segments = _Rows(schema.SEGMENT_COLUMNS)
        self._blocks = _Rows(schema.BLOCK_COLUMNS)

    def build(self, metadata: TraceMetadata) -> Trace:
        """Make the trace of what was added; the builder can go on and build again."""
        rows = {"events": self._events, "samples": self._samples, "marks": self._marks}
        rows |= {"cache_layers": self._cache_layers, "cache_lengths": self._cache_lengths}
        tables, owners = in_device_order(
            {name: table.arrays() for name, table in rows.items()}, sorted(self._owners.items())
        )
        return Trace(
            **tables["events"],
            segments=SegmentTable.from_columns(self._segments.arrays()),
            blocks=BlockTable.from_columns(self._blocks.arrays()),
            stacks=self.stacks.table(),
            strings=self.strings.strings(),
            stream_handles=_int64(list(self._streams)),
            pools=_int64([list(pool) for pool in self._pools]),
            metadata=metadata,
            samples=SampleTable.from_columns(tables["samples"]),
            marks=MarkTable.from_columns(tables["marks"]),
            owners=OwnerTable.from_columns(_owner_columns(owners)),
            cache_layers=CacheLayerTable.from_columns(tables["cache_layers"]),
            cache_lengths=CacheLengthTable.from_columns(tables["cache_lengths"]),
        )


def _int64(values: Sequence[object]) -> np.ndarray:
    return np.array(values, np.int64)


def _owner_columns(
    owners: Sequence[tuple[tuple[int, int, int], tuple[int, int, bool, int]]],
) -> Mapping[str, list[int]]:
    return {
        "alloc_event": [event for (event, _, _), _ in owners],
        "device": [device for (_, device, _), _ in owners],
        "address": [address for (_, _, address), _ in owners],
        "category": [category for _, (category, *_) in owners],
        "label_id": [label_id for _, (_, label_id, *_) in owners],
        "tagged": [tagged for _, (_, _, tagged, _) in owners],
        "tensor_id": [tensor_id for _, (*_, tensor_id) in owners],
    }

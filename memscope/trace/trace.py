"""The trace: everything that was recorded about one process's GPU memory, in columns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np

from memscope.errors import InvariantError
from memscope.names import shown
from memscope.trace import schema
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action, BlockState, MarkKind
from memscope.trace.tables import (
    BlockTable,
    CacheLayerTable,
    CacheLengthTable,
    Int8Array,
    Int16Array,
    Int32Array,
    Int64Array,
    MarkTable,
    OwnerTable,
    SampleTable,
    SegmentTable,
    StackTable,
    frozen_array,
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack, resolved to text."""

    name: str
    filename: str
    line: int

    def as_shown(self) -> Frame:
        """With its names as they are shown, see :func:`~memscope.names.shown`."""
        return Frame(shown(self.name), shown(self.filename), self.line)

    def __str__(self) -> str:
        """As it is shown, see :func:`~memscope.names.shown`."""
        return f"{shown(self.filename)}:{self.line} {shown(self.name)}"


@dataclass(frozen=True)
class Trace:
    """n events of one process, and the segments and blocks at their end.

    An event's id is its position. ``address`` is −1 for an ``oom`` (what the device had free then is in ``samples``)
    and 0 for a ``snapshot``. ``size_bytes`` is what torch records: the *requested* bytes of allocs and frees, the real
    bytes of segment events, the rounded request of an ``oom``. Events of several devices are kept one device after
    the other, each in its own order.

    Attributes
    ----------
    time_ns
        int64 (n,): nanoseconds since the epoch (dry run: since its start), −1 where not recorded.
    action
        int8 (n,): :class:`~memscope.trace.schema.Action`.
    device, stream_id, pool_id, stack_id, label_id
        int16/int32 (n,): device index; dense ids into ``stream_handles``, ``pools``, ``stacks``, ``strings``; −1 none.
    segments, blocks
        The state after the last event.
    strings
        Every text of the trace, once.
    stream_handles
        int64: raw stream handles by stream id; 0 is the default stream.
    pools
        int64 (p, 2): pool ids by dense id; (0, 0) is the default pool.
    """

    time_ns: Int64Array
    action: Int8Array
    device: Int16Array
    address: Int64Array
    size_bytes: Int64Array
    stream_id: Int32Array
    pool_id: Int32Array
    stack_id: Int32Array
    label_id: Int32Array
    segments: SegmentTable
    blocks: BlockTable
    stacks: StackTable
    strings: tuple[str, ...]
    stream_handles: Int64Array
    pools: Int64Array
    metadata: TraceMetadata
    samples: SampleTable = field(default_factory=SampleTable.empty)
    marks: MarkTable = field(default_factory=MarkTable.empty)
    owners: OwnerTable = field(default_factory=OwnerTable.empty)
    cache_layers: CacheLayerTable = field(default_factory=CacheLayerTable.empty)
    cache_lengths: CacheLengthTable = field(default_factory=CacheLengthTable.empty)

    def __post_init__(self) -> None:
        for name, dtype in schema.EVENT_COLUMNS.items():
            object.__setattr__(self, name, frozen_array(getattr(self, name), dtype))
        object.__setattr__(self, "stream_handles", frozen_array(self.stream_handles, np.int64))
        object.__setattr__(self, "pools", frozen_array(self.pools, np.int64).reshape(-1, 2))
        self.check()

    def __len__(self) -> int:
        return len(self.action)

    def __repr__(self) -> str:
        return f"<Trace of {len(self):,} events, {len(self.segments):,} segments, source {self.metadata.source}>"

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.action)

    @cached_property
    def devices(self) -> tuple[int, ...]:
        """Devices that have events or segments, ascending."""
        found = np.union1d(np.unique(self.device), np.unique(self.segments.device))
        return tuple(int(device) for device in found)

    def event_range(self, device: int) -> tuple[int, int]:
        """Half-open range of the positions of a device's events (they are contiguous); (0, 0) if it has none."""
        return self._event_ranges.get(device, (0, 0))

    @cached_property
    def _event_ranges(self) -> dict[int, tuple[int, int]]:
        """Each device's range, found once: there may be thousands of devices."""
        starts = np.flatnonzero(np.diff(self.device, prepend=NONE_ID - 1))
        ends = np.append(starts, len(self.device))[1:]
        return {
            int(device): (start, end)
            for device, start, end in zip(self.device[starts], starts.tolist(), ends.tolist(), strict=True)
        }

    @cached_property
    def marked_device(self) -> int | None:
        """The device among whose events all marks lie, None where none is; of two with a border the larger one."""
        events = self.marks.event
        first, last = (int(events.min()), int(events.max())) if len(events) else (0, 0)
        holding = [
            (end - begin, -device)
            for device, (begin, end) in self._event_ranges.items()
            if not len(events) or begin <= first <= last <= end
        ]
        return -max(holding)[1] if holding else None

    def string(self, string_id: int) -> str | None:
        """The text of a string id, None for none."""
        return None if string_id == NONE_ID else self.strings[string_id]

    def shown_string(self, string_id: int) -> str | None:
        """The text of a string id as it is shown (:func:`shown`), None for none."""
        return None if string_id == NONE_ID else shown(self.strings[string_id])

    def frame(self, frame_id: int) -> Frame:
        """A frame as text."""
        stacks = self.stacks
        return Frame(
            name=self.strings[stacks.name_id[frame_id]],
            filename=self.strings[stacks.filename_id[frame_id]],
            line=int(stacks.line[frame_id]),
        )

    def stack(self, stack_id: int) -> tuple[Frame, ...]:
        """A stack as text, innermost frame first; empty where none was recorded."""
        return tuple(self.frame(int(frame_id)) for frame_id in self.stacks.frames_of(stack_id))

    def real_addresses(self, addresses: Int64Array) -> np.ndarray[tuple[int], np.dtype[np.integer]]:
        """Addresses as the process saw them, of ones that the trace holds; uint64 where some do not fit an int64."""
        bases = self.metadata.address_bases
        if not bases:
            return addresses
        taken_off = np.array([0, *(base for _, base in bases)], np.uint64)
        piece = np.searchsorted([first for first, _ in bases], addresses, side="right")
        return addresses.astype(np.uint64) + taken_off[piece]

    def address_text(self, address: int) -> str:
        """An address as the process saw it, in hexadecimal, of one that the trace holds."""
        return f"{self.metadata.real_address(address):#x}"

    def check(self) -> None:
        """Check lengths and that every id points into its table.

        This is about memscope's own bookkeeping; whether the *recording* contradicts itself is
        :func:`memscope.trace.validate.contradictions`.

        Raises
        ------
        InvariantError
            If it does not hold.
        """
        n = len(self.action)
        for name in schema.EVENT_COLUMNS:
            column = getattr(self, name)
            if column.shape != (n,):
                raise InvariantError(f"Trace.{name} has shape {column.shape}, expected ({n},)")
        limits = {
            "stream_id": len(self.stream_handles),
            "pool_id": len(self.pools),
            "stack_id": len(self.stacks),
            "label_id": len(self.strings),
        }
        for name, limit in limits.items():
            for owner in (self, self.segments, self.blocks, self.marks, self.owners):
                if any(f.name == name for f in fields(owner)):
                    _check_ids(f"{type(owner).__name__}.{name}", getattr(owner, name), limit)
        _check_ids("OwnerTable.tensor_id", self.owners.tensor_id, len(self.strings))
        _check_ids("CacheLayerTable.kind_id", self.cache_layers.kind_id, len(self.strings))
        _check_ids("BlockTable.segment_id", self.blocks.segment_id, len(self.segments))
        _check_words(self)
        _check_ids("StackTable.frame_ids", self.stacks.frame_ids, self.stacks.n_frames)
        _check_ids("StackTable.name_id", self.stacks.name_id, len(self.strings))
        _check_ids("StackTable.filename_id", self.stacks.filename_id, len(self.strings))
        if n and np.count_nonzero(np.diff(self.device)) != len(np.unique(self.device)) - 1:
            raise InvariantError("Trace: the events of a device are not contiguous")


def _check_words(trace: Trace) -> None:
    """Check that what stands for a word is one, and that what stands at an event has one."""
    n = len(trace)
    for name, words, known in (
        ("Trace.action", trace.action, Action),
        ("BlockTable.state", trace.blocks.state, BlockState),
        ("MarkTable.kind", trace.marks.kind, MarkKind),
        ("OwnerTable.category", trace.owners.category, Category),
    ):
        if len(words) and int(words.min()) < 0:
            raise InvariantError(f"{name} points outside its table of {len(known)}")
        _check_ids(name, words, len(known))
    for name, event in (
        ("SampleTable.event", trace.samples.event),
        ("MarkTable.event", trace.marks.event),
        ("CacheLayerTable.event", trace.cache_layers.event),
        ("CacheLengthTable.event", trace.cache_lengths.event),
    ):
        _check_ids(name, event, n + 1)
    _check_ids("OwnerTable.alloc_event", trace.owners.alloc_event, n)


def _check_ids(name: str, ids: np.ndarray[tuple[int], np.dtype[np.signedinteger]], limit: int) -> None:
    if len(ids) and (int(ids.min()) < NONE_ID or int(ids.max()) >= limit):
        raise InvariantError(f"{name} points outside its table of {limit}")

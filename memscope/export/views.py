"""The views of a trace: tables with a meaning for each column, for SQL, CSV and Parquet.

Ids are resolved to names, addresses are those that the process saw, and what was not recorded is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memscope.analysis import Analysis
from memscope.attribution.phases.phases import Phase, find_phases
from memscope.device.device import Device
from memscope.errors import UnknownNameError
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

_Columns = dict[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """A table that a trace can be asked as.

    Attributes
    ----------
    meaning
        What a row is.
    columns
        Each column's type in Arrow's words, and what it says.
    make
        Makes the columns of a trace.
    """

    meaning: str
    columns: Mapping[str, tuple[str, str]]
    make: Callable[[Analysis], _Columns]


def view_table(analysis: Analysis, name: str) -> pa.Table:
    """One view of a trace as an Arrow table.

    Raises
    ------
    UnknownNameError
        If there is no such view.
    ContradictionError
        If the trace contradicts itself.
    """
    import pyarrow as pa

    if name not in VIEWS:
        raise UnknownNameError(f"there is no view {name!r}", name, VIEWS)
    analysis.require_consistent()
    made = VIEWS[name].make(analysis)
    return pa.table({column: made[column] for column in VIEWS[name].columns})


def _numbers(values: npt.NDArray[Any], *, has_none: bool = False) -> pa.Array:
    """A column of numbers; with ``has_none`` −1 is null."""
    import pyarrow as pa

    return pa.array(values, mask=values == NONE_ID) if has_none else pa.array(values)


def _texts(ids: npt.NDArray[Any], texts: Sequence[str | None]) -> pa.Array:
    """A column of texts by position, null for −1; each distinct text is stored once."""
    import pyarrow as pa

    used, position = np.unique(ids, return_inverse=True)
    known = [None if i == NONE_ID else texts[i] for i in used.tolist()]
    distinct = list(dict.fromkeys(text for text in known if text is not None))
    place = {text: i for i, text in enumerate(distinct)}
    codes = np.array([NONE_ID if text is None else place[text] for text in known], np.int32)[position.reshape(-1)]
    plain = pa.array([text.encode("utf-8", "replace").decode() for text in distinct], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes == NONE_ID), plain)


def _joined(analysis: Analysis, make: Callable[[Device], _Columns], empty: Callable[[], _Columns]) -> _Columns:
    """The columns of every device, one below the other."""
    import pyarrow as pa

    parts = [make(device) for device in analysis.devices]
    if len(parts) < 2:
        return parts[0] if parts else empty()
    tables = [pa.table(part) for part in parts]
    joined = pa.concat_tables([_plain(table) for table in tables])
    return {name: joined.column(name) for name in joined.column_names}


def _plain(table: pa.Table) -> pa.Table:
    """The same without dictionaries, which differ between devices."""
    import pyarrow as pa

    fields = [
        pa.field(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _nothing(name: str) -> Callable[[], _Columns]:
    def make() -> _Columns:
        import pyarrow as pa

        types = {"text": pa.string(), "bool": pa.bool_(), "double": pa.float64()}
        return {
            column: pa.array([], types.get(kind) or getattr(pa, kind)())
            for column, (kind, _) in VIEWS[name].columns.items()
        }

    return make


def _events(analysis: Analysis) -> _Columns:
    trace = analysis.trace
    addresses = trace.real_addresses(trace.address)
    unknown = trace.address == NONE_ID
    return {
        "event": _numbers(np.arange(trace.n_events, dtype=np.int64)),
        "time_ns": _numbers(trace.time_ns, has_none=True),
        "action": _texts(trace.action, [action.name.lower() for action in Action]),
        "device": _numbers(trace.device),
        "address": _hexadecimal(addresses, unknown),
        "size_bytes": _numbers(trace.size_bytes),
        "stream": _streams(trace, trace.stream_id),
        "pool": _pools(trace, trace.pool_id),
        "stack_id": _numbers(trace.stack_id, has_none=True),
        "label": _texts(trace.label_id, trace.strings),
    }


def _hexadecimal(addresses: npt.NDArray[Any], is_unknown: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    import pyarrow as pa

    distinct, position = np.unique(addresses, return_inverse=True)
    texts = pa.array([f"{int(address) & 0xFFFF_FFFF_FFFF_FFFF:#x}" for address in distinct.tolist()], pa.string())
    codes = pa.array(position.reshape(-1).astype(np.int32), mask=is_unknown)
    return pa.DictionaryArray.from_arrays(codes, texts)


def _streams(trace: Trace, stream_ids: npt.NDArray[Any]) -> pa.Array:
    handles = [f"{handle & 0xFFFF_FFFF_FFFF_FFFF:#x}" for handle in trace.stream_handles.tolist()]
    return _texts(stream_ids, handles)


def _pools(trace: Trace, pool_ids: npt.NDArray[Any]) -> pa.Array:
    return _texts(pool_ids, [f"{first},{second}" for first, second in trace.pools.tolist()])


def _allocations(device: Device) -> _Columns:
    trace, table, attribution = device.trace, device.allocations, device.attribution
    phases = find_phases(device.lifetimes).row_phase
    steps = device.steps
    step = np.full(len(table), NONE_ID, np.int64) if steps is None else steps.step_of(table.alloc_event)
    sites = device.site_frames_of(np.arange(len(table)))
    names = {int(frame): device.recording.sites.name_of_frame(int(frame)) for frame in np.unique(sites) if frame >= 0}
    return {
        "device": _numbers(np.full(len(table), device.index, np.int16)),
        "alloc_event": _numbers(table.alloc_event, has_none=True),
        "free_requested_event": _numbers(table.free_requested_event, has_none=True),
        "free_event": _numbers(table.free_event, has_none=True),
        "address": _hexadecimal(trace.real_addresses(table.address)),
        "requested_bytes": _numbers(table.requested_bytes),
        "block_bytes": _numbers(table.block_bytes),
        "block_is_exact": _numbers(table.is_exact),
        "stream": _streams(trace, table.stream_id),
        "pool": _pools(trace, table.pool_id),
        "stack_id": _numbers(table.stack_id, has_none=True),
        "site": _texts(sites, _by_id(names)),
        "category": _texts(attribution.category, [category.label for category in Category]),
        "source": _texts(attribution.source, [source.label for source in CategorySource]),
        "owner": _texts(attribution.owner_id, trace.strings),
        "tensor": _texts(attribution.tensor_id, trace.strings),
        "tag": _texts(attribution.tag_id, trace.strings),
        "phase": _texts(phases, _by_id({int(phase): phase.label for phase in Phase if phase is not Phase.UNTOLD})),
        "step": _numbers(step, has_none=True),
        "is_live_at_peak": _numbers(_live_at_peak(device)),
    }


def _by_id(names: Mapping[int, str | None]) -> list[str | None]:
    """Names by their ids as a list."""
    found: list[str | None] = [None] * (max(names, default=-1) + 1)
    for i, name in names.items():
        found[i] = name
    return found


def _live_at_peak(device: Device) -> npt.NDArray[np.bool_]:
    live = np.zeros(len(device.allocations), np.bool_)
    live[device.peak().in_use_rows] = True
    return live


def _stacks(analysis: Analysis) -> _Columns:
    stacks = analysis.trace.stacks
    lengths = np.diff(stacks.offsets)
    stack_ids = np.repeat(np.arange(len(stacks), dtype=np.int32), lengths)
    depth = np.arange(len(stacks.frame_ids), dtype=np.int64) - stacks.offsets[:-1][stack_ids]
    return {
        "stack_id": _numbers(stack_ids),
        "depth": _numbers(depth.astype(np.int32)),
        "frame_id": _numbers(stacks.frame_ids),
    }


def _frames(analysis: Analysis) -> _Columns:
    trace = analysis.trace
    return {
        "frame_id": _numbers(np.arange(trace.stacks.n_frames, dtype=np.int32)),
        "function": _texts(trace.stacks.name_id, trace.strings),
        "file": _texts(trace.stacks.filename_id, trace.strings),
        "line": _numbers(trace.stacks.line),
    }


def _usage(device: Device) -> _Columns:
    usage, trace = device.usage, device.trace
    n = len(usage) - 1
    times = trace.time_ns[usage.first_event : usage.first_event + n]
    reserved = usage.reserved_bytes
    return {
        "device": _numbers(np.full(n, device.index, np.int16)),
        "event": _numbers(np.arange(n, dtype=np.int64) + usage.first_event),
        "time_ns": _numbers(times, has_none=True),
        "allocated_bytes": _numbers(usage.allocated_bytes[1:]),
        "active_bytes": _numbers(usage.active_bytes[1:]),
        "requested_bytes": _numbers(usage.requested_bytes[1:]),
        "reserved_bytes": _numbers(np.full(n, NONE_ID, np.int64) if reserved is None else reserved[1:], has_none=True),
    }


def _segments(analysis: Analysis) -> _Columns:
    trace = analysis.trace
    segments, blocks = trace.segments, trace.blocks
    active = np.zeros(len(segments), np.int64)
    in_use = blocks.state != 2
    np.add.at(active, blocks.segment_id[in_use], blocks.size_bytes[in_use])
    return {
        "device": _numbers(segments.device),
        "address": _hexadecimal(trace.real_addresses(segments.address)),
        "size_bytes": _numbers(segments.size_bytes),
        "active_bytes": _numbers(active),
        "stream": _streams(trace, segments.stream_id),
        "pool": _pools(trace, segments.pool_id),
        "is_large": _numbers(segments.is_large),
        "is_expandable": _numbers(segments.is_expandable),
        "stack_id": _numbers(segments.stack_id, has_none=True),
    }


def _owners(device: Device) -> _Columns:
    table, attribution = device.allocations, device.attribution
    keys = np.column_stack([attribution.category.astype(np.int64), attribution.owner_id.astype(np.int64)])
    distinct, position = np.unique(keys, axis=0, return_inverse=True) if len(keys) else (keys, np.empty(0, np.int64))
    position = position.reshape(-1)
    counts = np.bincount(position, minlength=len(distinct)).astype(np.int64)
    total, at_peak = np.zeros(len(distinct), np.int64), np.zeros(len(distinct), np.int64)
    np.add.at(total, position, table.requested_bytes)
    live = _live_at_peak(device)
    np.add.at(at_peak, position[live], table.requested_bytes[live])
    return {
        "device": _numbers(np.full(len(distinct), device.index, np.int16)),
        "category": _texts(distinct[:, 0], [category.label for category in Category]),
        "owner": _texts(distinct[:, 1], device.trace.strings),
        "n_allocations": _numbers(counts),
        "requested_bytes": _numbers(total),
        "requested_at_peak_bytes": _numbers(at_peak),
    }


def _steps(device: Device) -> _Columns:
    import pyarrow as pa

    steps, usage = device.steps, device.usage
    n = 0 if steps is None else len(steps)
    found = np.full((n, 2), NONE_ID, np.int64)
    for i in range(n):
        assert steps is not None
        within = slice(usage.index_of(int(steps.begin[i])), usage.index_of(int(steps.end[i])))
        found[i, 0] = usage.allocated_bytes[within].max()
        if usage.reserved_bytes is not None:
            found[i, 1] = usage.reserved_bytes[within].max()
    none = np.empty(0, np.int64)
    return {
        "device": _numbers(np.full(n, device.index, np.int16)),
        "step": _numbers(np.arange(n, dtype=np.int64)),
        "label": pa.array([] if steps is None else list(steps.labels), pa.string()),
        "begin_event": _numbers(none if steps is None else steps.begin),
        "end_event": _numbers(none if steps is None else steps.end),
        "peak_allocated_bytes": _numbers(found[:, 0], has_none=True),
        "peak_reserved_bytes": _numbers(found[:, 1], has_none=True),
    }


def _by_device(name: str, make: Callable[[Device], _Columns]) -> Callable[[Analysis], _Columns]:
    return lambda analysis: _joined(analysis, make, _nothing(name))


_DEVICE = ("int16", "the device's index")
_STREAM = ("text", "the stream's handle, in hexadecimal")
_POOL = ("text", "the memory pool's two numbers, 0,0 for the default one; null where not recorded")
_ADDRESS = ("text", "as the process saw it, in hexadecimal")
_STACK = ("int32", "of the view stacks; null where none was recorded")
_CATEGORY = (
    "text",
    "weights, gradients, optimizer_state, activations, kv_cache, inputs and so on; unknown where nothing tells",
)

VIEWS: dict[str, View] = {
    "events": View(
        "everything that was recorded, in order",
        {
            "event": ("int64", "its position, by which all else names it"),
            "time_ns": ("int64", "nanoseconds since the epoch (a dry run: since its start); null where not recorded"),
            "action": ("text", "torch's word: alloc, free_requested, free_completed, segment_alloc and so on"),
            "device": _DEVICE,
            "address": ("text", "as the process saw it, in hexadecimal; null for an oom"),
            "size_bytes": ("int64", "requested bytes of allocs and frees, real bytes of segment events"),
            "stream": _STREAM,
            "pool": _POOL,
            "stack_id": _STACK,
            "label": ("text", "the range that the program was in; null for none"),
        },
        _events,
    ),
    "allocations": View(
        "one row from alloc to free; those that predate the events come first",
        {
            "device": _DEVICE,
            "alloc_event": ("int64", "the event that made it; null where it predates the events"),
            "free_requested_event": ("int64", "the event at which the program let go of it; null for never"),
            "free_event": ("int64", "the event at which its block became free; null for never"),
            "address": _ADDRESS,
            "requested_bytes": ("int64", "what was asked for"),
            "block_bytes": ("int64", "what the allocator gave"),
            "block_is_exact": ("bool", "false where block_bytes is only a lower bound"),
            "stream": _STREAM,
            "pool": _POOL,
            "stack_id": _STACK,
            "site": ("text", "the program's own line of code in the stack: file:line function"),
            "category": _CATEGORY,
            "source": ("text", "what told the category: identity, user, rule, lifetime, inferred, none"),
            "owner": ("text", "the owner's name; null where none was seen"),
            "tensor": ("text", "type and shape of the tensor that fills it; null where not seen"),
            "tag": ("text", "the user's tag; null for none"),
            "phase": ("text", "what the program was doing: forward, backward, optimizer, generate; null where untold"),
            "step": ("int64", "of the view steps; null outside of them"),
            "is_live_at_peak": ("bool", "whether it was in use when most was allocated on its device"),
        },
        _by_device("allocations", _allocations),
    ),
    "stacks": View(
        "one row for each call of each stack",
        {
            "stack_id": ("int32", "which stack"),
            "depth": ("int32", "0 for the innermost call"),
            "frame_id": ("int32", "of the view frames"),
        },
        _stacks,
    ),
    "frames": View(
        "one row for each distinct call",
        {
            "frame_id": ("int32", "which frame"),
            "function": ("text", "the function's name"),
            "file": ("text", "its file"),
            "line": ("int32", "the line in it"),
        },
        _frames,
    ),
    "usage": View(
        "what a device's memory was after each of its events",
        {
            "device": _DEVICE,
            "event": ("int64", "after this event"),
            "time_ns": ("int64", "when that was; null where not recorded"),
            "allocated_bytes": ("int64", "bytes of blocks in use"),
            "active_bytes": ("int64", "bytes of blocks in use or pending"),
            "requested_bytes": ("int64", "what was asked for, of active blocks"),
            "reserved_bytes": ("int64", "bytes of segments; null where they were not recorded"),
        },
        _by_device("usage", _usage),
    ),
    "segments": View(
        "the segments after the last event",
        {
            "device": _DEVICE,
            "address": _ADDRESS,
            "size_bytes": ("int64", "its bytes"),
            "active_bytes": ("int64", "bytes of its blocks in use or pending"),
            "stream": _STREAM,
            "pool": _POOL,
            "is_large": ("bool", "whether it is of the pool of large blocks"),
            "is_expandable": ("bool", "whether it can grow"),
            "stack_id": _STACK,
        },
        _segments,
    ),
    "owners": View(
        "allocations summed by category and owner",
        {
            "device": _DEVICE,
            "category": _CATEGORY,
            "owner": ("text", "the owner's name; null for all without one"),
            "n_allocations": ("int64", "how many it had over the whole recording"),
            "requested_bytes": ("int64", "what they asked for, together"),
            "requested_at_peak_bytes": ("int64", "of those in use when most was allocated on the device"),
        },
        _by_device("owners", _owners),
    ),
    "steps": View(
        "the steps of the program, whole ones",
        {
            "device": _DEVICE,
            "step": ("int64", "counted from 0"),
            "label": ("text", "its name"),
            "begin_event": ("int64", "its first event"),
            "end_event": ("int64", "the first event after it"),
            "peak_allocated_bytes": ("int64", "the most that was allocated in it"),
            "peak_reserved_bytes": ("int64", "the most that was reserved in it; null where segments were not recorded"),
        },
        _by_device("steps", _steps),
    ),
}
"""What can be asked for, by name."""

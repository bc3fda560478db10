"""Writing a trace as a torch memory snapshot, for ``_memory_viz.py``, pytorch.org/memory_viz and other readers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from memscope.files import whole_file
from memscope.trace.metadata import CONF_VARIABLES
from memscope.trace.schema import NONE_ID, Action, BlockState, MarkKind, TieRule
from memscope.trace.snapshot._events import is_step_name
from memscope.trace.trace import Trace

_PROTOCOL = 4
"""Python's own default up to 3.13, and the newest that pytorch.org/memory_viz reads."""
_LARGE = ("small", "large")


def write_snapshot(trace: Trace, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a trace as a pickle of plain built-in types in torch's own layout; the file appears whole or not at all.

    Only keys that the trace can fill are written, so that what is read back claims no newer torch than was recorded.
    Times are cut to microseconds; owners, samples other than those at ``oom`` events, and marks without a time have no
    place in the format and are left out. A mark of a step becomes the end of a range of that name, or of
    ``ProfilerStep#N`` if no reader would take its name for a step's.

    Raises
    ------
    UsageError
        If the file exists and ``overwrite`` is false.
    InputFileError
        If it cannot be written there.
    """
    with whole_file(path, overwrite=overwrite) as file:
        pickle.dump(snapshot_dict(trace), file, protocol=_PROTOCOL)
    return Path(path)


def snapshot_dict(trace: Trace) -> dict[str, Any]:
    """The trace as the dictionary that ``torch.cuda.memory._snapshot()`` returns; frames and stacks are shared."""
    stacks = _Stacks(trace)
    snapshot: dict[str, Any] = {}
    if trace.metadata.block_layout_recorded:
        snapshot["segments"] = _segments(trace, stacks)
    snapshot["device_traces"] = _device_traces(trace, stacks)
    settings = _settings(trace)
    if settings:
        snapshot["allocator_settings"] = settings
    annotations = _annotations(trace)
    if annotations or trace.metadata.tie_rule in (TieRule.BLOCK_AGE, TieRule.SEGMENT_AGE):
        snapshot["external_annotations"] = annotations
    return snapshot


class _Stacks:
    """One list for each stack and one dict for each frame, so that the pickle keeps them shared."""

    def __init__(self, trace: Trace) -> None:
        frames = [trace.frame(frame_id) for frame_id in range(trace.stacks.n_frames)]
        dicts = [{"name": frame.name, "filename": frame.filename, "line": frame.line} for frame in frames]
        self._lists = [
            [dicts[frame_id] for frame_id in trace.stacks.frames_of(stack_id).tolist()]
            for stack_id in range(len(trace.stacks))
        ]

    def __getitem__(self, stack_id: int) -> list[dict[str, Any]]:
        return [] if stack_id == NONE_ID else self._lists[stack_id]


def _segments(trace: Trace, stacks: _Stacks) -> list[dict[str, Any]]:
    blocks = _blocks(trace, stacks)
    columns = {name: column.tolist() for name, column in trace.segments.columns().items()}
    columns["address"] = trace.real_addresses(trace.segments.address).tolist()
    handles, pools = trace.stream_handles.tolist(), [tuple(pool) for pool in trace.pools.tolist()]
    segments = []
    for i, mine in enumerate(blocks):
        active = [block for block in mine if block["state"] != "inactive"]
        segments.append(
            {
                "device": columns["device"][i],
                "address": columns["address"][i],
                "total_size": columns["size_bytes"][i],
                "allocated_size": sum(b["size"] for b in active if b["state"] == "active_allocated"),
                "active_size": sum(b["size"] for b in active),
                "requested_size": sum(b["requested_size"] for b in active),
                "stream": handles[columns["stream_id"][i]],
                "segment_type": _LARGE[columns["is_large"][i]],
                "segment_pool_id": pools[columns["pool_id"][i]],
                "is_expandable": columns["is_expandable"][i],
                "frames": stacks[columns["stack_id"][i]],
                "blocks": mine,
            }
        )
    return segments


def _blocks(trace: Trace, stacks: _Stacks) -> list[list[dict[str, Any]]]:
    """The blocks of each segment."""
    names = {state: state.name.lower() for state in BlockState}
    by_segment: list[list[dict[str, Any]]] = [[] for _ in range(len(trace.segments))]
    in_columns = trace.blocks.columns() | {"address": trace.real_addresses(trace.blocks.address)}
    columns = (column.tolist() for column in in_columns.values())
    for segment_id, address, size, requested, state, stack_id in zip(*columns, strict=True):
        by_segment[segment_id].append(
            {
                "address": address,
                "size": size,
                "requested_size": requested,
                "state": names[state],
                "frames": stacks[stack_id],
            }
        )
    return by_segment


def _device_traces(trace: Trace, stacks: _Stacks) -> list[list[dict[str, Any]]]:
    n_devices = max(trace.devices, default=-1) + 1
    return [_events(trace, stacks, *trace.event_range(device)) for device in range(n_devices)]


def _events(trace: Trace, stacks: _Stacks, start: int, stop: int) -> list[dict[str, Any]]:
    names = {int(action): action.name.lower() for action in Action}
    handles, pools = trace.stream_handles.tolist(), [tuple(pool) for pool in trace.pools.tolist()]
    device_free = _device_free(trace)
    writes_labels = trace.metadata.has_pool_ids or bool((trace.label_id != NONE_ID).any())
    names_columns = ("action", "address", "size_bytes", "stream_id", "time_ns", "label_id", "pool_id", "stack_id")
    columns = (getattr(trace, name)[start:stop].tolist() for name in names_columns)
    events = []
    for position, row in enumerate(zip(*columns, strict=True), start):
        action, address, size, stream_id, time_ns, label_id, pool_id, stack_id = row
        event: dict[str, Any] = {"action": names[action]}
        if action != Action.OOM:
            event["addr"] = address if action == Action.SNAPSHOT else trace.metadata.real_address(address)
        elif position in device_free:
            event["device_free"] = device_free[position]
        event["size"] = size
        event["stream"] = handles[stream_id]
        if time_ns != NONE_ID:
            event["time_us"] = time_ns // 1000
        if writes_labels:
            event["compile_context"] = "N/A"
            event["user_metadata"] = "" if label_id == NONE_ID else trace.strings[label_id]
        if trace.metadata.has_pool_ids and pool_id != NONE_ID:
            event["pool_id"] = pools[pool_id]
        if stack_id != NONE_ID:
            event["frames"] = stacks[stack_id]
        events.append(event)
    return events


def _device_free(trace: Trace) -> dict[int, int]:
    """Free bytes of the device at each ``oom`` event that has a sample of them."""
    samples = trace.samples
    measured = samples.device_free_bytes != NONE_ID
    events = samples.event[measured].tolist()
    return {
        event: free
        for event, free in zip(events, samples.device_free_bytes[measured].tolist(), strict=True)
        if event < trace.n_events and trace.action[event] == Action.OOM
    }


def _settings(trace: Trace) -> dict[str, Any]:
    metadata = trace.metadata
    settings = dict(metadata.allocator_settings)
    if metadata.alloc_conf is not None and not any(name in settings for name in CONF_VARIABLES):
        settings.setdefault("PYTORCH_CUDA_ALLOC_CONF", metadata.alloc_conf)
    if metadata.tie_rule == TieRule.SEGMENT_AGE:
        # Pinned host memory's limit, -1 for none: the key by which readers tell torch 2.13 and its tie rule.
        settings.setdefault("max_cached_size", -1)
    return settings


def _annotations(trace: Trace) -> list[dict[str, Any]]:
    """Marks that have a time, as ranges' starts and ends; a step that follows its own range's end is already there."""
    marks = trace.marks
    annotations: list[dict[str, Any]] = []
    last = ("", NONE_ID)
    n_steps = 0
    for event, time_ns, kind, label_id in zip(*(c.tolist() for c in marks.columns().values()), strict=True):
        if time_ns == NONE_ID:
            continue
        name = trace.strings[label_id]
        device = int(trace.device[min(event, trace.n_events - 1)]) if trace.n_events else 0
        if kind == MarkKind.STEP:
            n_steps += 1
            if last == (name, time_ns):
                continue
            name = name if is_step_name(name) else f"ProfilerStep#{n_steps - 1}"
        stage = "START" if kind == MarkKind.PHASE_BEGIN else "END"
        annotations.append({"stage": stage, "name": name, "device": device, "time_us": time_ns // 1000})
        last = (name, time_ns) if stage == "END" else ("", NONE_ID)
    return annotations

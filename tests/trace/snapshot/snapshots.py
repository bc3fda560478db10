"""Small snapshots as torch writes them, for tests to change."""

import copy
import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from memscope.trace.schema import ACTION_BY_NAME, BLOCK_STATE_BY_NAME, NONE_ID, BlockState
from memscope.trace.trace import Frame, Trace

MIB = 1 << 20
BASE = 0x7F0000000000
FRAMES = [
    {"name": "forward", "filename": "/src/model.py", "line": 10},
    {"name": "<module>", "filename": "/src/train.py", "line": 3},
]


def block(address: int, size: int, state: str = "inactive", requested: int = 0, frames: Any = ()) -> dict[str, Any]:
    return {
        "address": address,
        "size": size,
        "requested_size": requested,
        "state": state,
        "frames": list(frames),
    }


def segment(address: int, blocks: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    active = [b for b in blocks if b["state"] != "inactive"]
    return {
        "device": 0,
        "address": address,
        "total_size": sum(b["size"] for b in blocks),
        "allocated_size": sum(b["size"] for b in active if b["state"] == "active_allocated"),
        "active_size": sum(b["size"] for b in active),
        "requested_size": sum(b["requested_size"] for b in active),
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": blocks,
    } | changes


def event(action: str, addr: int, size: int, time_us: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": time_us, **more}


def small() -> dict[str, Any]:
    """One device: a 20 MiB segment, an allocation that lives and one that died; torch 2.5 to 2.7."""
    a, b = BASE, BASE + 4 * MIB
    blocks = [
        block(a, 4 * MIB, "active_allocated", 4 * MIB - 100, FRAMES),
        block(b, 16 * MIB, requested=777),
    ]
    return {
        "segments": [segment(a, blocks)],
        "device_traces": [
            [
                event("segment_alloc", a, 20 * MIB, 100, frames=FRAMES),
                event("alloc", a, 4 * MIB - 100, 101, frames=FRAMES),
                event("alloc", b, 777, 102, frames=FRAMES[:1]),
                event("free_requested", b, 777, 103, frames=[]),
                event("free_completed", b, 777, 103),
            ]
        ],
        "allocator_settings": {
            "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64",
            "max_split_size": 64 * MIB,
            "garbage_collection_threshold": 0.0,
            "expandable_segments": False,
            "roundup_power2_divisions": {"1": 0, "2": 4},
        },
        "external_annotations": [],
    }


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """``small()`` with the value at a path of keys and indices replaced; ``...`` removes the key."""
    snapshot = copy.deepcopy(small())
    place: Any = snapshot
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return snapshot


def write(tmp_path: Path, snapshot: Any, protocol: int = 4) -> Path:
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps(snapshot, protocol))
    return path


def trusted_load(path: Path) -> Any:
    """What the Python library reads; only for files of known origin."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return pickle.load(file)


def frames_of(dicts: Any) -> tuple[Frame, ...]:
    return tuple(Frame(d["name"], d["filename"], d["line"]) for d in dicts)


def check_stacks(trace: Trace, stack_ids: np.ndarray, frame_lists: list[Any]) -> None:
    """Every stack id stands for the frames recorded; each distinct (id, list) once."""
    by_id = {int(stack_id): trace.stack(int(stack_id)) for stack_id in np.unique(stack_ids)}
    seen = set()
    for stack_id, frames in zip(stack_ids.tolist(), frame_lists, strict=True):
        if (stack_id, id(frames)) not in seen:
            seen.add((stack_id, id(frames)))
            assert by_id[stack_id] == frames_of(frames or [])


def check_events(trace: Trace, snapshot: dict[str, Any]) -> None:
    traces = snapshot.get("device_traces", [])
    events = [e for device in traces for e in device]
    assert trace.device.tolist() == [i for i, device in enumerate(traces) for _ in device]
    assert trace.action.tolist() == [int(ACTION_BY_NAME[e["action"]]) for e in events]
    assert trace.address.tolist() == [-1 if e["action"] == "oom" else e["addr"] for e in events]
    assert trace.size_bytes.tolist() == [e["size"] for e in events]
    assert trace.time_ns.tolist() == [e.get("time_us", -1) * 1000 if "time_us" in e else -1 for e in events]
    assert trace.stream_handles[trace.stream_id].tolist() == [e["stream"] for e in events]
    if trace.metadata.has_pool_ids:
        assert [tuple(pool) for pool in trace.pools[trace.pool_id].tolist()] == [e["pool_id"] for e in events]
    else:
        assert (trace.pool_id == NONE_ID).all()
    assert [trace.string(i) for i in trace.label_id.tolist()] == [e.get("user_metadata") or None for e in events]
    check_stacks(trace, trace.stack_id, [e.get("frames") for e in events])
    ooms = [(i, e["device_free"]) for i, e in enumerate(events) if e["action"] == "oom"]
    assert list(zip(trace.samples.event.tolist(), trace.samples.device_free_bytes.tolist(), strict=True)) == ooms


def check_state(trace: Trace, snapshot: dict[str, Any]) -> None:
    ordered = sorted(snapshot["segments"], key=lambda s: (s["device"], s["address"]))
    segments, blocks = trace.segments, trace.blocks
    assert segments.device.tolist() == [s["device"] for s in ordered]
    assert segments.address.tolist() == [s["address"] for s in ordered]
    assert segments.size_bytes.tolist() == [s["total_size"] for s in ordered]
    assert segments.is_large.tolist() == [s["segment_type"] == "large" for s in ordered]
    assert segments.is_expandable.tolist() == [s.get("is_expandable", False) for s in ordered]
    assert trace.stream_handles[segments.stream_id].tolist() == [s["stream"] for s in ordered]
    pools = [tuple(s.get("segment_pool_id", (0, 0))) for s in ordered]
    assert [tuple(pool) for pool in trace.pools[segments.pool_id].tolist()] == pools
    check_stacks(trace, segments.stack_id, [s.get("frames") for s in ordered])
    rows = []
    for i, s in enumerate(ordered):
        address = s["address"]
        for b in s["blocks"]:
            state = BLOCK_STATE_BY_NAME[b["state"]]
            requested = 0 if state == BlockState.INACTIVE else b["requested_size"]
            frames = b["frames"] if "frames" in b else b["history"][0]["frames"] if b.get("history") else []
            rows.append((i, b.get("address", address), b["size"], requested, int(state), frames))
            address += b["size"]
    rows.sort(key=lambda row: row[:2])
    assert [list(column) for column in zip(*(row[:5] for row in rows), strict=True)] == [
        getattr(blocks, name).tolist() for name in ("segment_id", "address", "size_bytes", "requested_bytes", "state")
    ]
    check_stacks(trace, blocks.stack_id, [row[5] for row in rows])

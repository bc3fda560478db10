"""Small snapshots as torch writes them, for tests to change."""

import copy
import gzip
import pickle
from pathlib import Path
from typing import Any

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

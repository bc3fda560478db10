"""Pages of torch 2.0's ``_memory_viz.py``."""

import json
from pathlib import Path
from typing import Any

import pytest

from memscope.analysis import load
from memscope.errors import InputFileError
from memscope.trace.schema import Action, BlockState
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.validate import contradictions
from tests.trace.snapshot.snapshots import BASE, MIB

STRINGS = [
    "segment_alloc",
    "alloc",
    "free",
    "oom",
    "/src/model.py:10:forward",
    "/src/a:b.py:3:<module>",
    "free_requested",
]


def state_data() -> dict[str, Any]:
    """A 20 MiB segment: one block lives, one died, one waits for a stream, and a request failed."""
    a, b, c = BASE, BASE + 4 * MIB, BASE + 4 * MIB
    return {
        "string_table": STRINGS,
        "suffix_table": [[4, 1], [5, None]],
        "events": {
            "action": [0, 1, 1, 2, 1, 6, 3],
            "addr": [a, a, b, b, c, c, 512],
            "size": [20 * MIB, 4 * MIB - 100, 3 * MIB, 3 * MIB, 2 * MIB, 2 * MIB, 1 << 40],
            "stream": [0] * 7,
            "frames": [0, 0, 1, None, 0, 0, None],
        },
        "segments": {"addr": [a], "size": [20 * MIB], "stream": [0]},
        "blocks": {
            "addr": [c, a],
            "size": [2 * MIB, 4 * MIB],
            "real_size": [2 * MIB, 4 * MIB - 100],
            "frames": [0, 0],
            "pending_free": [1, 0],
        },
    }


def plot_data(letter: str = "b") -> dict[str, Any]:
    """Three allocations: from before and freed, freed at once, and kept."""
    texts = [f"{letter}{BASE + i * MIB:x}_0 1.0KiB allocation ({1000 + i} bytes)" for i in range(3)]
    return {
        "actions": [1, 0, 2, 1],
        "elements_size": [1000, 1001, 1002],
        "elements_info": [0, 1, 2],
        "elements_category": None,
        "suffix_table": [[0, 3], [1, 3], [2, 3], [3, None]],
        "string_table": [*texts, "/src/model.py:10:forward"],
        "initially_allocated": [0],
        "categories": None,
    }


def page(tmp_path: Path, name: str, data: Any) -> Path:
    text = data if isinstance(data, str) else json.dumps(data)
    script = f'import {{main}} from "https://cdn/torch/utils/viz/Plot.js"\nlet {name} = {text}\nmain({name})'
    path = tmp_path / "page.html"
    path.write_text(f'\n<!DOCTYPE html>\n<html>\n<head></head>\n<body>\n<script type="module">\n{script}\n</script>')
    return path


def test_a_page_of_the_states_is_its_snapshot(tmp_path: Path) -> None:
    trace = read_snapshot(page(tmp_path, "trace_data", state_data()))
    assert [Action(a).name for a in trace.action] == [
        "SEGMENT_ALLOC",
        "ALLOC",
        "ALLOC",
        "FREE_REQUESTED",
        "FREE_COMPLETED",
        "ALLOC",
        "FREE_REQUESTED",
        "OOM",
    ]
    assert trace.address.tolist()[:3] == [BASE, BASE, BASE + 4 * MIB]
    assert trace.samples.device_free_bytes.tolist() == [512]
    assert [str(frame) for frame in trace.stack(int(trace.stack_id[1]))] == [
        "/src/model.py:10 forward",
        "/src/a:b.py:3 <module>",
    ]
    assert [BlockState(s).name for s in trace.blocks.state] == [
        "ACTIVE_ALLOCATED",
        "ACTIVE_PENDING_FREE",
        "INACTIVE",
    ]
    assert trace.blocks.requested_bytes.tolist() == [4 * MIB - 100, 2 * MIB, 0]
    assert not contradictions(trace)
    analysis = load(page(tmp_path, "trace_data", state_data()))
    analysis.require_consistent()
    assert analysis.peak().lifetimes.usage.reserved_bytes is not None
    assert trace.metadata.notes[0].startswith("A page of segment_plot of torch 2.0")


def test_a_page_of_the_timeline_is_its_allocations(tmp_path: Path) -> None:
    path = page(tmp_path, "alloc_data", plot_data())
    trace = read_snapshot(path)
    assert [Action(a).name for a in trace.action] == [
        "ALLOC",
        "ALLOC",
        "FREE_REQUESTED",
        "FREE_COMPLETED",
        "ALLOC",
        "FREE_REQUESTED",
        "FREE_COMPLETED",
    ]
    assert trace.size_bytes.tolist() == [1000, 1001, 1000, 1000, 1002, 1001, 1001]
    assert trace.address.tolist()[:2] == [BASE, BASE + MIB]
    analysis = load(path)
    analysis.require_consistent()
    assert analysis.device(0).usage.reserved_bytes is None
    assert int(analysis.device(0).usage.requested_bytes.max()) == 1001 + 1002


def test_a_page_of_the_segments_is_their_events(tmp_path: Path) -> None:
    trace = read_snapshot(page(tmp_path, "alloc_data", plot_data("s")))
    assert [Action(a).name for a in trace.action] == [
        "SEGMENT_ALLOC",
        "SEGMENT_ALLOC",
        "SEGMENT_FREE",
        "SEGMENT_ALLOC",
        "SEGMENT_FREE",
    ]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("trace_data", "{", "what it draws is damaged"),
        ("trace_data", "{" * 100_000, "what it draws is damaged"),
        ("trace_data", {}, "what it draws is damaged"),
        ("trace_data", state_data() | {"suffix_table": [[4, 0]]}, "what it draws is damaged"),
        ("trace_data", state_data() | {"segments": {"addr": [1, 2], "size": [9, 9], "stream": [0, 0]}}, "is damaged"),
        ("trace_data", state_data() | {"string_table": [1] * 7}, "what it draws is damaged"),
        ("trace_data", state_data() | {"segments": {"addr": ["x"], "size": [1], "stream": [0]}}, "is damaged"),
        ("trace_data", state_data() | {"string_table": ["explode"] * 7}, "unknown action 'explode'"),
        ("alloc_data", plot_data() | {"actions": [99]}, "what it draws is damaged"),
        (
            "alloc_data",
            plot_data() | {"string_table": ["1.0KiB (1000 bytes) allocation (unknown)"] * 4},
            "is a page of torch.profiler's memory (profile_plot",
        ),
    ],
)
def test_a_damaged_page_is_refused_in_one_line(tmp_path: Path, name: str, data: Any, reason: str) -> None:
    with pytest.raises(InputFileError) as caught:
        read_snapshot(page(tmp_path, name, data))
    assert reason in caught.value.reason
    assert str(caught.value).isprintable()

"""The views of a trace: their columns as documented, their numbers those of the analysis."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from memscope.analysis import Analysis, load
from memscope.errors import UnknownNameError
from memscope.export.views import VIEWS, view_table
from memscope.trace.schema import Action
from tests.oom.planted import plant
from tests.rank_traces import Alloc, rank_trace

SHIPPED = Path(__file__).parents[2] / "traces"
NAMES = ("tiny-llama-train", "tiny-gpt2-generate", "tiny-out-of-memory")
_TYPES = {"text": ("string", "dictionary<values=string, indices=int32, ordered=0>"), "bool": ("bool",)}


@pytest.mark.parametrize("name", [*NAMES, "two devices", "none"])
@pytest.mark.parametrize("view", list(VIEWS))
def test_each_view_has_the_columns_that_it_says(name: str, view: str) -> None:
    if name == "two devices":
        analysis = Analysis(rank_trace([Alloc("a", 10)], [Alloc("b", 20)]))
    elif name == "none":
        analysis = Analysis(rank_trace())
    else:
        analysis = load(SHIPPED / f"{name}.memscope")
    table = view_table(analysis, view)
    assert table.column_names == list(VIEWS[view].columns)
    for field in table.schema:
        kind = VIEWS[view].columns[field.name][0]
        assert str(field.type) in _TYPES.get(kind, (kind,)), field.name


def test_the_numbers_are_those_of_the_analysis() -> None:
    analysis = load(SHIPPED / "tiny-llama-train.memscope")
    device = analysis.device()
    allocations = view_table(analysis, "allocations").to_pylist()
    assert sum(row["block_bytes"] for row in allocations if row["is_live_at_peak"]) == device.peak().allocated_bytes
    by_category: dict[str, int] = {}
    for row in allocations:
        if row["is_live_at_peak"]:
            by_category[row["category"]] = by_category.get(row["category"], 0) + row["requested_bytes"]
    ledger = {row.name: row.bytes for row in device.peak().ledger.rows if row.is_category and row.bytes}
    assert by_category == ledger
    owners = view_table(analysis, "owners").to_pylist()
    assert sum(row["requested_at_peak_bytes"] for row in owners) == sum(ledger.values())
    assert sum(row["n_allocations"] for row in owners) == len(allocations)
    usage = view_table(analysis, "usage")
    assert usage.column("allocated_bytes").to_pylist() == device.usage.allocated_bytes[1:].tolist()
    steps = view_table(analysis, "steps").to_pylist()
    assert max(row["peak_allocated_bytes"] for row in steps) == device.peak().allocated_bytes
    segments = view_table(analysis, "segments").to_pylist()
    assert sum(row["size_bytes"] for row in segments) == device.end().reserved_bytes
    assert sum(row["active_bytes"] for row in segments) == device.end().active_bytes


def test_stacks_and_frames_join_to_what_the_trace_says() -> None:
    trace = load(SHIPPED / "tiny-llama-train.memscope").trace
    analysis = Analysis(trace)
    frames = {row["frame_id"]: row for row in view_table(analysis, "frames").to_pylist()}
    stacks: dict[int, list[tuple[int, int]]] = {}
    for row in view_table(analysis, "stacks").to_pylist():
        stacks.setdefault(row["stack_id"], []).append((row["depth"], row["frame_id"]))
    for stack_id in range(0, len(trace.stacks), 7):
        calls = [frames[frame_id] for _, frame_id in sorted(stacks[stack_id])]
        assert [(c["function"], c["file"], c["line"]) for c in calls] == [
            (f.name, f.filename, f.line) for f in trace.stack(stack_id)
        ]


def test_what_was_not_recorded_is_null() -> None:
    bare = Analysis(plant("no-oom", 1).trace(has_segment_events=False))
    assert set(view_table(bare, "usage").column("reserved_bytes").to_pylist()) == {None}
    full = load(SHIPPED / "tiny-out-of-memory.memscope")
    events = view_table(full, "events").to_pylist()
    ooms = np.flatnonzero(full.trace.action == Action.OOM)
    assert [row["event"] for row in events if row["address"] is None] == ooms.tolist()
    assert all(row["label"] is None for row in events)


def test_addresses_are_those_of_the_process() -> None:
    analysis = load(SHIPPED / "tiny-llama-train.memscope")
    texts = view_table(analysis, "events").column("address").to_pylist()
    trace = analysis.trace
    assert [int(text, 16) for text in texts] == [trace.metadata.real_address(int(a)) for a in trace.address]
    assert all(re.fullmatch("0x[0-9a-f]+", text) for text in texts)


def test_a_view_that_there_is_not_is_said() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'events'"):
        view_table(load(SHIPPED / "tiny-llama-train.memscope"), "event")

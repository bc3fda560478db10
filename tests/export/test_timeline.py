"""The timeline, read back by hand: counters equal the series, spans are steps and phases, allocations are whole."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memscope.analysis import Analysis, load
from memscope.export._timeline import write_timeline
from memscope.trace.schema import NONE_ID
from tests.rank_traces import Alloc, rank_trace
from tests.training_trace import HOSTILE, training_trace

SHIPPED = Path(__file__).parents[2] / "traces"


def written(analysis: Analysis) -> dict[str, Any]:
    out = io.BytesIO()
    write_timeline(analysis, out)
    content = json.loads(out.getvalue().decode("ascii"))
    # What Chrome's format asks of every event ("Trace Event Format"): a phase, a process, and a time but for metadata.
    for event in content["traceEvents"]:
        assert event["ph"] in "MCXbe"
        assert isinstance(event["pid"], int)
        assert event["ph"] == "M" or event["ts"] >= 0
        assert event["ph"] != "X" or event["dur"] >= 0
        assert event["ph"] not in "be" or (event["cat"] and event["id"])
    return content


def counter(content: dict[str, Any], pid: int, name: str) -> list[tuple[float, int]]:
    return [
        (event["ts"], event["args"]["bytes"])
        for event in content["traceEvents"]
        if event["ph"] == "C" and event["pid"] == pid and event["name"] == name
    ]


def carried(changes: list[tuple[float, int]], times: np.ndarray) -> list[int]:
    """What a counter says at some times: the last value at or before each."""
    at = [time for time, _ in changes]
    return [changes[i][1] for i in (np.searchsorted(at, times, "right") - 1).tolist()]


@pytest.mark.parametrize("name", ["tiny-llama-train", "tiny-gpt2-generate", "tiny-out-of-memory"])
def test_the_counters_are_the_series(name: str) -> None:
    analysis = load(SHIPPED / f"{name}.memscope")
    content, device = written(analysis), analysis.device()
    series = {"allocated": device.usage.allocated_bytes, "reserved": device.usage.reserved_bytes}
    series |= {category.label: values for category, values in device.category_usage.items()}
    times = np.asarray(analysis.trace.time_ns)
    times = (times - times[0]) / 1000
    # Where several events share a time the counter shows the last of them.
    last = np.append(times[1:] != times[:-1], True)
    for label, values in series.items():
        assert values is not None
        changes = counter(content, 1, label)
        assert carried(changes, times[last]) == values[1:][last].tolist(), label
    assert content["otherData"]["clock"] == {"0": "time"}


def test_steps_and_phases_are_slices() -> None:
    analysis = load(SHIPPED / "tiny-llama-train.memscope")
    slices = [event for event in written(analysis)["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in slices if event["tid"] == 1] == ["step 0", "step 1", "step 2"]
    phases = [event["name"] for event in slices if event["tid"] == 2]
    assert phases[:3] == ["forward", "backward", "optimizer"]
    steps = analysis.device().steps
    assert steps is not None
    assert [event["args"]["begin_event"] for event in slices if event["tid"] == 1] == steps.begin.tolist()


def test_every_allocation_is_an_asynchronous_slice_that_begins_and_ends() -> None:
    analysis = load(SHIPPED / "tiny-llama-train.memscope")
    events = written(analysis)["traceEvents"]
    begins = {event["id"]: event for event in events if event["ph"] == "b"}
    ends = {event["id"]: event for event in events if event["ph"] == "e"}
    table = analysis.device().allocations
    assert len(begins) == len(table)
    assert begins.keys() == ends.keys()
    assert sum(event["args"]["block_bytes"] for event in begins.values()) == int(table.block_bytes.sum())
    assert all(ends[i]["ts"] >= begins[i]["ts"] for i in begins)
    never = [event for event in begins.values() if event["args"]["free_event"] is None]
    assert len(never) == int(np.count_nonzero(table.let_go_event == NONE_ID))


def test_without_times_an_event_is_a_microsecond_and_each_device_a_process() -> None:
    analysis = Analysis(rank_trace([Alloc("a", 10)], [Alloc("b", 20)], timed=False))
    content = written(analysis)
    assert content["otherData"]["clock"] == {"0": "event", "1": "event"}
    assert counter(content, 2, "allocated") == [(0.0, 0), (1.0, 20 << 20)]
    names = [event["args"]["name"] for event in content["traceEvents"] if event["name"] == "process_name"]
    assert names == ["device 0", "device 1"]


def test_names_of_any_kind_are_json() -> None:
    assert HOSTILE in json.dumps(written(Analysis(training_trace()))["traceEvents"])

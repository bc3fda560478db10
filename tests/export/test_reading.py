"""A part of a trace that is read from its file: what cutting it out of the whole gives, in less memory."""

from __future__ import annotations

import copy
import gzip
import json
import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis, load
from memscope.compare.moments import StepPair
from memscope.errors import MemscopeError, UsageError
from memscope.export.reading import Span, load_span, parse_span, read_events
from memscope.export.slices import part_of_events, slice_trace
from memscope.replay.verify.verify import verify_device
from memscope.trace.snapshot.write import write_snapshot
from memscope.trace.trace import Trace
from tests.naive_layout import random_layout
from tests.oracles import ORACLE, needs_shared
from tests.properties import examples
from tests.trace.snapshot.snapshots import BASE, MIB, event, small, write

SHIPPED = Path(__file__).parents[2] / "traces"


def content(trace: Trace) -> dict[str, Any]:
    """What a trace says, with names in place of ids: these are numbered as they are met."""

    def told(name: str, value: Any) -> Any:
        if value is None or (isinstance(value, int) and value < 0):
            return None
        tables: dict[str, Callable[[int], Any]] = {
            "stream_id": lambda i: int(trace.stream_handles[i]),
            "pool_id": lambda i: tuple(trace.pools[i].tolist()),
            "stack_id": trace.stack,
            "label_id": trace.string,
        }
        return tables[name](value) if name in tables else value

    def rows(table: Any) -> list[dict[str, Any]]:
        columns = {name: column.tolist() for name, column in table.columns().items()}
        return [
            {name: told(name, value) for name, value in zip(columns, row, strict=True)}
            for row in zip(*columns.values(), strict=True)
        ]

    events = {
        f.name: [told(f.name, value) for value in getattr(trace, f.name).tolist()]
        for f in fields(trace)
        if f.name in ("time_ns", "action", "device", "address", "size_bytes", "stream_id", "pool_id", "stack_id")
        or f.name == "label_id"
    }
    tables = {name: rows(getattr(trace, name)) for name in ("segments", "blocks", "samples", "marks", "owners")}
    return {**events, **tables, "metadata": trace.metadata}


def assert_is_the_slice(path: Path, whole: Analysis, first: int, last: int) -> bool:
    """What is read in part is what is cut out of the whole. Says whether it was read in part."""
    found = read_events(path, first, last)
    if found is None:
        return False
    assert content(found) == content(slice_trace(whole, part_of_events(whole, first, last)))
    return True


@pytest.mark.parametrize("name", ["tiny-llama-train", "tiny-gpt2-generate"])
@pytest.mark.parametrize("ending", ["pickle", "pickle.gz"])
def test_a_part_is_the_slice_of_the_whole(tmp_path: Path, name: str, ending: str) -> None:
    path = write_snapshot(load(SHIPPED / f"{name}.memscope").trace, tmp_path / "run.pickle")
    if ending == "pickle.gz":
        path.with_name("run.pickle.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_name("run.pickle.gz")
    whole = load(path)
    n = whole.trace.n_events
    for first, last in ((0, 0), (0, 700), (1, 1), (500, 1200), (n - 300, n - 1), (1, n - 1), (0, n - 2)):
        assert assert_is_the_slice(path, whole, first, last), (first, last)


@examples(60)
@given(seed=st.integers(0, 2_000), first=st.floats(0, 1), last=st.floats(0, 1))
def test_parts_of_random_traces_are_their_slices(
    tmp_path_factory: pytest.TempPathFactory, seed: int, first: float, last: float
) -> None:
    path = write_snapshot(random_layout(seed, 60).trace(), tmp_path_factory.mktemp("random") / "run.pickle")
    whole = load(path)
    begin, end = sorted(int(share * (whole.trace.n_events - 1)) for share in (first, last))
    assert_is_the_slice(path, whole, begin, end)


@needs_shared
@pytest.mark.parametrize("version", ["torch-2.6.0", "torch-2.11.0", "torch-2.12.1", "torch-2.15.0"])
def test_parts_of_real_recordings_are_their_slices(version: str) -> None:
    n_in_part = 0
    for path in sorted((ORACLE / version).glob("*.pickle.gz"))[::6]:
        whole = load(path)
        n = whole.trace.n_events
        if n < 3 or whole.contradictions:
            continue
        n_in_part += assert_is_the_slice(path, whole, n // 3, n // 3 + n // 50 + 1)
    assert n_in_part > 1


def test_a_part_can_be_verified(tmp_path: Path) -> None:
    path = write_snapshot(load(SHIPPED / "tiny-llama-train.memscope").trace, tmp_path / "run.pickle")
    part = load_span(path, Span(events=(700, 1500)))
    assert read_events(path, 700, 1500) is not None
    assert part.trace.n_events == 801
    assert part.device().lifetimes.final_difference() is None
    assert verify_device(part.device().lifetimes).exact


def mid_life() -> dict[str, Any]:
    """Memory that was in use before the first event is freed among the events."""
    snapshot = small()
    late = BASE + 8 * MIB
    events = snapshot["device_traces"][0]
    events[0] = event("segment_map", BASE, 20 * MIB, 100)
    del events[0]
    events += [event("free_requested", late, MIB, 110), event("free_completed", late, MIB, 110)]
    return snapshot


def in_private_pool() -> dict[str, Any]:
    snapshot = small()
    for one in snapshot["device_traces"][0]:
        one["pool_id"] = (0, 1)
    snapshot["segments"][0]["segment_pool_id"] = (0, 1)
    return snapshot


def rotated() -> dict[str, Any]:
    snapshot = small()
    events = snapshot["device_traces"][0]
    snapshot["device_traces"][0] = events[3:] + events[:3]
    return snapshot


def freed_as_another_size() -> dict[str, Any]:
    snapshot = small()
    snapshot["device_traces"][0][3]["size"] = 778
    return snapshot


def another_request_at_the_end() -> dict[str, Any]:
    snapshot = small()
    snapshot["segments"][0]["blocks"][0]["requested_size"] -= 1
    snapshot["segments"][0]["requested_size"] -= 1
    return snapshot


def another_stream_at_the_end() -> dict[str, Any]:
    snapshot = small()
    snapshot["segments"][0]["stream"] = 7
    return snapshot


def listed_twice() -> dict[str, Any]:
    """One event, by reference, in two places: what is not kept of it is no room to be used again."""
    snapshot = small()
    events = snapshot["device_traces"][0]
    made = event("annotate", BASE, 1, 104)
    events += [made, event("annotate", BASE, 1, 105), event("annotate", BASE, 2, 106), made]
    return snapshot


@pytest.mark.parametrize(
    "make",
    [
        mid_life,
        in_private_pool,
        rotated,
        freed_as_another_size,
        another_request_at_the_end,
        another_stream_at_the_end,
    ],
)
def test_what_only_all_events_tell_is_read_whole(tmp_path: Path, make: Callable[[], dict[str, Any]]) -> None:
    path = write(tmp_path, make())
    assert read_events(path, 1, 2) is None


def test_an_event_that_stands_in_two_places_is_kept_in_both(tmp_path: Path) -> None:
    path = write(tmp_path, listed_twice())
    whole = load(path)
    for first, last in ((4, 6), (6, 8), (1, 8)):
        found = load_span(path, Span(events=(first, last))).trace
        assert content(found) == content(slice_trace(whole, part_of_events(whole, first, last)))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_gives_the_same_part(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path, small(), protocol)
    whole = load(path)
    for first, last in ((0, 1), (1, 2), (2, 4), (4, 4)):
        found = load_span(path, Span(events=(first, last))).trace
        assert content(found) == content(slice_trace(whole, part_of_events(whole, first, last)))


def test_marks_and_the_phases_open_at_the_begin_are_those_of_the_slice(tmp_path: Path) -> None:
    snapshot = small()
    ranges = [("START", "outer", 100), ("START", "inner", 102), ("END", "inner", 103), ("END", "outer", 103)]
    snapshot["external_annotations"] = [
        {"stage": stage, "name": name, "device": 0, "time_us": time} for stage, name, time in ranges
    ]
    path = write(tmp_path, snapshot)
    whole = load(path)
    for first in range(5):
        for last in range(first, 5):
            if (first, last) != (0, 4):
                assert assert_is_the_slice(path, whole, first, last), (first, last)


def test_several_devices_keep_their_numbers(tmp_path: Path) -> None:
    snapshot = small()
    other = copy.deepcopy(small())
    other["segments"][0]["device"] = 2
    snapshot["segments"] += other["segments"]
    snapshot["device_traces"] += [[], other["device_traces"][0]]
    path = write(tmp_path, snapshot)
    whole = load(path)
    assert whole.trace.devices == (0, 2)
    for first, last in ((0, 2), (2, 7), (6, 8), (3, 9)):
        assert assert_is_the_slice(path, whole, first, last), (first, last)


def test_a_batch_of_the_pickler_ends_in_the_middle_of_the_events(tmp_path: Path) -> None:
    """Python's pickler writes a thousand items of a list at once; frames of one stack stand in several of them."""
    snapshot = small()
    frames = [{"name": f"f{i}", "filename": "/src/deep.py", "line": i} for i in range(1_500)]
    events, b = snapshot["device_traces"][0], BASE + 4 * MIB
    for i in range(900):
        stack = list(frames[: 3 + i % 5]) if i % 7 else frames
        events += [
            event("alloc", b, 777, 110 + i, frames=stack),
            event("free_requested", b, 777, 110 + i, frames=stack),
            event("free_completed", b, 777, 110 + i, frames=[]),
        ]
    path = write(tmp_path, snapshot)
    whole = load(path)
    for first, last in ((995, 1010), (1, 3), (2_000, 2_600)):
        found = load_span(path, Span(events=(first, last))).trace
        assert content(found) == content(slice_trace(whole, part_of_events(whole, first, last)))


def test_other_files_are_read_whole_and_cut(tmp_path: Path) -> None:
    container = SHIPPED / "tiny-llama-train.memscope"
    assert read_events(container, 10, 20) is None
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps(small()))
    assert read_events(path, 1, 3) is None
    assert load_span(path, Span(events=(1, 3))).trace.n_events == 3
    steps = load_span(container, Span(steps=StepPair("1", "2"))).device().steps
    assert steps is not None
    assert steps.labels == ("1", "2")


def test_events_that_there_are_not_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, small())
    for first, last in ((2, 5), (3, 2), (5, 5)):
        with pytest.raises(UsageError, match=f"events {first}:{last} are not in snapshot.pickle: it has events 0 to 4"):
            load_span(path, Span(events=(first, last)))


def test_a_file_that_is_no_snapshot_is_said_to_be_none(tmp_path: Path) -> None:
    for data in (b"", b"nothing", pickle.dumps({"a": 1}), pickle.dumps(small())[:200], pickle.dumps(pytest.raises)):
        path = tmp_path / "bad.pickle"
        path.write_bytes(data)
        with pytest.raises(MemscopeError) as whole:
            load(path)
        with pytest.raises(MemscopeError) as part:
            load_span(path, Span(events=(0, 1)))
        assert str(part.value) == str(whole.value)


@pytest.mark.parametrize(("steps", "events"), [("0:1", "0:1"), ("0", None), (None, "5"), (None, "-1:2")])
def test_what_is_no_range_is_refused(steps: str | None, events: str | None) -> None:
    with pytest.raises(UsageError):
        parse_span(steps, events)
    assert parse_span(None, None) is None

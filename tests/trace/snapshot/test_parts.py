"""One of several snapshots in a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from memscope.errors import InputFileError, SeveralSnapshotsError
from memscope.trace.snapshot.read import read_snapshot
from tests.trace.snapshot.snapshots import small, write

SEGMENTS = small()["segments"]


def as_json(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("save", [write, as_json])
@pytest.mark.parametrize(
    ("value", "rank"),
    [
        ([small()], None),
        ({"snapshot": small(), "note": "before the crash"}, None),
        ({0: small()}, 0),
        ({"rank_5": small()}, 5),
        ([SEGMENTS], None),
        ({"segments_only": SEGMENTS}, None),
    ],
    ids=["list", "beside-a-note", "rank", "name-of-rank", "list-of-segments", "segments-by-name"],
)
def test_the_only_one_is_read_wherever_it_lies(tmp_path: Path, save: Any, value: Any, rank: int | None) -> None:
    trace = read_snapshot(save(tmp_path, value))
    assert len(trace.segments) == 1
    assert trace.metadata.rank == rank


@pytest.mark.parametrize("save", [write, as_json])
@pytest.mark.parametrize(
    ("value", "part", "rank"),
    [
        ([small(), small() | {"segments": []}], "1", None),
        ({0: small(), 1: small() | {"segments": []}}, "1", 1),
        ({"rank0": small(), "rank1": small() | {"segments": []}}, "rank1", 1),
        ([{"rank": 0, "snapshot": small()}, {"rank": 1, "snapshot": small() | {"segments": []}}], "1", None),
        ({"before": small(), "after": small() | {"segments": []}, "lr": 0.1}, "after", None),
    ],
)
def test_one_of_several_is_read_by_its_name(tmp_path: Path, save: Any, value: Any, part: str, rank: int | None) -> None:
    path = save(tmp_path, value)
    with pytest.raises(SeveralSnapshotsError, match="holds 2 snapshots"):
        read_snapshot(path)
    trace = read_snapshot(path, part)
    assert len(trace.segments) == 0
    assert trace.metadata.rank == rank


def test_a_single_snapshot_has_no_parts(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="holds one snapshot and no part of it called '0': leave out the #"):
        read_snapshot(write(tmp_path, small()), "0")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "is a pickle, but not a memory snapshot: its dict has neither"),
        ([], "is a pickle, but not a memory snapshot: it is an empty list"),
        ([[1, 2], [3, 4]], "is a pickle, but not a memory snapshot: its list holds something else"),
        ([1, 2], "is a pickle, but not a memory snapshot: its list holds something else"),
        (5.5, "is a pickle, but not a memory snapshot: it holds a single value"),
        ({str(i): i for i in range(2000)}, "is a pickle, but not a memory snapshot"),
        ({"model_state_dict": {}}, "is a checkpoint made by torch.save, not a memory snapshot: record one with"),
        ({"allocated_bytes.all.current": 3}, "is a table of the counters of torch.cuda.memory_stats()"),
        (0x1950A86A20F9469CFC6C, "is a checkpoint made by torch.save in its older format"),
        ({"x": 1, "traceEvents": []}, "is a timeline of torch.profiler"),
        ([{"name": "op", "ph": "X"}], "is a timeline of torch.profiler"),
        ([[1, 2], [[0] * 9] * 2], "is a memory timeline of torch.profiler (export_memory_timeline)"),
        ([[1, 0, 512, 3]] * 5, "is a memory timeline of torch.profiler (export_memory_timeline)"),
    ],
)
def test_what_is_none_is_named_for_what_it_is(tmp_path: Path, value: Any, reason: str) -> None:
    with pytest.raises(InputFileError) as caught:
        read_snapshot(write(tmp_path, value))
    assert reason in caught.value.reason


def test_more_parts_than_any_job_has_are_not_looked_through(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="its list holds something else"):
        read_snapshot(write(tmp_path, [{"segments": []}] * 70_000))

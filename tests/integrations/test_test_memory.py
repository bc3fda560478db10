"""What a test needed, and what it is held to."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.compare.baseline import Tolerance
from memscope.errors import InputFileError
from memscope.integrations._test_memory import Limits, measure, way_of
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run_trace
from tests.rank_traces import Alloc, Free, rank_trace

TRACE = run_trace([Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1)), Take(4 * MiB, calls=line(5))])


def test_the_peak_is_that_of_the_device_with_most() -> None:
    found = measure(rank_trace([Alloc("a", 10), Free("a")], [Alloc("b", 30), Free("b"), Alloc("c", 10)]), Limits(), "t")
    assert (found.peak_bytes, found.n_allocations, found.failures) == (30 * MiB, 3, ())


@pytest.mark.parametrize(("limit", "n_failures"), [(6 * MiB, 0), (6 * MiB - 1, 1)])
def test_the_peak_is_held_to_its_limit(limit: int, n_failures: int) -> None:
    found = measure(TRACE, Limits(peak_bytes=limit), "t")
    assert len(found.failures) == n_failures
    assert not n_failures or "train.py:5 forward" in found.failures[0]


def test_leaks_are_judged_line_by_line_and_workspaces_are_none() -> None:
    acts = [
        Take(2 * MiB, calls=line(1, "a")),
        Take(2 * MiB, calls=line(2, "b")),
        Take(8 * MiB, Category.WORKSPACE, "cuBLAS", line(3, "c")),
    ]
    assert measure(run_trace(acts), Limits(leak_bytes=2 * MiB), "t").failures == ()
    (failure,) = measure(run_trace(acts), Limits(leak_bytes=2 * MiB - 1), "t").failures
    assert failure.startswith("limit_gpu_leaks: 4.0 MiB outlive the test")
    assert "cuBLAS" not in failure


def test_a_baseline_is_read_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "base.json"
    written = measure(TRACE, Limits(baseline=path, writes_baseline=True), "t")
    assert written.notes == ("wrote base.json: 6.0 MiB",)
    assert measure(TRACE, Limits(baseline=path), "t").failures == ()
    more = run_trace([Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1)), Take(6 * MiB, calls=line(5))])
    (failure,) = measure(more, Limits(baseline=path), "t").failures
    assert "+2.0 MiB" in failure
    assert measure(more, Limits(baseline=path, tolerance=Tolerance(bytes=2 * MiB)), "t").failures == ()
    path.write_text("{}")
    with pytest.raises(InputFileError):
        measure(TRACE, Limits(baseline=path), "t")


def test_a_test_that_allocates_nothing_keeps_every_size_and_no_baseline(tmp_path: Path) -> None:
    empty = run_trace([])
    found = measure(empty, Limits(peak_bytes=0, leak_bytes=0), "t")
    assert (found.peak_bytes, found.failures) == (0, ())
    (failure,) = measure(empty, Limits(baseline=tmp_path / "base.json"), "t").failures
    assert "allocates nothing" in failure


def test_a_way_that_is_named_is_taken() -> None:
    assert way_of("dry-run") == "dry-run"
    assert way_of("cuda") == "cuda"

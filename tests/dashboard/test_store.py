"""The store: what is loaded when, and how long it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from memscope_dashboard.store import TraceStore

from memscope.errors import InputFileError, UsageError
from tests.oracles import BAD, needs_shared


def test_nothing_is_loaded_before_it_is_asked_for(trace_files: list[Path]) -> None:
    store = TraceStore([*trace_files, "/nowhere/missing.memscope"])
    assert store.loaded_ids == ()
    assert store.analysis("train.memscope") is store.analysis("train.memscope")
    assert store.loaded_ids == ("train.memscope",)


def test_only_the_last_few_are_kept(trace_files: list[Path]) -> None:
    store = TraceStore([*trace_files, trace_files[0]], n_kept=2)
    assert store.trace_ids == ("train.memscope", "other.memscope", "train.memscope (2)")
    first = store.analysis("train.memscope")
    store.analysis("other.memscope")
    store.analysis("train.memscope")
    store.analysis("train.memscope (2)")
    assert store.loaded_ids == ("train.memscope", "train.memscope (2)")
    assert store.analysis("train.memscope") is first


def test_a_result_is_computed_once_and_forgotten_with_its_trace(trace_files: list[Path]) -> None:
    store = TraceStore(trace_files, n_kept=1)
    calls: list[int] = []
    for _ in range(2):
        assert store.remembered("train.memscope", "key", lambda _: calls.append(1) or len(calls)) == 1
    store.analysis("other.memscope")
    assert store.remembered("train.memscope", "key", lambda _: calls.append(1) or len(calls)) == 2


def test_an_unknown_id_is_refused_and_never_read_as_a_path(trace_files: list[Path]) -> None:
    store = TraceStore(trace_files)
    with pytest.raises(UsageError, match="no trace is called"):
        store.analysis(str(trace_files[0]))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.memscope"):
        TraceStore([tmp_path / "gone.memscope"]).analysis("gone.memscope")


def test_no_traces_at_all_is_refused() -> None:
    with pytest.raises(UsageError):
        TraceStore([])


@needs_shared
def test_a_contradictory_trace_is_refused_with_its_reason() -> None:
    store = TraceStore([BAD / "double-free.pickle"])
    assert store.open("double-free.pickle").contradictions
    with pytest.raises(Exception, match="contradicts itself"):
        store.analysis("double-free.pickle")

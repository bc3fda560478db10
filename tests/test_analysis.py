"""What ``memscope.load`` gives: moments, and who is live in them."""

from __future__ import annotations

from pathlib import Path

import pytest

import memscope
from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.trace.builder import TraceBuilder
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def test_the_readme_example_works(tmp_path: Path) -> None:
    path = write_container(training_trace(), tmp_path / "run.memscope")
    trace = memscope.load(path)
    frame = trace.peak().by_category()
    assert list(frame.columns) == ["requested_bytes", "block_bytes", "n_allocations"]
    assert {"weights", "activations"} <= set(frame.index)
    assert sum(row.bytes for row in trace.peak().ledger.rows) == trace.peak().reserved_bytes
    assert trace.device(0).peak().event == trace.peak().event
    assert not trace.kv_lens()


def test_an_empty_trace_has_no_device_to_ask_for() -> None:
    empty = Analysis(TraceBuilder().build(TraceMetadata(source="synthetic")))
    with pytest.raises(UsageError, match="empty"):
        empty.peak()


def test_a_device_that_the_trace_does_not_have_is_named_with_those_it_has(analysis: Analysis) -> None:
    with pytest.raises(UsageError, match=r"device 7 is not in this trace \(it has 0\)"):
        analysis.device(7)


def test_without_a_device_a_moment_is_that_of_its_event(analysis: Analysis) -> None:
    assert analysis.at(3).device is analysis.device(0)
    assert analysis.peak().event == analysis.device(0).peak().event


def test_opinions_are_formed_once(analysis: Analysis) -> None:
    opinions = analysis.opinions()
    assert opinions.device is analysis.device()
    assert opinions.findings is analysis.findings(0)
    assert opinions.kv_lens is analysis.kv_lens(0)
    assert opinions.oom(searches=False) is analysis.oom(searches=False)


def test_the_device_that_ran_out_of_memory_is_meant_where_none_is_named() -> None:
    builder = TraceBuilder()
    for device in (0, 1, 2):
        builder.add_event(Action.ALLOC, address=1 << 40, size_bytes=1 << 20, device=device)
        if device == 1:
            builder.add_event(Action.OOM, address=-1, size_bytes=1 << 30, device=device)
    analysis = Analysis(builder.build(TraceMetadata(source="synthetic")))
    assert analysis.device().index == analysis.peak().device.index == analysis.oom().device == 1
    assert analysis.device(2).index == 2
    assert analysis.device_of_event(0).index == 0

"""What ``memscope.load`` gives: moments, and who is live in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import memscope
from memscope.analysis import NOT_RECORDED, Analysis
from memscope.errors import UsageError
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID
from tests.naive_layout import random_layout
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


@pytest.mark.parametrize("grouping", ["by_category", "by_site", "by_module"])
def test_every_grouping_sums_to_what_is_in_use(analysis: Analysis, grouping: str) -> None:
    peak = analysis.peak()
    live = peak.allocations()
    grouped = getattr(peak, grouping)()
    assert grouped["requested_bytes"].sum() == live.loc[~live["is_pending"], "requested_bytes"].sum()
    assert grouped["n_allocations"].sum() == (~live["is_pending"]).sum()


def test_categories_stand_in_stacking_order(analysis: Analysis) -> None:
    labels = list(analysis.peak().by_category().index)
    order = [category.label for category in Category]
    assert labels == sorted(labels, key=order.index)


def test_owners_that_are_not_known_are_one_group(analysis: Analysis) -> None:
    assert NOT_RECORDED in analysis.peak().by_module().index


def test_allocations_are_listed_largest_first_with_the_users_line(analysis: Analysis) -> None:
    live = analysis.peak().allocations()
    assert live["block_bytes"].is_monotonic_decreasing
    assert live["site"].notna().all()
    table = analysis.device().allocations
    assert live["requested_bytes"].sum() == table.requested_bytes[table.active_at(analysis.peak().event)].sum()


def test_category_usage_sums_to_requested_bytes_at_every_event(analysis: Analysis) -> None:
    total = np.sum(list(analysis.category_usage(0).values()), axis=0)
    assert np.array_equal(total, analysis.device().usage.requested_bytes)


def test_the_fragmentation_moment_is_the_reserved_peak(analysis: Analysis) -> None:
    moment = analysis.fragmentation_moment()
    reserved = analysis.device().usage.reserved_bytes
    assert reserved is not None
    assert moment.reserved_bytes == reserved.max()
    worst = analysis.worst_fragmented(0)
    assert worst is not None
    assert worst.reserved_bytes is not None
    assert worst.reserved_bytes - worst.active_bytes == (reserved - analysis.device().usage.active_bytes).max()


def test_the_start_and_the_end_are_moments_too(analysis: Analysis) -> None:
    assert analysis.at(NONE_ID).allocated_bytes == 0
    assert analysis.at(NONE_ID).time_ns is None
    end = analysis.end()
    assert end.event == analysis.device().last_event
    assert end.state.reserved_bytes == end.reserved_bytes


def test_an_empty_trace_has_no_device_to_ask_for() -> None:
    empty = Analysis(TraceBuilder().build(TraceMetadata(source="synthetic")))
    with pytest.raises(UsageError, match="empty"):
        empty.peak()


def test_a_dry_run_is_never_called_exact() -> None:
    layout = random_layout(5, 30)
    assert Analysis(layout.trace()).is_exact
    trace = layout.trace()
    predicted = Analysis(trace.__class__(**{**_fields(trace), "metadata": TraceMetadata(source="dry-run")}))
    assert not predicted.is_exact
    assert "dry run" in predicted.trust_sentence()
    late = Analysis(layout.trace(len(layout.events) // 2))
    assert not late.is_exact
    assert "cannot be told" in late.trust_sentence()


def _fields(trace: memscope.Trace) -> dict[str, object]:
    return {name: getattr(trace, name) for name in trace.__dataclass_fields__}

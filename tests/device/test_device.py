"""One device of a trace: its facts, its moments, and who is live in them."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.attribution.grouping import NOT_RECORDED
from memscope.device.device import Device
from memscope.errors import UsageError
from memscope.lifetimes.tables import NEVER
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, Action
from tests.oom.planted import plant
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def device() -> Device:
    return Analysis(training_trace()).device()


def test_every_fact_is_made_once(device: Device) -> None:
    for name in ("attribution", "category_usage", "steps", "fragmentation_series", "died_event", "oom_events"):
        assert getattr(device, name) is getattr(device, name)


def test_an_allocation_dies_when_its_free_is_asked_for(device: Device) -> None:
    table = device.allocations
    asked, done = table.free_requested_event, table.free_event
    expected = [a if a != NONE_ID else d if d != NONE_ID else NEVER for a, d in zip(asked, done, strict=True)]
    assert device.died_event.tolist() == expected


def test_failed_requests_are_found_by_their_events(device: Device) -> None:
    assert device.oom_events.tolist() == np.flatnonzero(device.trace.action == Action.OOM).tolist()


def test_rows_one_by_one_and_together_have_the_same_sites(device: Device) -> None:
    rows = np.arange(len(device.allocations))
    sites = [device.site_of(int(row)) for row in rows]
    assert device.sites_of(rows) == sites
    frames = device.site_frames_of(rows)
    assert [None if frame == NONE_ID else str(device.trace.frame(int(frame))) for frame in frames] == sites


def test_headroom_is_what_was_never_reserved() -> None:
    sized = Analysis(training_trace(total_bytes=8 << 30)).device()
    assert sized.headroom_bytes == (8 << 30) - int(np.max(sized.usage.reserved_bytes))
    assert Analysis(training_trace(total_bytes=None)).device().headroom_bytes is None
    program = plant("other-process", 0)
    failed = Analysis(program.trace()).device()
    left = program.total - program.outside_bytes - int(np.max(failed.usage.reserved_bytes))
    assert failed.headroom_bytes == left > 0


def test_an_event_that_is_not_there_is_no_moment(device: Device) -> None:
    with pytest.raises(UsageError, match="is not in this trace"):
        device.at(device.trace.n_events)


@pytest.mark.parametrize("grouping", ["by_category", "by_site", "by_module"])
def test_every_grouping_sums_to_what_is_in_use(device: Device, grouping: str) -> None:
    peak = device.peak()
    live = peak.allocations()
    grouped = getattr(peak, grouping)()
    assert grouped["requested_bytes"].sum() == live.loc[~live["is_pending"], "requested_bytes"].sum()
    assert grouped["n_allocations"].sum() == (~live["is_pending"]).sum()


def test_categories_stand_in_stacking_order(device: Device) -> None:
    labels = list(device.peak().by_category().index)
    order = [category.label for category in Category]
    assert labels == sorted(labels, key=order.index)


def test_owners_that_are_not_known_are_one_group(device: Device) -> None:
    assert NOT_RECORDED in device.peak().by_module().index


def test_allocations_are_listed_largest_first_with_the_users_line(device: Device) -> None:
    live = device.peak().allocations()
    assert live["block_bytes"].is_monotonic_decreasing
    assert live["site"].notna().all()
    table = device.allocations
    assert live["requested_bytes"].sum() == table.requested_bytes[table.active_at(device.peak().event)].sum()


def test_category_usage_sums_to_requested_bytes_at_every_event(device: Device) -> None:
    total = np.sum(list(device.category_usage.values()), axis=0)
    assert np.array_equal(total, device.usage.requested_bytes)


def test_the_fragmentation_moment_is_the_reserved_peak(device: Device) -> None:
    moment = device.fragmentation_moment()
    reserved = device.usage.reserved_bytes
    assert reserved is not None
    assert moment.reserved_bytes == reserved.max()
    worst = device.worst_fragmented()
    assert worst is not None
    assert worst.reserved_bytes is not None
    assert worst.reserved_bytes - worst.active_bytes == (reserved - device.usage.active_bytes).max()


def test_a_run_that_ended_in_a_failure_is_judged_there() -> None:
    found = Analysis(plant("external-fragmentation", 0).trace()).device(0)
    (failed,) = found.oom_events.tolist()
    assert found.fragmentation_moment().event == failed
    assert found.peak_reserved().event < failed


def test_the_start_and_the_end_are_moments_too(device: Device) -> None:
    assert device.at(NONE_ID).allocated_bytes == 0
    assert device.at(NONE_ID).time_ns is None
    end = device.end()
    assert end.event == device.lifetimes.last_event
    assert end.state.reserved_bytes == end.reserved_bytes

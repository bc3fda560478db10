"""What a fix returns, by replay."""

from __future__ import annotations

import dataclasses

import numpy as np

from memscope.findings import returned
from memscope.findings.returned import Returned
from memscope.lifetimes.device import DeviceLifetimes
from memscope.units import GiB, MiB
from tests.oom.planted import OTHER_STREAM, Program


def kept_and_passing() -> tuple[DeviceLifetimes, list[int]]:
    """100 MiB that stay, then five times 40 that stay and 60 that pass: the 40 split what the 60 before them had."""
    program = Program(4 * GiB)
    program.malloc(100 * MiB)
    for _ in range(5):
        program.malloc(40 * MiB)
        program.free(program.malloc(60 * MiB))
    lifetimes = DeviceLifetimes(program.trace(), 0)
    return lifetimes, np.flatnonzero(lifetimes.allocations.requested_bytes == 40 * MiB).tolist()


def test_what_was_never_made_is_not_reserved() -> None:
    lifetimes, kept = kept_and_passing()
    returned = Returned(lifetimes)
    assert returned.peak_bytes == (100 + 40 + 5 * 60) * MiB
    assert returned.without(np.array(kept)) == (40 + 4 * 60) * MiB
    assert returned.without(np.empty(0, np.int64)) == 0


def test_what_is_freed_sooner_serves_what_comes_next() -> None:
    lifetimes, kept = kept_and_passing()
    rows = np.array(kept)
    next_event = np.append(lifetimes.allocations.alloc_event[rows][1:], lifetimes.end_event)
    # Each goes just before the next is made, which takes its place.
    assert Returned(lifetimes).freed_after(rows, next_event - 1) == 4 * 60 * MiB


def test_a_moved_free_is_made_once() -> None:
    program = Program(4 * GiB)
    key = program.malloc(80 * MiB)
    program.malloc(60 * MiB)
    program.free(key)
    lifetimes = DeviceLifetimes(program.trace(), 0)
    first = lifetimes.allocations.alloc_event[:1]
    # Freed before the 60 MiB are asked for: they are served from the 80.
    assert Returned(lifetimes).freed_after(np.array([0]), first) == 60 * MiB


def test_frees_that_complete_at_once_return_what_waited() -> None:
    program = Program(4 * GiB)
    program.free(program.malloc(MiB))
    for _ in range(3):
        program.free(program.malloc(100 * MiB), waits=True)
    lifetimes = DeviceLifetimes(program.trace(), 0)
    assert Returned(lifetimes).if_frees_complete() == 200 * MiB


def test_an_option_is_added_to_the_recorded_ones() -> None:
    program = Program(4 * GiB, "roundup_power2_divisions:2")
    program.malloc(65 * MiB)
    returned = Returned(DeviceLifetimes(program.trace(), 0))
    assert returned.peak_bytes == 96 * MiB
    assert returned.if_not_rounded() == 30 * MiB
    assert returned.if_expandable() == 0


def test_expandable_segments_are_tried_with_the_recorded_settings() -> None:
    program = Program(4 * GiB)
    for size in (100, 200, 300, 400):  # each larger than what is free
        program.free(program.malloc(size * MiB))
    assert Returned(DeviceLifetimes(program.trace(), 0)).if_expandable() == 600 * MiB


def test_nothing_is_claimed_of_what_cannot_be_replayed() -> None:
    program = Program(4 * GiB)
    program.malloc(100 * MiB, OTHER_STREAM)
    trace = program.trace()
    odd = dataclasses.replace(trace.metadata, alloc_conf="backend:cudaMallocAsync")
    returned = Returned(DeviceLifetimes(dataclasses.replace(trace, metadata=odd), 0))
    assert returned.peak_bytes is None
    for answer in (returned.without, lambda rows: returned.freed_after(rows, rows)):
        assert answer(np.array([0])) is None
    assert returned.if_frees_complete() is None
    assert returned.if_expandable() is None


def test_long_recordings_are_not_replayed_unasked(monkeypatch) -> None:
    lifetimes, _ = kept_and_passing()
    monkeypatch.setattr(returned, "MAX_EVENTS", lifetimes.n_events - 1)
    assert Returned(lifetimes).peak_bytes is None


def test_what_is_less_than_the_replays_own_error_is_not_said() -> None:
    program = Program(4 * GiB)
    program.free(program.malloc(300 * MiB))
    program.forget()
    program.malloc(20 * MiB)
    program.malloc(150 * MiB)
    lifetimes = DeviceLifetimes(program.trace(), 0)
    # 300 MiB were cached before the recording, which a replay of it does not have.
    assert lifetimes.usage.reserved_bytes is not None
    assert int(lifetimes.usage.reserved_bytes.max()) == 300 * MiB
    returned = Returned(lifetimes)
    assert returned.peak_bytes == 170 * MiB
    assert returned.without(np.array([0])) is None
    assert returned.without(np.array([1])) == 150 * MiB


def fails_at_the_end() -> DeviceLifetimes:
    """100 MiB that a pin of 20 cuts to 80 and leaves behind, and a last request for which 400 MiB are too few."""
    program = Program(400 * MiB)
    program.free(program.malloc(100 * MiB))
    program.malloc(20 * MiB)
    program.malloc(200 * MiB)
    assert program.malloc(120 * MiB) is None
    return DeviceLifetimes(program.trace(), 0)


def test_where_memory_ran_out_no_more_is_returned_than_the_device_had() -> None:
    lifetimes = fails_at_the_end()
    of = {size: np.flatnonzero(lifetimes.allocations.requested_bytes == size * MiB) for size in (20, 100, 200)}
    returned = Returned(lifetimes)
    assert returned.peak_bytes == 400 * MiB
    # Without the 200: 100 and 120. Without the first 100: 20, 200 and 120. Without the 20 a reclaim gives 100 back.
    assert returned.without(of[200]) == 180 * MiB
    assert returned.without(of[100]) == 60 * MiB
    assert returned.without(of[20]) == 80 * MiB


def test_where_memory_runs_out_all_the_same_no_figure_is_given() -> None:
    program = Program(400 * MiB)
    program.malloc(100 * MiB)
    program.malloc(20 * MiB)
    assert program.malloc(390 * MiB) is None
    lifetimes = DeviceLifetimes(program.trace(), 0)
    returned = Returned(lifetimes)
    assert returned.without(np.flatnonzero(lifetimes.allocations.requested_bytes == 100 * MiB)) is None
    assert returned.if_expandable() is None
